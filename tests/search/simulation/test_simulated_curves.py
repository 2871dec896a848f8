"""Learning curves are read as they were measured, and anything else is refused in words."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from few_curves import curves, table

from search.errors import RunError
from search.simulation.curve_files import read_curves
from search.simulation.curves import Columns, make_curves

TWO = {"a": [3.0, 2.0, 2.5], "b": [4.0, 1.0]}


def write(folder: Path, frame: pd.DataFrame, name: str = "curves.parquet") -> Path:
    frame.to_parquet(folder / name)
    return folder / name


def test_a_table_in_any_order_becomes_one_curve_a_configuration(tmp_path: Path) -> None:
    shuffled = table(TWO, seconds=2.0).iloc[[4, 2, 0, 3, 1]]
    found = read_curves(write(tmp_path, shuffled))
    assert found.ids == ["a", "b"]
    assert [list(values) for values in found.values] == [[3.0, 2.0, 2.5], [4.0, 1.0]]
    assert [list(seconds) for seconds in found.seconds] == [[2.0] * 3, [2.0] * 2]
    assert found.params.to_dict("list") == {"x": [0, 1]}


@pytest.mark.parametrize(
    ("direction", "epochs", "best", "worst"),
    [("min", 3, 1.0, 4.0), ("min", 1, 3.0, 4.0), ("max", 3, 4.0, 1.0), ("max", 1, 4.0, 3.0)],
)
def test_best_and_worst_count_every_epoch(direction: Any, epochs: int, best: float, worst: float) -> None:
    found = curves(TWO, direction=direction)
    assert (found.best(epochs), found.worst(epochs)) == (best, worst)


def test_an_easy_target_is_what_a_share_of_the_curves_reach() -> None:
    hundred = {f"{number:03d}": [float(number)] for number in range(1, 101)}
    assert curves(hundred).easy_target(1, 0.02) == 2.0
    assert curves(hundred, direction="max").easy_target(1, 0.02) == 99.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="seconds"), "no column 'seconds'"),
        (lambda frame: frame.iloc[:0], "has no row"),
        (lambda frame: frame.drop(columns="x"), "no column with values is left for parameters"),
        (lambda frame: frame.assign(x=None), "no column with values is left for parameters"),
        (lambda frame: frame.assign(x=np.inf), "configuration a, epoch 1: x is inf, expected a finite number, or noth"),
        (lambda frame: frame.assign(x=[[1]] * 5), r"column 'x' holds '\[1\]' of type list, expected numbers, words"),
        (lambda frame: frame.assign(x=[{"a": 1}] * 5), "column 'x' holds .* of type dict, expected numbers, words"),
        (lambda frame: frame.assign(x=pd.Timestamp(0)), "column 'x' holds '1970-01-01 .*' of type Timestamp, expected"),
        (lambda frame: frame.assign(x=Decimal("1.5")), "column 'x' holds '1.5' of type Decimal, expected numbers"),
        (
            lambda frame: frame.assign(config=[[1]] * 5),
            "column 'config' holds .* of type list, expected .*: give each conf",
        ),
        (lambda frame: frame.assign(value="good"), "column 'value' is of type .*, expected numbers"),
        (lambda frame: frame.assign(value=np.inf), r"configuration a, epoch 1: value is inf.*\(5 such rows\)"),
        (lambda frame: frame.assign(seconds=0.0), "seconds is 0.0, expected more than 0"),
        (lambda frame: frame[frame["epoch"] != 2], "configuration a: found epoch 3, expected 2"),
        (lambda frame: pd.concat([frame, frame.iloc[:1]]), "configuration a: found epoch 1, expected 2"),
        (lambda frame: frame.assign(x=range(5)), "configuration a: x changes, expected one value"),
        (lambda frame: frame.assign(config=None), "a row has no config"),
    ],
)
def test_what_is_no_learning_curve_is_refused_in_words(change: Any, words: str) -> None:
    with pytest.raises(RunError, match=words):
        make_curves(change(table(TWO)), where="here", objective="value", direction="min", params=())


def test_a_parameter_without_any_value_is_none() -> None:
    frame = table(TWO).assign(empty=np.nan, nothing=None)
    for params in ((), ("x", "empty")):
        found = make_curves(frame, where="here", objective="value", direction="min", params=params)
        assert list(found.params.columns) == ["x"]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    names = {"config": "learner", "epoch": "anchor", "seconds": "train_s", "value": "loss"}
    path = write(tmp_path, table(TWO, seconds=2.0).rename(columns=names))
    found = read_curves(path, objective="loss", columns=Columns("learner", "anchor", "train_s"))
    assert found.ids == ["a", "b"]
    assert [list(values) for values in found.values] == [[3.0, 2.0, 2.5], [4.0, 1.0]]
    assert [list(seconds) for seconds in found.seconds] == [[2.0] * 3, [2.0] * 2]
    assert found.params.to_dict("list") == {"x": [0, 1]}
    with pytest.raises(RunError, match=r"no column 'config' among learner, .* name .* the others with --config-column"):
        read_curves(path, objective="loss")
    with pytest.raises(RunError, match="found one column for two of them, expected three: see --config-column"):
        read_curves(path, objective="loss", columns=Columns("learner", "anchor", "anchor"))


def test_a_table_with_backbones_and_trials_is_no_run_where_its_configurations_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, table(TWO).rename(columns={"config": "trial"}).assign(backbone="cnn"))
    found = read_curves(path, columns=Columns(config="trial"))
    assert found.ids == ["a", "b"]
    assert found.params.to_dict("list") == {"x": [0, 1], "backbone": ["cnn", "cnn"]}


@pytest.mark.parametrize(("name", "separator"), [("curves.csv", ","), ("curves.TSV", "\t")])
def test_a_text_table_is_read_as_one_in_parquet(name: str, separator: str, tmp_path: Path) -> None:
    rows = ["config epoch value seconds rate solver", "7 1 0.9 2 1e-3 sgd", "7 2 0.8 2 1e-3 sgd", "8 1 0.7 3  adam"]
    (tmp_path / name).write_text("\n".join(rows).replace(" ", separator))
    found = read_curves(tmp_path / name)
    assert found.ids == ["7", "8"]
    assert [list(values) for values in found.values] == [[0.9, 0.8], [0.7]]
    assert [list(seconds) for seconds in found.seconds] == [[2, 2], [3]]
    assert found.params["rate"].isna().tolist() == [False, True]
    assert (found.params["rate"][0], list(found.params["solver"])) == (1e-3, ["sgd", "adam"])


def test_a_file_that_is_missing_or_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file, expected a table of learning curves"):
        read_curves(tmp_path / "none.parquet")
    for name, kind in (("text.parquet", "Parquet"), ("text.csv", "CSV")):
        (tmp_path / name).write_bytes(b'config,epoch\n1,"2\n\xff')
        with pytest.raises(RunError, match=f"not a {kind} table .*, expected a run's report/curves.parquet, another"):
            read_curves(tmp_path / name)


def a_run(folder: Path) -> Path:
    """A run of two backbones: of `cnn` one trial diverged, one was run again, one took another's result."""
    nan = float("nan")
    rows = [("cnn", 0, 1, 0.9), ("cnn", 0, 2, 0.8), ("cnn", 1, 1, 0.7), ("cnn", 2, 1, 0.5), ("cnn", 2, 2, nan)]
    rows += [("cnn", 3, 1, 0.7), ("cnn", 3, 2, 0.6), ("cnn", 4, 1, 0.9), ("cnn", 5, 1, nan), ("vgg16", 0, 1, 0.1)]
    frame = pd.DataFrame(rows, columns=["backbone", "trial", "epoch", "value"]).assign(learning_rate=0.5)
    frame["seconds"] = np.where(frame["trial"] == 4, nan, 1.0)
    trials = pd.DataFrame(
        {
            "backbone": ["cnn"] * 6 + ["vgg16"],
            "trial": [0, 1, 2, 3, 4, 5, 0],
            "duplicate_of": pd.array([None, None, None, None, 0, None, None], dtype="Int64"),
            "promoted_from": pd.array([None, None, None, 1, None, None, None], dtype="Int64"),
            "param_learning_rate": pd.array([0.1, 0.2, 0.3, 0.2, 0.1, 0.9, 0.5], dtype="Float64"),
            "param_stages": pd.array([None] * 6 + [3], dtype="Int64"),
        }
    )
    write(folder, trials, "trials.parquet")
    return write(folder, frame)


def test_a_runs_curves_are_those_it_trained_each_at_its_longest_and_up_to_where_it_diverged(tmp_path: Path) -> None:
    found = read_curves(a_run(tmp_path), backbone="cnn")
    assert found.ids == ["0", "2", "3"]
    assert [list(values) for values in found.values] == [[0.9, 0.8], [0.5], [0.7, 0.6]]
    assert found.params.to_dict("list") == {"param_learning_rate": [0.1, 0.3, 0.2]}


def test_a_run_of_several_backbones_needs_one_of_them_named(tmp_path: Path) -> None:
    path = a_run(tmp_path)
    with pytest.raises(RunError, match="has the backbones cnn, vgg16, expected one: choose it with --backbone"):
        read_curves(path)
    with pytest.raises(RunError, match=r"--backbone resnet50: .* has no such backbone, expected one of cnn, vgg16"):
        read_curves(path, backbone="resnet50")
    with pytest.raises(RunError, match=r"--params: .* has no column 'param_width'"):
        read_curves(path, backbone="cnn", params=["width"])
    assert read_curves(path, backbone="cnn", params=["learning_rate"]).params.shape == (3, 1)
