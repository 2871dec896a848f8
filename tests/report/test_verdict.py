"""The sentences of the report are no stronger than its numbers."""

import math

import pytest
from optuna.trial import TrialState
from report_samples import make_final, make_info, make_study, make_trial

from galaxy_models.task import Task
from search.report.collect import FinalEvaluation, Trials, collect
from search.report.verdict import answer, cautions, lead, majority_class, ranked, standard_error


def trials_of(*backbones: str, num_trials: int = 1) -> Trials:
    return collect([make_study(name, [make_trial([0.9, 0.5])] * num_trials) for name in backbones])


def finals_of(*finals: FinalEvaluation) -> dict[str, FinalEvaluation]:
    return {final.backbone: final for final in finals}


def test_standard_error_is_that_of_a_fair_coin() -> None:
    assert standard_error(0.5, 100) == pytest.approx(0.05)  # sqrt(1/4 / 100)
    # All right is taken as one wrong of two more: sqrt(1/102 * 101/102 / 100).
    assert standard_error(1.0, 100) == pytest.approx(0.0098531, abs=1e-6)
    assert standard_error(0.0, 100) == standard_error(1.0, 100)
    assert math.isnan(standard_error(0.5, 0))


def test_lead_counts_standard_errors_of_the_difference() -> None:
    # Each has standard error 0.05 and 0.04 (sqrt(0.8 * 0.2 / 100)): together sqrt(0.0041).
    assert lead(0.8, 0.5, 100) == pytest.approx(0.3 / math.sqrt(0.0041))
    assert lead(1.0, 1.0, 100) == 0
    assert lead(1.0, 0.0, 100) == pytest.approx(1 / (math.sqrt(2) * 0.0098531), rel=1e-4)
    assert math.isnan(lead(math.nan, 0.5, 100))


def test_majority_class_is_the_training_splits_and_scored_on_test() -> None:
    counts = {"train": (5, 3, 2), "val": (1, 1, 1), "test": (2, 6, 2)}
    assert majority_class(make_info(class_counts=counts)) == ("round", 0.2)
    assert majority_class(make_info(class_counts={})) is None


def test_ranking_looks_at_validation_and_never_at_test() -> None:
    finals = finals_of(
        make_final("a", metrics={"validation": {"nll": 0.6, "accuracy": 0.9}, "test": {"nll": 0.1, "accuracy": 0.7}}),
        make_final("b", metrics={"validation": {"nll": 0.5, "accuracy": 0.8}, "test": {"nll": 0.9, "accuracy": 0.8}}),
        make_final("c", metrics={"validation": {"nll": math.nan}, "test": {"nll": 0.0, "accuracy": 1.0}}),
    )
    assert [final.backbone for final in ranked(finals, make_info())] == ["b", "a", "c"]
    by_accuracy = make_info(objective="accuracy", direction="max")
    assert [final.backbone for final in ranked(finals, by_accuracy)] == ["a", "b", "c"]


def test_a_clear_lead_is_called_one() -> None:
    finals = finals_of(make_final("a", accuracy=0.9, nll=0.3), make_final("b", accuracy=0.7, nll=0.5))
    text = " ".join(answer(trials_of("a", "b"), finals, make_info()))
    # Standard errors on 400 galaxies: 0.015 and 0.0229; the lead of 0.2 is 7.3 of sqrt(0.015² + 0.0229²).
    assert text.startswith(
        "a does best: it classifies 90.0 % (standard error 1.5 %) of the 400 test galaxies correctly, "
        "ahead of b (70.0 %) by 7.3 standard errors. "
        "Always answering the most frequent class, round, would give 60.0 %."
    )
    assert "2 trials (4 epochs) over 2 backbones in 4 min 5 s on the survey gz1, 1,300 galaxies." in text


def test_a_lead_within_chance_is_not_called_a_win() -> None:
    # 90 % against 87.5 % of 400: 1.1 standard errors of the difference.
    finals = finals_of(make_final("a", accuracy=0.9, nll=0.3), make_final("b", accuracy=0.875, nll=0.5))
    text = answer(trials_of("a", "b"), finals, make_info())[0]
    assert text.startswith("a (90.0 %) and b (87.5 %) cannot be told apart by accuracy on 400 test galaxies")
    assert "best" not in text


def test_validation_and_test_that_disagree_name_no_winner() -> None:
    finals = finals_of(make_final("a", accuracy=0.7, nll=0.3), make_final("b", accuracy=0.9, nll=0.5))
    text = answer(trials_of("a", "b"), finals, make_info())[0]
    assert text.startswith("No backbone can be named the best: a leads on the validation split")
    assert text.endswith("b (90.0 %) did better.")


def test_without_test_galaxies_no_lead_is_claimed() -> None:
    finals = finals_of(make_final("a", accuracy=0.9, nll=0.3), make_final("b", accuracy=0.1, nll=0.5))
    text = answer(trials_of("a", "b"), finals, make_info(split_sizes={}, class_counts={}))[0]
    assert text.startswith("a (90.0 %) and b (10.0 %) cannot be told apart by accuracy on 0 test galaxies")


def test_the_answer_is_one_to_three_sentences() -> None:
    many = finals_of(*(make_final(name, accuracy=0.9 - i / 10, nll=0.3 + i) for i, name in enumerate("abcde")))
    for finals in ({}, finals_of(make_final("a")), many):
        assert 1 <= len(answer(trials_of("a", "b"), finals, make_info())) <= 3


def test_votes_are_compared_by_rmse_without_a_winner() -> None:
    task = Task("votes", tuple(f"Class{i}" for i in range(37)))
    info = make_info(task=task, objective="rmse", class_counts={})
    finals = finals_of(
        make_final("a", metrics={"validation": {"rmse": 0.1}, "test": {"rmse": 0.105}}),
        make_final("b", metrics={"validation": {"rmse": 0.2}, "test": {"rmse": 0.21}}),
    )
    text = answer(trials_of("a", "b"), finals, info)[0]
    assert "a 0.1050 and b 0.2100" in text
    assert "no winner is called" in text


def test_nothing_evaluated_and_nothing_run_are_said() -> None:
    assert "evaluated on the test split" in answer(trials_of("a"), {}, make_info())[0]
    assert "No trial was run" in answer(collect([make_study("a", [])]), {}, make_info())[0]
    failed = collect([make_study("a", [make_trial([], state=TrialState.FAIL)])])
    assert "No trial got as far" in answer(failed, {}, make_info())[0]


def test_cautions_say_what_weakens_the_answer() -> None:
    finals = finals_of(make_final("a", accuracy=0.61))
    text = " ".join(cautions(trials_of("a", "b"), finals, make_info(simulated=True, notes=("The disk was slow.",))))
    assert "The sky is simulated" in text
    assert "Too few trials to call the tuning done: a (1) and b (1)." in text
    assert "No final evaluation of b" in text
    assert "single seed" in text
    assert "Not clearly better than always answering round: a." in text
    assert text.endswith("The disk was slow.")


def test_a_sound_search_has_only_the_caution_of_the_single_seed() -> None:
    found = cautions(trials_of("a", num_trials=20), finals_of(make_final("a", accuracy=0.9)), make_info())
    assert len(found) == 1
    assert "single seed" in found[0]


def test_small_splits_and_absent_classes_are_said() -> None:
    counts = {"train": (50, 30, 20), "val": (1, 1, 0), "test": (40, 30, 30)}
    info = make_info(split_sizes={"train": 100, "val": 2, "test": 100}, class_counts=counts)
    found = " ".join(cautions(collect([]), {}, info))
    assert "Only 2 of the galaxies chose the trials" in found
    assert f"No {info.task.names[2]} is among the galaxies that chose the trials" in found
    assert "gave the final scores" not in found
