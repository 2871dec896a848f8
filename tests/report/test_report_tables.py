"""Every number of the tables, counted again from the trials."""

import json
import math
import shlex
from pathlib import Path

import pytest
from optuna.trial import TrialState
from report_samples import CLASSES, make_final, make_info, make_study, make_trial, random_search

from search.report import tables
from search.report.collect import collect

JSON_PATH = Path("runs/evening/report/best_configs.json")


def test_comparison_has_three_rows_a_backbone_with_every_metric() -> None:
    trials = collect([make_study("cnn", [make_trial([0.5])])])
    table = tables.comparison(trials, {"cnn": make_final("cnn", accuracy=0.8, nll=0.5)}, make_info())
    assert table.columns[:5] == ("Backbone", "Split", "Galaxies", "Accuracy", "±")
    header, rows = table.groups[0]
    assert header == "cnn"
    # ± of 0.80 on 400 galaxies: sqrt(0.8 * 0.2 / 400) = 0.02.
    assert rows[2] == ("test", "400", "0.800", "0.020", "0.710", "0.720", "0.730", "0.740", "0.950", "0.031", "0.500")
    assert rows[0][:3] == ("train", "800", "0.850")
    assert rows[1][:3] == ("validation", "100", "0.810")


def test_a_backbone_without_evaluation_and_nan_show_dashes() -> None:
    trials = collect([make_study("cnn", [make_trial([0.5])]), make_study("vgg16", [])])
    final = make_final("cnn", metrics={"test": {"accuracy": math.nan, "f1": 0.5}})
    groups = dict(tables.comparison(trials, {"cnn": final}, make_info()).groups)
    assert set(groups["vgg16"][2][2:]) == {"–"}  # noqa: RUF001
    assert groups["cnn"][2].count("0.500") == 1
    assert set(groups["cnn"][0][2:]) == {"–"}  # noqa: RUF001


@pytest.mark.parametrize("seed", [1, 2])
def test_cost_counts_trials_epochs_and_hours(seed: int) -> None:
    studies = [random_search(name, num_trials=60, level=0.4, seed=seed + i) for i, name in enumerate(("cnn", "vgg16"))]
    finals = {"cnn": make_final("cnn", trial=studies[0].best_trial.number)}
    groups = dict(tables.cost(collect(studies), finals, make_info()).groups)
    for study in studies:
        name, by_state = study.user_attrs["backbone"], dict.fromkeys(TrialState, 0)
        for trial in study.trials:
            by_state[trial.state] += 1
        epochs = sum(len(trial.intermediate_values) for trial in study.trials)
        cells = groups[name][0]
        assert cells[2:6] == tuple(
            str(n) for n in (60, by_state[TrialState.COMPLETE], by_state[TrialState.PRUNED], by_state[TrialState.FAIL])
        )
        assert cells[6] == str(epochs)
        assert cells[7] == f"{10 * epochs / 3600:.2f}"
        assert cells[8:] == (f"{study.best_value:.4f}", str(study.best_trial.number))
    assert groups["cnn"][0][:2] == ("1.23", "2,346")
    assert groups["vgg16"][0][:2] == ("–", "–")  # noqa: RUF001


def test_class_counts_and_majority_baseline() -> None:
    table = tables.class_counts(make_info())
    assert table is not None
    assert table.groups[0] == ("round", (("500", "60", "240", "61.5 %"),))  # 800 of 1,300
    assert table.groups[-1] == ("all", (("800", "100", "400", "100.0 %"),))
    assert "always answering round is right for 60.0 % of the test split" in table.note
    assert tables.class_counts(make_info(class_counts={})) is None
    assert [header for header, _ in table.groups[:-1]] == list(CLASSES)


def test_best_parameters_stand_side_by_side() -> None:
    deep = make_trial([0.5], params={"depth": 5})
    rate = make_trial([0.4], params={"learning_rate": 0.000123456})
    table = tables.best_parameters(collect([make_study("a", [deep]), make_study("b", [rate])]), {}, make_info())
    assert table is not None
    assert table.columns == ("Parameter", "a #0", "b #0")
    assert dict(table.groups) == {"depth": (("5", "–"),), "learning_rate": (("–", "0.000123"),)}  # noqa: RUF001


def test_the_best_trial_is_a_complete_one_where_there_is_one() -> None:
    stopped, complete = make_trial([0.1], state=TrialState.PRUNED), make_trial([0.5])
    info = make_info()
    assert tables.chosen_trial(collect([make_study("a", [stopped, complete])]), "a", {}, info) == 1
    assert tables.chosen_trial(collect([make_study("a", [stopped])]), "a", {}, info) == 0
    assert tables.chosen_trial(collect([make_study("a", [])]), "a", {}, info) is None
    finals = {"a": make_final("a", trial=7)}
    assert tables.chosen_trial(collect([make_study("a", [complete])]), "a", finals, info) == 7


def test_endings_are_grouped_by_reason_and_cut_at_twenty() -> None:
    failed = [make_trial([], state=TrialState.FAIL, reason="out of\nmemory") for _ in range(6)]
    stopped = [make_trial([0.5], state=TrialState.PRUNED, reason=None)]
    table, num_left_out = tables.endings(collect([make_study("a", failed + stopped)]), ["a"])
    assert table is not None
    assert table.groups == (
        ("a", (("failed", "out of memory", "6", "#0, #1, #2, #3, #4, …"),)),
        ("a", (("stopped", "no reason recorded", "1", "#6"),)),
    )
    assert num_left_out == 0
    many = [make_trial([], state=TrialState.FAIL, reason=f"error {n} " + "x" * 500) for n in range(25)]
    table, num_left_out = tables.endings(collect([make_study("a", many)]), ["a"])
    assert table is not None
    assert (len(table.groups), num_left_out) == (20, 5)
    assert max(len(rows[0][1]) for _, rows in table.groups) == tables.MAX_REASON_LENGTH
    assert tables.endings(collect([make_study("a", [make_trial([0.5])])]), ["a"]) == (None, 0)


def test_best_configs_hold_config_metrics_and_the_command() -> None:
    study = make_study("timm:tiny", [make_trial([0.5])])
    final = make_final("timm:tiny", metrics={"train": {"accuracy": 0.9}, "test": {"accuracy": 0.8, "auroc": math.nan}})
    info = make_info(data="my shards/gz1")
    found = tables.best_configs(collect([study]), {"timm:tiny": final}, info, path=JSON_PATH)
    entry = json.loads(tables.as_json(found))["timm:tiny"]
    assert entry["config"] == study.trials[0].user_attrs["config"]
    assert (entry["trial"], entry["train"], entry["validation"]) == (0, {"accuracy": 0.9}, None)
    assert entry["test"] == {"accuracy": 0.8, "auroc": None}
    assert shlex.split(entry["command"]) == [
        "python", "-m", "galaxy_models.train", "runs/evening/report/best_configs.json", "--backbone", "timm:tiny",
        "--data", "my shards/gz1", "--out", "retrained/timm-tiny",
        "--objective", "nll",
    ]  # fmt: skip


def test_a_study_where_all_failed_has_no_configuration() -> None:
    study = make_study("a", [make_trial([], state=TrialState.FAIL, config=None)])
    assert tables.best_configs(collect([study]), {}, make_info(), path=JSON_PATH) == {}
