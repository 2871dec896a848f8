"""Reading trials out of studies: what a row says, and what is missing."""

import math

import pandas as pd
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from report_samples import make_study, make_trial

from search.report.collect import collect


def test_a_row_for_each_trial_says_how_it_ended() -> None:
    study = make_study(
        "cnn",
        [
            make_trial([0.9, 0.5, 0.6], best_epoch=2, named=True),
            make_trial([0.8, 0.7], state=TrialState.PRUNED, reason="stopped at rung 2"),
            make_trial([0.4, math.nan], state=TrialState.FAIL, reason="diverged in epoch 2"),
        ],
    )
    table = collect([study]).table
    assert table["state"].tolist() == ["COMPLETE", "PRUNED", "FAIL"]
    assert table["value"].tolist() == [0.5, 0.7, 0.4]
    assert table["best_epoch"].tolist() == [2, 2, 1]
    assert table["epochs"].tolist() == [3, 2, 2]
    assert table["seconds"].tolist() == [30.0, 20.0, 20.0]
    assert table["named"].tolist() == [True, False, False]
    assert table["reason"].tolist() == ["", "stopped at rung 2", "diverged in epoch 2"]


def test_best_value_of_a_stopped_trial_follows_the_direction() -> None:
    study = make_study("cnn", [make_trial([0.6, 0.8, 0.7], state=TrialState.PRUNED)], direction="maximize")
    row = collect([study]).row("cnn", 0)
    assert row is not None
    assert (row["value"], row["best_epoch"]) == (0.8, 2)


def test_a_trial_without_anything_is_a_row_without_values() -> None:
    empty = create_trial(state=TrialState.FAIL)
    trials = collect([make_study(None, [empty])])
    row = trials.row("space of None", 0)
    assert row is not None
    assert math.isnan(row["value"])
    assert math.isnan(row["seconds"])
    assert pd.isna(row["best_epoch"])
    assert row["epochs"] == 0
    assert trials.curves.empty
    assert trials.configs == {}
    assert trials.row("space of None", 1) is None


def test_seconds_are_summed_from_epochs_where_the_trial_has_none() -> None:
    assert collect([make_study("cnn", [make_trial([0.9, 0.8], seconds=None)])]).table["seconds"].tolist() == [20.0]


def test_parameters_keep_a_type_that_the_space_decides() -> None:
    params = {"learning_rate": 0.01, "depth": 3, "trainable_stages": None, "symmetries": True}
    study = make_study("cnn", [make_trial([0.5], params=params), make_trial([0.5], params={"depth": 2})])
    table = collect([study]).table
    assert str(table["param_depth"].dtype) == "Int64"
    assert str(table["param_learning_rate"].dtype) == "Float64"
    assert str(table["param_symmetries"].dtype) == "boolean"
    assert table["param_trainable_stages"][0] == "None"  # chosen, unlike the next trial's
    assert table["param_trainable_stages"].isna().tolist() == [False, True]
    assert table["param_learning_rate"].isna().tolist() == [False, True]


def test_one_name_with_other_types_in_two_spaces_becomes_text() -> None:
    words = CategoricalDistribution(["small", "large"])
    other = create_trial(value=0.4, params={"depth": "small"}, distributions={"depth": words})
    table = collect([make_study("cnn", [make_trial([0.5])]), make_study("vgg16", [other])]).table
    assert table["param_depth"].tolist() == ["3", "small"]


def test_curves_have_a_row_for_each_epoch_with_every_metric() -> None:
    curves = collect([make_study("cnn", [make_trial([0.9, 0.8])])]).curves
    assert curves.columns.tolist() == ["backbone", "trial", "epoch", "value", "val_nll", "seconds"]
    assert curves["value"].tolist() == [0.9, 0.8]
    assert curves["seconds"].tolist() == [10.0, 10.0]


def test_text_that_is_no_unicode_can_be_written() -> None:
    reason = collect([make_study("cnn", [make_trial([0.5], reason="no file caf\udce9.jpg")])]).table["reason"][0]
    assert reason.encode() == b"no file caf?.jpg"


def test_a_trial_says_whose_configuration_it_runs_again() -> None:
    study = make_study("cnn", [make_trial([0.5]), make_trial([0.4], finalist_of=0), make_trial([0.4], duplicate_of=1)])
    table = collect([study]).table
    assert table["promoted_from"].isna().tolist() == [True, False, True]
    assert table["promoted_from"][1] == 0
    assert table["duplicate_of"][2] == 1
