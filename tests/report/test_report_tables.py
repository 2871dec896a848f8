"""Every number of the tables, counted again from the trials and the answers."""

import json
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from final_samples import CLASSES, answer_classes, measure, sample_targets, write_exact, write_final
from optuna.trial import TrialState
from report_samples import make_findings, make_study, make_trial, random_search
from scipy import stats
from sklearn import metrics as sk

from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task
from search.report import numbers
from search.report.tables import classes, configs, cost, scores, trials

JSON_PATH = Path("runs/evening/report/best_configs.json")
DASH = "\N{EN DASH}"


def expected_calibration_error(targets: np.ndarray, outputs: np.ndarray) -> float:
    """Guo et al. 2017, equation 5, with 15 bins: bin by bin."""
    confidence, right, total = outputs.max(axis=1), outputs.argmax(axis=1) == targets, 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            total += inside.sum() * abs(right[inside].mean() - confidence[inside].astype(float).mean())
    return total / len(targets)


def test_the_comparison_is_scikit_learns(tmp_path: Path) -> None:
    targets = sample_targets()
    skills = {"train": 2.2, "val": 1.8, "test": 2.0, "averaged": 2.5}
    answers = {
        row: [answer_classes(targets, skill=skill, seed=seed) for seed in range(3)] for row, skill in skills.items()
    }
    for index, outputs in enumerate(answers["test"]):
        metrics = {split: measure(targets, answers[split][index]) for split in ("train", "val", "test")}
        averaged = answers["averaged"][index]
        write_final(tmp_path, "cnn", targets, outputs, averaged=averaged, seed_index=index, metrics=metrics)
    table = scores.comparison(make_findings(tmp_path, [make_study("cnn", [make_trial([0.5])])]))
    names = table.columns[2:]
    assert names == ("Accuracy", "Balanced accuracy", "Precision", "Recall", "F1", "AUROC", "ECE", "NLL")
    header, rows = table.groups[0]
    assert (header, [row[0] for row in rows]) == (
        "cnn",
        ["train (800)", "validation (100)", "test (400)", "averaged (400)"],
    )
    for row, outputs in enumerate(answers.values()):
        given = [one.argmax(axis=1) for one in outputs]
        by_hand = {
            "Accuracy": [sk.accuracy_score(targets, one) for one in given],
            "Balanced accuracy": [sk.balanced_accuracy_score(targets, one) for one in given],
            "Precision": [sk.precision_score(targets, one, average="macro") for one in given],
            "Recall": [sk.recall_score(targets, one, average="macro") for one in given],
            "F1": [sk.f1_score(targets, one, average="macro") for one in given],
            "AUROC": [np.mean([sk.roc_auc_score(targets == c, one[:, c]) for c in range(3)]) for one in outputs],
            "ECE": [expected_calibration_error(targets, one) for one in outputs],
            "NLL": [-np.log(one[np.arange(400), targets].astype(float)).mean() for one in outputs],
        }
        for name, values in by_hand.items():
            cell = rows[row][1 + names.index(name)]
            value, *bounds = cell.split("\n")
            assert value == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}", name
            # There are answers for single galaxies of the test split only.
            assert len(bounds) == (row >= 2)
            for low, high in (map(float, one.split(DASH)) for one in bounds):
                assert low < np.mean(values) < high or name == "ECE", name


def test_the_calibration_error_stands_beside_what_chance_alone_makes(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    confidence = rng.uniform(0.5, 1.0, 400)
    outputs = np.stack([confidence, 1 - confidence, np.zeros(400)], axis=1).astype(np.float32)
    calibrated = np.where(rng.random(400) < confidence, 0, 1)
    write_final(tmp_path, "cnn", calibrated, outputs)
    findings = make_findings(tmp_path, [make_study("cnn", [])])
    table = classes.calibration(findings)
    assert table is not None
    ((name, ((ece, by_chance, unbiased, bounds),)),) = table.groups
    assert (name, ece) == ("cnn", f"{expected_calibration_error(calibrated, outputs):.3f}")
    # A gap's standard deviation is sqrt(sum of c (1 - c)) / N in each bin, and the mean of |gap| 0.798 of that.
    bins = (confidence * 15).astype(int)
    sums = np.bincount(bins, weights=confidence * (1 - confidence))
    assert float(by_chance) == pytest.approx(math.sqrt(2 / math.pi) * np.sqrt(sums).sum() / 400, rel=0.15)
    low, high = map(float, bounds.split(DASH))
    assert low == 0.0 <= float(unbiased) <= high
    assert float(unbiased) < float(ece)
    cell = dict(scores.comparison(findings).groups)["cnn"][scores.TEST_ROW][7]
    assert cell == f"{ece}\n{bounds}"
    assert classes.calibration(make_findings(tmp_path / "none", [make_study("cnn", [])])) is None


def test_the_baseline_is_a_constant_answer(tmp_path: Path) -> None:
    findings = make_findings(tmp_path, [make_study("cnn", [])])
    header, (row,) = scores.comparison(findings).groups[-1]
    targets, constant = sample_targets(), np.zeros(400, dtype=int)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(targets, constant, average="macro", zero_division=0)
    expected = [sk.accuracy_score(targets, constant), sk.balanced_accuracy_score(targets, constant)]
    expected += [precision, recall, f1, 0.5]
    assert (header, row[0]) == ("Always round", "test (400)")
    assert row[1:] == (*(f"{value:.3f}" for value in expected), DASH, DASH)


def test_a_backbone_without_evaluation_and_nan_show_dashes(tmp_path: Path) -> None:
    targets = sample_targets()
    metrics = {"val": {"nll": 0.5}, "test": {"accuracy": math.nan, "f1": 0.5}}
    write_final(tmp_path, "cnn", targets, answer_classes(targets, skill=1.0, seed=1), metrics=metrics)
    studies = [make_study("cnn", [make_trial([0.5])]), make_study("vgg16", [])]
    groups = dict(scores.comparison(make_findings(tmp_path, studies)).groups)
    assert set(groups["vgg16"][2][1:]) == {DASH}
    assert groups["cnn"][2][1:].count("0.500") == 1
    assert set(groups["cnn"][0][1:]) == {DASH}


def test_the_selected_trial_stands_beside_its_retrainings(tmp_path: Path) -> None:
    for index, nll in enumerate((0.55, 0.65)):
        write_exact(tmp_path, "cnn", 300, nll=nll, seed_index=index, trial=1)
    study = make_study("cnn", [make_trial([0.9]), make_trial([0.7, 0.5])])
    table = scores.chosen(make_findings(tmp_path, [study]))
    assert table is not None
    assert table.groups == (("cnn", (("#1", "0.5000", "0.6000 ± 0.0707", "+0.1000", "2"),)),)


def test_pairs_are_counted_galaxy_by_galaxy(tmp_path: Path) -> None:
    write_exact(tmp_path, "a", 360, nll=0.3)
    write_exact(tmp_path, "b", 340, nll=0.5)
    table = scores.pairs(make_findings(tmp_path, [make_study("a", []), make_study("b", [])]))
    assert table is not None
    ((header, ((verdict, lead, _, seeds, first, second, p_value, adjusted, sign),)),) = table.groups
    assert (header, verdict, first, second, seeds) == ("a, b", "differ", "20", "0", DASH)
    assert lead.startswith("+5.0\n+")
    # Twenty of twenty: 2 / 2^20.
    assert (p_value, adjusted, sign) == ("< 0.001",) * 3
    assert scores.pairs(make_findings(tmp_path / "none", [])) is None


def test_questions_have_an_rmse_each(tmp_path: Path) -> None:
    task = Task("votes", GZ2.columns)
    rng = np.random.default_rng(4)
    targets = rng.random((60, 37)).astype(np.float32)
    outputs = (targets + rng.normal(0, 0.1, targets.shape)).astype(np.float32)
    write_final(tmp_path, "cnn", targets, outputs, task=task)
    found = make_findings(tmp_path, [make_study("cnn", [])], task=task, objective="rmse", class_counts={})
    table = scores.questions(found)
    assert table is not None
    assert len(table.groups) == 11
    # Question 7, roundness, has the columns Class7.1 to Class7.3.
    columns = [GZ2.columns.index(f"Class7.{answer}") for answer in (1, 2, 3)]
    expected = sk.root_mean_squared_error(targets[:, columns].ravel(), outputs[:, columns].ravel())
    header, ((text, cell),) = table.groups[6]
    assert (header, text) == ("7 roundness", "How rounded is it?")
    value, bounds = cell.split("\n")
    assert value == f"{expected:.4f}"
    # Mean squared errors of 60 galaxies: the interval is that of their mean, by the normal approximation.
    each = ((targets - outputs)[:, columns] ** 2).mean(axis=1)
    low, high = (math.sqrt(each.mean() + z * each.std() / math.sqrt(60)) for z in (-1.96, 1.96))
    assert [float(bound) for bound in re.findall(r"[0-9.]+", bounds)] == pytest.approx([low, high], rel=0.03)
    assert scores.questions(make_findings(tmp_path / "none", [])) is None


@pytest.mark.parametrize("seed", [1, 2])
def test_cost_counts_trials_epochs_and_hours(tmp_path: Path, seed: int) -> None:
    studies = [random_search(name, num_trials=60, level=0.4, seed=seed + i) for i, name in enumerate(("cnn", "vgg16"))]
    write_exact(tmp_path, "cnn", 300, nll=0.5, trial=studies[0].best_trial.number, seconds=72.0)
    findings = make_findings(tmp_path, studies, threads=2, price_per_hour=3.0, elapsed_s=7200.0)
    table = cost.cost(findings)
    groups, seconds = dict(table.groups), {}
    for study in studies:
        name, by_state = study.user_attrs["backbone"], dict.fromkeys(TrialState, 0)
        for trial in study.trials:
            by_state[trial.state] += 1
        epochs = sum(len(trial.intermediate_values) for trial in study.trials)
        cells = groups[name][0]
        assert cells[4:8] == tuple(
            str(n) for n in (60, by_state[TrialState.COMPLETE], by_state[TrialState.PRUNED], by_state[TrialState.FAIL])
        )
        assert cells[8] == str(epochs)
        seconds[name] = 10 * epochs + (72 if name == "cnn" else 0)
        assert cells[9] == f"{2 * seconds[name] / 3600:.2f}"
        assert cells[11] == f"#{study.best_trial.number}"
    # Two hours at 3 each, shared by time.
    for name, spent in seconds.items():
        assert groups[name][0][10] == f"{6 * spent / sum(seconds.values()):.2f}"
    assert groups["cnn"][0][:4] == ("1.23", "2.50", "2,346", "512")
    assert groups["vgg16"][0][:4] == (DASH,) * 4
    assert "Cost" not in cost.cost(make_findings(tmp_path, studies)).columns


def test_time_is_divided_by_what_it_was_spent_on(tmp_path: Path) -> None:
    epochs = {f"epoch:{n}": {"epoch": n, "epoch_s": 10.0, "data_wait_share": 0.2} for n in (1, 2)}
    epochs["epoch:1"]["handover_s"] = 1.5
    full = make_trial([0.5, 0.4], **epochs)
    stopped = make_trial([0.6], state=TrialState.PRUNED, **{"epoch:1": {"epoch": 1, "epoch_s": 10.0}})
    failed = make_trial([0.6], state=TrialState.FAIL, **{"epoch:1": {"epoch": 1, "epoch_s": 10.0}})
    write_exact(tmp_path, "a", 300, nll=0.5, seconds=30.0)
    write_exact(tmp_path, "a", 300, nll=0.5, seconds=12.0, seed_index=1)
    findings = make_findings(tmp_path, [make_study("a", [full, stopped, failed])], elapsed_s=41.0)
    table = cost.time(findings)
    assert table is not None
    assert table.groups == (("a", (("40", "4\n10.0 %", "2", "10\n25.0 %", "10\n25.0 %", "42"),)),)
    assert cost.time_words(findings).endswith(
        "In 41 seconds of search, trials took 40 seconds: 1.0 of them ran at a time, on average. "
        "The retrainings of the final evaluation took 42 seconds."
    )
    assert "not recorded" in cost.time_words(make_findings(tmp_path, [], elapsed_s=math.nan))
    assert table.note.endswith("Energy was not measured: the machine of the search offers no counter that may be read.")
    assert math.isnan(numbers.time_table(findings)["energy_kwh"][0])


def test_energy_is_added_up_over_epochs_and_retrainings(tmp_path: Path) -> None:
    epochs = {f"epoch:{n}": {"epoch": n, "epoch_s": 10.0, "energy_j": 3e5, "cpu_energy_j": 3e5} for n in (1, 2)}
    measured, unknown = make_trial([0.5, 0.4], **epochs), make_trial([0.6])
    for index, joules in enumerate((1.2e6, None)):
        write_exact(tmp_path, "a", 300, nll=0.5, seed_index=index, energy_j=joules)
    studies = [make_study("a", [measured, unknown]), make_study("b", [make_trial([0.6])])]
    findings = make_findings(tmp_path, studies)
    table = cost.time(findings)
    assert table is not None
    assert table.columns[-1] == "Energy (kWh)"
    # 2 * 0.3 MJ and 1.2 MJ; a kilowatt-hour has 3.6 MJ.
    assert [rows[0][-1] for _, rows in table.groups] == ["0.500", DASH]
    assert numbers.time_table(findings)["energy_kwh"].tolist() == pytest.approx([0.5, math.nan], nan_ok=True)
    assert table.note.endswith("measured in 2 of 4 epochs of trials only.")
    assert "is missing" not in table.note
    shared = cost.time(make_findings(tmp_path, studies, gpus_per_trial=0.5))
    assert shared is not None
    assert "That of the graphics cards is missing: no counter could be read." in shared.note
    curves = findings.trials.curves
    assert curves["energy_j"].tolist() == pytest.approx([3e5, 3e5, math.nan, math.nan], nan_ok=True)


def test_class_counts_and_majority_baseline(tmp_path: Path) -> None:
    table = classes.class_counts(make_findings(tmp_path, []))
    assert table is not None
    assert table.groups[0] == ("round", (("500", "60", "240", "61.5 %"),))  # 800 of 1,300
    assert table.groups[-1] == ("all", (("800", "100", "400", "100.0 %"),))
    assert "always answering round is right for 60.0 % of the test split" in table.note
    assert classes.class_counts(make_findings(tmp_path, [], class_counts={})) is None
    assert [header for header, _ in table.groups[:-1]] == list(CLASSES)


def test_each_class_has_recall_precision_and_f1_with_intervals(tmp_path: Path) -> None:
    targets = sample_targets()
    outputs = answer_classes(targets, skill=1.5, seed=2)
    write_final(tmp_path, "cnn", targets, outputs)
    write_final(tmp_path, "vgg16", targets, answer_classes(targets, skill=1.0, seed=2))
    findings = make_findings(tmp_path, [make_study("cnn", []), make_study("vgg16", [])])
    table = classes.per_class(findings, findings.standings["cnn"], folded=False)
    given = outputs.argmax(axis=1)
    precision, recall, f1, support = sk.precision_recall_fscore_support(targets, given)
    for c, (name, ((galaxies, answered, *cells),)) in enumerate(table.groups):
        assert (name, galaxies, answered) == (CLASSES[c], str(support[c]), str((given == c).sum()))
        hits = ((given == c) & (targets == c)).sum()
        for cell, value, total in ((cells[0], recall[c], support[c]), (cells[1], precision[c], (given == c).sum())):
            wilson = stats.binomtest(int(hits), int(total)).proportion_ci(method="wilson")
            assert cell == f"{value:.3f}\n{wilson.low:.3f}{DASH}{wilson.high:.3f}"
        assert cells[2].startswith(f"{f1[c]:.3f}\n")
    recalls = classes.recalls(findings)
    assert recalls is not None
    assert [row[0][1] for _, row in recalls.groups] == [f"{value:.3f}" for value in recall]


def test_a_class_that_is_absent_and_never_answered_has_no_score(tmp_path: Path) -> None:
    targets = sample_targets((300, 100, 0))
    outputs = answer_classes(targets, skill=2.0, seed=2)
    outputs[:, 2] = 0.0
    write_final(tmp_path, "cnn", targets, outputs)
    counts = {"train": (500, 200, 100), "val": (60, 30, 10), "test": (300, 100, 0)}
    findings = make_findings(tmp_path, [make_study("cnn", [])], class_counts=counts)
    table = classes.per_class(findings, findings.standings["cnn"], folded=False)
    assert table.groups[2] == ("edge_on", (("0", "0", DASH, DASH, DASH),))


def test_the_confusion_matrix_is_scikit_learns(tmp_path: Path) -> None:
    targets = sample_targets()
    answers = [answer_classes(targets, skill=1.5, seed=seed) for seed in (1, 2)]
    for index, outputs in enumerate(answers):
        write_final(tmp_path, "cnn", targets, outputs, seed_index=index)
    table = numbers.confusion_table(make_findings(tmp_path, [make_study("cnn", [])]))
    expected = np.mean([sk.confusion_matrix(targets, one.argmax(axis=1)) for one in answers], axis=0)
    assert table["mean_galaxies"].to_numpy().reshape(3, 3) == pytest.approx(expected)
    assert table["true"].tolist()[:4] == ["round", "round", "round", "spiral_cw"]


def test_best_parameters_stand_side_by_side(tmp_path: Path) -> None:
    deep = make_trial([0.5], params={"depth": 5})
    rate = make_trial([0.4], params={"learning_rate": 0.000123456})
    table = trials.best_parameters(make_findings(tmp_path, [make_study("a", [deep]), make_study("b", [rate])]))
    assert table is not None
    assert table.columns == ("Parameter", "a #0", "b #0")
    assert dict(table.groups) == {"depth": (("5", DASH),), "learning_rate": ((DASH, "0.000123"),)}


def test_the_best_trial_is_a_complete_one_where_there_is_one(tmp_path: Path) -> None:
    stopped, complete = make_trial([0.1], state=TrialState.PRUNED), make_trial([0.5])

    def chosen(*found: object) -> int | None:
        return make_findings(tmp_path, [make_study("a", list(found))]).chosen_trial("a")  # type: ignore[arg-type]

    assert chosen(stopped, complete) == 1
    assert chosen(stopped) == 0
    assert chosen() is None
    write_exact(tmp_path, "a", 300, nll=0.5, trial=7)
    assert chosen(complete) == 7


def test_endings_are_grouped_by_reason_and_cut_at_twenty(tmp_path: Path) -> None:
    failed = [make_trial([], state=TrialState.FAIL, reason="out of\nmemory") for _ in range(6)]
    stopped = [make_trial([0.5], state=TrialState.PRUNED, reason=None)]
    table, num_left_out = trials.endings(make_findings(tmp_path, [make_study("a", failed + stopped)]))
    assert table is not None
    assert table.groups == (
        ("a", (("failed", "out of memory", "6", "#0, #1, #2, #3, #4, …"),)),
        ("a", (("stopped", "no reason recorded", "1", "#6"),)),
    )
    assert num_left_out == 0
    many = [make_trial([], state=TrialState.FAIL, reason=f"error {n} " + "x" * 500) for n in range(25)]
    table, num_left_out = trials.endings(make_findings(tmp_path, [make_study("a", many)]))
    assert table is not None
    assert (len(table.groups), num_left_out) == (20, 5)
    assert max(len(rows[0][1]) for _, rows in table.groups) == trials.MAX_REASON_LENGTH
    assert trials.endings(make_findings(tmp_path, [make_study("a", [make_trial([0.5])])])) == (None, 0)


def test_those_that_made_way_to_others_have_one_line(tmp_path: Path) -> None:
    replaced = [
        make_trial([0.5], state=TrialState.PRUNED, reason=f"replaced after epoch {words}")
        for words in (
            "12 by trial 9, which goes on from 3",
            "3 by trial 7, which goes on from 2",
            "3 by trial 8, which goes on from 4",
            "6 by trial 10, which goes on from 8",
        )
    ]
    table, _ = trials.endings(make_findings(tmp_path, [make_study("a", replaced)]))
    assert table is not None
    assert table.groups == (("a", (("stopped", "replaced at the end of a generation", "4", "#0, #1, #2, #3"),)),)


def test_retrainings_that_failed_are_listed(tmp_path: Path) -> None:
    targets = sample_targets()
    outputs = answer_classes(targets, skill=1.5, seed=1)
    write_final(tmp_path, "a", targets, outputs, trial=4, seed_index=2, failure="training diverged in epoch 3")
    table = trials.finals_failed(make_findings(tmp_path, [make_study("a", [])]))
    assert table is not None
    assert table.groups == (("a", (("#4", "3", "training diverged in epoch 3"),)),)


def test_best_configs_hold_config_metrics_and_the_command(tmp_path: Path) -> None:
    study = make_study("timm:tiny", [make_trial([0.5])])
    for index, accuracy in enumerate((0.8, 0.9)):
        metrics = {
            "train": {"accuracy": 0.9},
            "val": {"nll": 0.4},
            "test": {"accuracy": accuracy, "auroc": math.nan},
        }
        write_exact(tmp_path, "timm:tiny", 300, nll=0.4, seed_index=index, metrics=metrics)
    found = configs.best_configs(make_findings(tmp_path, [study], data="my shards/gz1"), path=JSON_PATH)
    entry = json.loads(configs.as_json(found))["timm:tiny"]
    assert entry["config"] == study.trials[0].user_attrs["config"]
    assert (entry["trial"], entry["train"]["accuracy"], entry["validation"]["nll"]) == (0, 0.9, 0.4)
    assert entry["test"]["accuracy"] == pytest.approx(0.85)
    assert (entry["test"]["auroc"], entry["train"]["f1"]) == (None, None)
    assert shlex.split(entry["command"]) == [
        "python", "-m", "galaxy_models.train", "runs/evening/report/best_configs.json", "--backbone", "timm:tiny",
        "--data", "my shards/gz1", "--out", "retrained/timm-tiny",
        "--objective", "nll",
    ]  # fmt: skip


def test_without_a_final_evaluation_best_configs_hold_the_trials_best_epoch(tmp_path: Path) -> None:
    epochs = {
        f"epoch:{n}": {"epoch": n, "val_nll": value, "val_accuracy": 0.6 + 0.1 * n, "train_nll": 0.3 * n}
        for n, value in ((1, 0.9), (2, 0.4), (3, 0.6))
    }
    study = make_study("a", [make_trial([0.9, 0.4, 0.6], best_epoch=2, **epochs)])
    entry = configs.best_configs(make_findings(tmp_path, [study]), path=JSON_PATH)["a"]
    assert entry["validation"] == {"nll": 0.4, "accuracy": pytest.approx(0.8)}
    assert (entry["train"], entry["test"]) == ({"nll": pytest.approx(0.6)}, None)


def test_a_study_where_all_failed_has_no_configuration(tmp_path: Path) -> None:
    study = make_study("a", [make_trial([], state=TrialState.FAIL, config=None)])
    assert configs.best_configs(make_findings(tmp_path, [study]), path=JSON_PATH) == {}
