"""Every score of the final evaluation, recomputed by scikit-learn; intervals, pairs and what cannot be used."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from final_samples import CLASSES, answer_classes, predictions_table, sample_targets, write_final, write_run_json
from scipy import stats
from sklearn import metrics as sk

from galaxy_models.task import METRICS, Task
from search.report.evidence.answers import Answers
from search.report.evidence.pairs import compare
from search.report.evidence.scores import calibration_error, class_columns, vote_columns
from search.report.evidence.standing import Evidence, choose, gather
from search.report.run_info import load_run_info
from search.results import load_results
from search.statistics import Spread, difference_p_value, percentile_interval, resampled_means


def gathered(run_dir: Path) -> Evidence:
    return gather(run_dir, load_results(run_dir), load_run_info(run_dir))


def by_sklearn(targets: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    answers = probabilities.argmax(axis=1)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(targets, answers, average="macro", zero_division=0)
    confidence, right = probabilities.max(axis=1), answers == targets
    bins = np.floor(confidence * 15).astype(int)
    gaps = [abs((confidence - right)[bins == b].sum()) for b in range(16)]
    areas = [
        sk.roc_auc_score(targets == c, probabilities[:, c]) for c in np.unique(targets) if len(np.unique(targets)) > 1
    ]
    return {
        "nll": -float(np.log(probabilities[np.arange(len(targets)), targets].astype(float)).mean()),
        "accuracy": sk.accuracy_score(targets, answers),
        "balanced_accuracy": float(np.mean([(answers[targets == c] == c).mean() for c in np.unique(targets)])),
        "precision": precision, "recall": recall, "f1": f1,
        "auroc": float(np.mean(areas)), "ece": sum(gaps) / len(targets),
    }  # fmt: skip


@pytest.mark.parametrize("counts", [(240, 120, 40), (30, 5, 0), (3, 2, 1)])
def test_scores_are_scikit_learns(counts: tuple[int, ...]) -> None:
    targets = sample_targets(counts)
    probabilities = answer_classes(targets, skill=1.0, seed=3)
    found = class_columns(targets, probabilities).observed()
    for name, value in by_sklearn(targets, probabilities).items():
        assert found[name] == pytest.approx(value, abs=1e-5), name
    answers = probabilities.argmax(axis=1)
    each = sk.precision_recall_fscore_support(targets, answers, labels=range(3), zero_division=0)
    for c in range(3):
        assert [found[f"{name}:{c}"] for name in ("precision", "recall", "f1")] == pytest.approx(
            [values[c] for values in each[:3]]
        )


def test_tied_scores_count_half_in_auroc() -> None:
    targets, column = np.array([0, 0, 0, 1, 1, 1]), np.array([0.5, 0.5, 0.7, 0.5, 0.2, 0.2])
    found = class_columns(targets, np.stack([column, 1 - column], axis=1).astype(np.float32)).observed()
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(targets == 0, column))


def test_replicates_are_the_scores_of_the_galaxies_drawn() -> None:
    targets = sample_targets((60, 30, 10))
    probabilities = answer_classes(targets, skill=1.0, seed=3)
    columns = class_columns(targets, probabilities)
    means = resampled_means(columns.values, seed=9, num_resamples=4)
    replicates = columns.scores(means)
    drawn = np.random.default_rng(9).integers(0, 100, size=(4, 100))
    for draw, rows in enumerate(drawn):
        expected = by_sklearn(targets[rows], probabilities[rows])
        for name in set(expected) - {"auroc"}:
            assert replicates[name][draw] == pytest.approx(expected[name], abs=1e-5), name
        # Its expansion to first order: it misses by the order of 1 / N.
        assert replicates["auroc"][draw] == pytest.approx(expected["auroc"], abs=0.01)


def test_intervals_of_f1_and_auroc_cover_the_truth() -> None:
    """The truth is the score of a survey of 200,000 galaxies."""

    def survey(size: int, seed: int) -> Any:
        rng = np.random.default_rng([seed, 5])
        targets = rng.choice(3, size=size, p=[0.5, 0.3, 0.2])
        logits = rng.normal(size=(size, 3))
        logits[np.arange(size), targets] += 1.2
        powers = np.exp(logits)
        return class_columns(targets, (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))

    truth = survey(200_000, 0).observed()
    covered = dict.fromkeys(("f1", "auroc", "balanced_accuracy", "nll"), 0)
    num_surveys = 200
    for seed in range(1, num_surveys + 1):
        columns = survey(300, seed)
        replicates = columns.scores(resampled_means(columns.values, seed=seed, num_resamples=400))
        for name in covered:
            low, high = percentile_interval(replicates[name])
            covered[name] += low <= truth[name] <= high
    # 3 standard deviations of the count: sqrt(200 * 0.95 * 0.05) = 3.1.
    assert all(abs(count - 0.95 * num_surveys) <= 3 * 3.1 for count in covered.values()), covered


def calibrated(confidence: np.ndarray) -> np.ndarray:
    return confidence


def overconfident(confidence: np.ndarray) -> np.ndarray:
    """As if the logits of two classes were multiplied by 1 / 0.6."""
    odds = (confidence / np.maximum(1 - confidence, 1e-12)) ** 0.6
    return odds / (1 + odds)


def wrong_where_sure(confidence: np.ndarray) -> np.ndarray:
    return np.where(confidence > 14 / 15, confidence - 0.2, confidence)


@pytest.mark.parametrize(
    ("share_right", "num_galaxies"),
    [(calibrated, 200), (calibrated, 1000), (overconfident, 200), (overconfident, 1000), (wrong_where_sure, 500)],
)
def test_intervals_of_the_calibration_error_cover_that_of_the_population(share_right: Any, num_galaxies: int) -> None:
    law, num_surveys = stats.beta(2, 1), 200
    every = 0.5 + 0.5 * law.ppf((np.arange(400_000) + 0.5) / 400_000)
    gaps = (every - share_right(every)) / len(every)
    truth = np.abs(np.bincount((every * 15).astype(int), weights=gaps)).sum()
    above, below, values, estimates, chance = 0, 0, [], [], []
    for survey in range(num_surveys):
        rng = np.random.default_rng([survey, num_galaxies])
        confidence = 0.5 + 0.5 * law.rvs(num_galaxies, random_state=rng)
        right = rng.random(num_galaxies) < share_right(confidence)
        probabilities = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
        columns = class_columns((~right).astype(np.int64), probabilities)
        means = resampled_means(columns.values, seed=survey, num_resamples=300)
        found = calibration_error([columns], [means])
        assert found is not None
        estimate, low, high, by_chance = found
        assert low <= estimate <= high
        above, below = above + (low > truth + 1e-9), below + (high < truth - 1e-9)
        values.append(columns.observed()["ece"])
        estimates.append(estimate)
        chance.append(by_chance)
    # 3 standard deviations of the count: sqrt(200 * 0.95 * 0.05) = 3.1.
    assert above + below <= 0.05 * num_surveys + 3 * 3.1
    assert abs(np.median(estimates) - truth) < abs(np.median(values) - truth)
    if share_right is calibrated:
        # Only the lower bound can miss 0, in 2.5 of 100: 5 expected of 200, with a standard deviation of 2.2.
        assert (below, above <= 5 + 3 * 2.2) == (0, True)
        assert np.mean(chance) == pytest.approx(np.mean(values), rel=0.05)
    else:
        assert above + below >= 1


def test_a_calibration_error_of_several_networks_is_that_of_their_mean() -> None:
    rng = np.random.default_rng(4)
    targets = np.zeros(4000, dtype=np.int64)
    targets[::5] = 1
    # Right in 80 of 100, sure to 90 and to 85: errors of 0.1 and 0.05, far beyond chance.
    columns = [class_columns(targets, np.tile(np.float32([p, 1 - p]), (4000, 1))) for p in (0.9, 0.85)]
    replicates = [resampled_means(one.values, seed=1, num_resamples=1000) for one in columns]
    found = calibration_error(columns, replicates)
    assert found is not None
    # Both err alike: by the standard error of the share right.
    half = 1.96 * math.sqrt(0.8 * 0.2 / 4000)
    assert found[:3] == pytest.approx((0.075, 0.075 - half, 0.075 + half), abs=0.002)
    votes = vote_columns(*rng.random((2, 50, 4)).astype(np.float32))
    assert calibration_error([votes], [resampled_means(votes.values, seed=1, num_resamples=5)]) is None


def test_recall_and_balanced_accuracy_are_the_same_in_resamples_without_a_class() -> None:
    targets = sample_targets((30, 10, 2))
    columns = class_columns(targets, answer_classes(targets, skill=0.5, seed=3))
    replicates = columns.scores(resampled_means(columns.values, seed=9, num_resamples=200))
    rows = np.random.default_rng(9).integers(0, 42, size=(200, 42))
    assert sum(not (targets[drawn] == 2).any() for drawn in rows) > 10
    assert replicates["recall"] == pytest.approx(replicates["balanced_accuracy"], abs=1e-12)


def test_a_class_without_galaxies_that_is_answered_counts_in_recall_in_every_resample() -> None:
    targets = sample_targets((30, 10, 0))
    probabilities = answer_classes(targets, skill=0.5, seed=3)
    # One galaxy is given the class; a third of the resamples do not draw it.
    probabilities[:, 2], probabilities[0] = 0.0, (0.1, 0.1, 0.8)
    columns = class_columns(targets, probabilities)
    replicates = columns.scores(resampled_means(columns.values, seed=9, num_resamples=200))
    assert replicates["recall"] == pytest.approx(2 / 3 * replicates["balanced_accuracy"])


def test_rmse_of_votes_is_that_over_all_and_each_column() -> None:
    rng = np.random.default_rng(1)
    targets, outputs = rng.random((2, 50, 4)).astype(np.float32)
    found = vote_columns(targets, outputs).observed()
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(targets.ravel(), outputs.ravel()), rel=1e-6)
    assert found["rmse:2"] == pytest.approx(sk.root_mean_squared_error(targets[:, 2], outputs[:, 2]), rel=1e-6)


def test_a_backbone_stands_by_its_mean_over_seeds(tmp_path: Path) -> None:
    targets = sample_targets()
    write_run_json(tmp_path)
    answers = [answer_classes(targets, skill=2.0, seed=seed) for seed in range(3)]
    for index, outputs in enumerate(answers):
        averaged = answer_classes(targets, skill=2.5, seed=index)
        write_final(tmp_path, "cnn", targets, outputs, averaged=averaged, seed_index=index)
    standing = gathered(tmp_path).standings["cnn"]
    scores = [by_sklearn(targets, outputs) for outputs in answers]
    for name in METRICS["classes"]:
        values, found = [one[name] for one in scores], standing.estimate("test", name)
        assert found.value == pytest.approx(np.mean(values), abs=1e-5)
        assert found.spread == pytest.approx(np.std(values, ddof=1), abs=1e-5)
        # That of the calibration error, of which chance makes a part, may lie below it.
        assert found.low < found.value < found.high or name == "ece"
    accuracy, averaged = standing.estimate("test", "accuracy"), standing.estimate("averaged", "accuracy")
    assert averaged.value > accuracy.value
    assert averaged.low < averaged.value < averaged.high
    # The interval of a mean over seeds lies within that of one seed's binomial share, and is no wonder narrower.
    right = np.mean([outputs.argmax(axis=1) == targets for outputs in answers], axis=0)
    half = 1.96 * right.std() / math.sqrt(len(targets))
    assert accuracy.high - accuracy.low == pytest.approx(2 * half, rel=0.1)
    assert math.isnan(standing.estimate("train", "accuracy").low)


def test_the_configuration_is_chosen_by_mean_validation_among_those_with_most_seeds(tmp_path: Path) -> None:
    targets = sample_targets()
    write_run_json(tmp_path)
    outputs = answer_classes(targets, skill=2.0, seed=1)
    for rank, values in enumerate([(0.5, 0.5), (0.3, 0.6), (0.1,)]):
        for index, nll in enumerate(values):
            metrics = {"val": {"nll": nll}, "test": {"accuracy": 0.1, "nll": 0.1 * rank}}
            place = {"rank": rank, "trial": 10 + rank, "seed_index": index}
            write_final(tmp_path, "cnn", targets, outputs, metrics=metrics, **place)
    write_final(tmp_path, "cnn", targets, outputs, rank=2, trial=12, seed_index=1, failure="diverged")
    chosen = choose(load_results(tmp_path), load_run_info(tmp_path))["cnn"]
    assert [run.trial for run in chosen] == [11, 11]
    assert [run.seed_index for run in gathered(tmp_path).failed] == [1]


def test_pairs_are_tested_on_the_same_galaxies(tmp_path: Path) -> None:
    targets = sample_targets()
    write_run_json(tmp_path)
    answers = {name: answer_classes(targets, skill=skill, seed=4) for name, skill in (("a", 2.6), ("b", 1.6))}
    answers["c"] = answer_classes(targets, skill=2.6, seed=5)
    for name, outputs in answers.items():
        write_final(tmp_path, name, targets, outputs)
    evidence = gathered(tmp_path)
    pairs = {(pair.first, pair.second): pair for pair in compare(evidence.standings, load_run_info(tmp_path))}
    assert len(pairs) == 3
    right = {name: outputs.argmax(axis=1) == targets for name, outputs in answers.items()}
    for (first, second), pair in pairs.items():
        ahead, behind = (right[first] & ~right[second]).sum(), (right[second] & ~right[first]).sum()
        assert (pair.first_better, pair.second_better) == (ahead, behind)
        assert pair.difference == pytest.approx(right[first].mean() - right[second].mean())
        assert pair.p_sign == pytest.approx(stats.binomtest(ahead, ahead + behind).pvalue)
        assert pair.low < pair.difference < pair.high
        # One seed: a paired t test, but for the scatter of the bootstrap's standard error.
        expected = stats.ttest_rel(right[first].astype(float), right[second].astype(float)).pvalue
        assert pair.p_value == pytest.approx(expected, rel=0.3, abs=0.02)
        assert math.isnan(pair.seed_error)
    different = {frozenset(names) for names, pair in pairs.items() if pair.differs}
    assert different == {frozenset("ab"), frozenset("bc")}
    assert all(pair.better != "b" for pair in pairs.values() if pair.differs)


def test_a_difference_that_other_seeds_could_have_made_is_none(tmp_path: Path) -> None:
    targets = sample_targets()
    write_run_json(tmp_path)
    for name, skills in (("a", (3.2, 1.4)), ("b", (1.9, 1.2))):
        for index, skill in enumerate(skills):
            write_final(tmp_path, name, targets, answer_classes(targets, skill=skill, seed=index), seed_index=index)
    (pair,) = compare(gathered(tmp_path).standings, load_run_info(tmp_path))
    alone = difference_p_value(pair.difference, [Spread(pair.galaxy_error, len(targets))])
    assert alone < 0.01
    assert pair.seed_error > pair.galaxy_error
    assert not pair.differs


def test_votes_are_compared_by_squared_errors(tmp_path: Path) -> None:
    task = Task("votes", ("Class1.1", "Class1.2"))
    survey = {"name": "gz2", "digest": "sha256:" + "cd" * 32, "simulated": False, "px": 64, "class_counts": {},
              "task": {"kind": "votes", "names": list(task.names)}, "split_sizes": {"test": 300}}  # fmt: skip
    write_run_json(tmp_path, survey=survey, objective="rmse")
    rng = np.random.default_rng(2)
    targets = rng.random((300, 2)).astype(np.float32)
    for name, noise in (("a", 0.1), ("b", 0.2)):
        outputs = (targets + rng.normal(0, noise, targets.shape)).astype(np.float32)
        write_final(tmp_path, name, targets, outputs, task=task)
    evidence = gathered(tmp_path)
    (pair,) = compare(evidence.standings, load_run_info(tmp_path))
    assert (pair.first, pair.better, pair.differs) == ("a", "a", True)
    assert pair.difference == pytest.approx(0.1, abs=0.02)
    assert evidence.standings["a"].estimate("test", "rmse:1").value == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b"PAR1"), "damaged"),
        (lambda path: pq.write_table(pq.read_table(path).drop_columns(["p_round"]), path), "damaged .*p_round"),
        (lambda path: pq.write_table(pq.read_table(path).slice(0, 2), path), "no row of the split 'test'"),
    ],
)
def test_answers_that_cannot_be_read_are_named_and_left_out(tmp_path: Path, harm: Any, message: str) -> None:
    targets = sample_targets()
    write_run_json(tmp_path)
    for name in ("a", "b"):
        run = write_final(tmp_path, name, targets, answer_classes(targets, skill=2.0, seed=1))
    harm(run.folder(tmp_path) / "predictions.parquet")
    evidence = gathered(tmp_path)
    assert len(evidence.problems) == 1
    assert re.search(f"The answers of b, seed 1, cannot be used: .*{message}", evidence.problems[0])
    assert evidence.standings["b"].value("test", "accuracy") > 0.5
    assert math.isnan(evidence.standings["b"].estimate("test", "accuracy").low)
    assert compare(evidence.standings, load_run_info(tmp_path)) == ()


def test_answers_of_other_weights_or_galaxies_are_left_out(tmp_path: Path) -> None:
    targets = sample_targets()
    write_run_json(tmp_path)
    outputs = answer_classes(targets, skill=2.0, seed=1)
    write_final(tmp_path, "a", targets, outputs)
    run = write_final(tmp_path, "b", targets, outputs)
    other = predictions_table(targets, answer_classes(targets, skill=0.0, seed=1), task=Task("classes", CLASSES))
    pq.write_table(other, run.folder(tmp_path) / "predictions.parquet")
    write_final(tmp_path, "c", targets, outputs, ids=[f"other-{index}" for index in range(len(targets))])
    problems = " ".join(gathered(tmp_path).problems)
    assert "but 0." in problems
    assert "Answers of c are for other test galaxies" in problems
    assert not gathered(tmp_path).standings["c"].complete


def test_answers_that_are_not_finite_have_no_interval(tmp_path: Path) -> None:
    targets = sample_targets()
    write_run_json(tmp_path)
    outputs = answer_classes(targets, skill=2.0, seed=1)
    run = write_final(tmp_path, "a", targets, outputs)
    outputs[3] = math.nan
    table = predictions_table(targets, outputs, task=Task("classes", CLASSES))
    pq.write_table(table, run.folder(tmp_path) / "predictions.parquet")
    assert "answers that are not finite" in gathered(tmp_path).problems[0]


def test_answers_are_sorted_by_id() -> None:
    one = Answers(np.array(["a", "b"]), np.array([0, 1]), np.zeros((2, 2)), None)
    assert one.same_galaxies(Answers(np.array(["a", "b"]), np.array([0, 1]), np.ones((2, 2)), None))
    assert not one.same_galaxies(Answers(np.array(["a", "b"]), np.array([1, 1]), np.zeros((2, 2)), None))
