"""The sentences of the report are no stronger than its numbers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from final_samples import answer_classes, right_on, sample_targets, write_exact, write_final
from optuna.trial import TrialState
from report_samples import make_findings, make_study, make_trial

from galaxy_models.task import Task
from search.entry import PARENT
from search.report.findings import Findings
from search.report.verdict import answer, cautions


def found(run_dir: Path, *backbones: str, num_trials: int = 1, **info: Any) -> Findings:
    studies = [make_study(name, [make_trial([0.9, 0.5])] * num_trials) for name in backbones]
    return make_findings(run_dir, studies, **info)


def test_a_clear_lead_is_called_one(tmp_path: Path) -> None:
    write_exact(tmp_path, "a", 360, nll=0.3)
    write_exact(tmp_path, "b", 280, nll=0.5)
    text = " ".join(answer(found(tmp_path, "a", "b")))
    assert text.startswith("a does best: it classifies 90.0 % (95 % interval ")
    # Of 400: 0.9 +- 1.96 * 0.015.
    low, high = re.findall(r"interval ([0-9.]+) to ([0-9.]+) %", text)[0]
    assert (float(low), float(high)) == pytest.approx((87.06, 92.94), abs=0.5)
    assert (
        " of the 400 test galaxies correctly, ahead of b (70.0 %), beyond chance among galaxies; what another" in text
    )
    assert "Always answering the most frequent class, round, would give 60.0 %." in text
    assert "2 trials (4 epochs) over 2 backbones in 4 min 5 s on the survey gz1, 1,300 galaxies." in text


def test_a_lead_within_chance_is_a_tie(tmp_path: Path) -> None:
    # 90 % against 87.5 %, right on other galaxies: 1.1 standard errors of the difference.
    write_exact(tmp_path, "a", 360, nll=0.3)
    write_exact(tmp_path, "b", 350, nll=0.5, shift=200)
    write_exact(tmp_path, "c", 200, nll=0.9)
    text = answer(found(tmp_path, "a", "b", "c"))[0]
    assert text == (
        "a (90.0 %) leads on the validation split, but on 400 test galaxies b (87.5 %) cannot be told from it by "
        "accuracy; c does worse."
    )


def test_the_same_lead_on_the_same_galaxies_is_one(tmp_path: Path) -> None:
    """Paired: b errs wherever a does, and on ten galaxies more, which chance does once in 500."""
    write_exact(tmp_path, "a", 360, nll=0.3)
    write_exact(tmp_path, "b", 350, nll=0.5)
    assert right_on(350)[right_on(360)].sum() == 350
    assert answer(found(tmp_path, "a", "b"))[0].startswith("a does best")


def test_validation_and_test_that_disagree_name_no_winner(tmp_path: Path) -> None:
    write_exact(tmp_path, "a", 280, nll=0.3)
    write_exact(tmp_path, "b", 360, nll=0.5)
    text = answer(found(tmp_path, "a", "b"))[0]
    assert text.startswith("No backbone can be named the best: a leads on the validation split")
    assert text.endswith(
        "b (90.0 %) did better, beyond chance among galaxies; what another seed would change is not known."
    )


def test_without_single_answers_no_lead_is_claimed(tmp_path: Path) -> None:
    write_exact(tmp_path, "a", 360, nll=0.3)
    run = write_exact(tmp_path, "b", 100, nll=0.5)
    (run.folder(tmp_path) / "predictions.parquet").unlink()
    text = answer(found(tmp_path, "a", "b"))[0]
    assert text.startswith("a leads on the validation split and classifies 90.0 %")
    assert "whether it beats b (25.0 %) beyond chance cannot be said" in text


def test_a_difference_that_seeds_could_have_made_is_a_tie(tmp_path: Path) -> None:
    for index, (first, second) in enumerate([(380, 330), (300, 290)]):
        write_exact(tmp_path, "a", first, nll=0.3, seed_index=index)
        write_exact(tmp_path, "b", second, nll=0.5, seed_index=index)
    assert " cannot be told from it by accuracy" in answer(found(tmp_path, "a", "b"))[0]


def test_the_answer_is_one_to_three_sentences(tmp_path: Path) -> None:
    assert 1 <= len(answer(found(tmp_path, "a", "b"))) <= 3
    for place, name in enumerate("abcde"):
        write_exact(tmp_path, name, 360 - 20 * place, nll=0.3 + place)
        assert 1 <= len(answer(found(tmp_path, "a", "b"))) <= 3


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (2.0, "a does best: it predicts vote fractions with an RMSE of 0."),
        (1.01, "on 400 test galaxies b (0.0971) cannot be told from it by RMSE."),
    ],
)
def test_votes_are_compared_by_rmse(tmp_path: Path, scale: float, words: str) -> None:
    rng = np.random.default_rng(3)
    targets, errors = rng.random((400, 2)).astype(np.float32), rng.normal(0, 0.1, (400, 2))
    for name, own in (("a", errors), ("b", scale * np.roll(errors, 1, axis=0))):
        write_final(tmp_path, name, targets, (targets + own).astype(np.float32), task=Task("votes", ("yes", "no")))
    task = Task("votes", ("yes", "no"))
    text = answer(found(tmp_path, "a", "b", task=task, objective="rmse", class_counts={}, baseline_rmse=0.29))
    assert words in text[0]
    assert text[1] == "Always answering the mean of the training galaxies would give 0.2900."


def test_nothing_evaluated_and_nothing_run_are_said(tmp_path: Path) -> None:
    assert "evaluated on the test split yet" in answer(found(tmp_path, "a"))[0]
    assert "No trial was run" in answer(make_findings(tmp_path, [make_study("a", [])]))[0]
    failed = make_study("a", [make_trial([], state=TrialState.FAIL)])
    assert "No trial got as far" in answer(make_findings(tmp_path, [failed]))[0]


def test_scores_that_are_not_finite_are_said(tmp_path: Path) -> None:
    targets = sample_targets()
    metrics = {"val": {"nll": 0.4}, "test": {"accuracy": float("nan")}}
    write_final(tmp_path, "a", targets, answer_classes(targets, skill=1.0, seed=1), metrics=metrics)
    assert answer(found(tmp_path, "a"))[0] == "No backbone has a finite accuracy on the test split."


def test_cautions_say_what_weakens_the_answer(tmp_path: Path) -> None:
    write_exact(tmp_path, "a", 244, nll=0.5)
    running = make_trial([0.9], state=TrialState.RUNNING)
    studies = [make_study("a", [make_trial([0.9, 0.5]), running]), make_study("b", [make_trial([0.9])])]
    text = " ".join(cautions(make_findings(tmp_path, studies, simulated=True, notes=("The disk was slow.",))))
    assert "The sky is simulated" in text
    assert "This search is not finished: 1 trial has not ended" in text
    assert "Too few trials to call the tuning done: a (1) and b (1)." in text
    assert "No final evaluation of b" in text
    assert "single seed" in text
    assert "Not clearly better than always answering round: a." in text
    assert text.endswith("The disk was slow.")


def test_a_sound_search_has_no_caution(tmp_path: Path) -> None:
    for index in range(3):
        write_exact(tmp_path, "a", 360 + index, nll=0.5, seed_index=index)
    assert cautions(found(tmp_path, "a", num_trials=20)) == ()


@pytest.mark.parametrize(("count", "words"), [(1, "1 file name occurs in"), (1234, "1,234 file names occur in")])
def test_names_in_several_splits_are_said(tmp_path: Path, count: int, words: str) -> None:
    (text,) = (text for text in cautions(make_findings(tmp_path, [], num_repeated_names=count)) if "name" in text)
    assert text.startswith(f"{words} more than one of the survey's own splits, with another image in each: if a name")


def test_small_splits_and_absent_classes_are_said(tmp_path: Path) -> None:
    counts = {"train": (50, 30, 20), "val": (1, 1, 0), "test": (40, 30, 30)}
    sizes = {"train": 100, "val": 2, "test": 100}
    text = " ".join(cautions(make_findings(tmp_path, [], split_sizes=sizes, class_counts=counts)))
    assert "Only 2 of the galaxies chose the trials" in text
    assert "No edge_on is among the galaxies that chose the trials" in text
    assert "gave the final scores" not in text


def test_of_a_population_only_what_begins_from_scratch_counts_as_tuning(tmp_path: Path) -> None:
    drawn = [make_trial([0.9, 0.5]) for _ in range(19)]
    branched = [make_trial([0.9, 0.5], **{PARENT: 0}) for _ in range(19)]
    text = " ".join(cautions(make_findings(tmp_path, [make_study("a", drawn + branched)], scheduler="pbt")))
    assert "Too few trials to call the tuning done: a (19). Below 20, a population begins with few" in text
    enough = make_study("a", [*drawn, make_trial([0.9, 0.5]), *branched])
    assert "Too few trials" not in " ".join(cautions(make_findings(tmp_path, [enough], scheduler="pbt")))
