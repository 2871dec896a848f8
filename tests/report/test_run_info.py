"""A run's record: what is read, what may be missing, and what is no run."""

import json
import math
from pathlib import Path

import pytest
from final_samples import write_run_json

from search.errors import RunError
from search.report.run_info import load_run_info


def test_a_record_is_read(tmp_path: Path) -> None:
    info = load_run_info(write_run_json(tmp_path, price_per_hour=2.5, fixed={"cnn": {"depth": 3}}))
    assert (info.name, info.survey, info.direction, info.rungs) == ("evening", "gz1", "min", (1, 3))
    assert info.class_counts["test"] == (240, 120, 40)
    assert info.task.names == ("round", "spiral_cw", "edge_on")
    assert (info.elapsed_s, info.sessions[0].exit_code) == (245.0, 0)
    assert (info.price_per_hour, info.fixed, info.spaces["cnn"][:2]) == (2.5, {"cnn": {"depth": 3}}, "12")


def test_names_in_several_splits_are_read(tmp_path: Path) -> None:
    survey = json.loads((write_run_json(tmp_path) / "run.json").read_text())["survey"]
    assert load_run_info(tmp_path).num_repeated_names == 0
    write_run_json(tmp_path, survey={**survey, "num_repeated_names": 3})
    assert load_run_info(tmp_path).num_repeated_names == 3


def test_a_running_search_has_no_end_yet(tmp_path: Path) -> None:
    session = {"command": "python -m search.run", "started": "2026-11-24T20:00:00", "ended": None, "elapsed_s": None}
    info = load_run_info(write_run_json(tmp_path, sessions=[session]))
    assert math.isnan(info.elapsed_s)
    assert info.sessions[0].ended == ""


def test_sessions_add_up(tmp_path: Path) -> None:
    sessions = [{"command": "a", "elapsed_s": 100}, {"command": "b", "elapsed_s": 20.5}, {"command": "c"}]
    info = load_run_info(write_run_json(tmp_path, sessions=sessions))
    assert (info.elapsed_s, info.whole_s) == (120.5, 120.5)
    # The first took two minutes from start to end.
    sessions[0] |= {"started": "2026-11-24T20:00:00+00:00", "ended": "2026-11-24T20:02:00+00:00"}
    assert load_run_info(write_run_json(tmp_path, sessions=sessions)).whole_s == 140.5


def test_what_is_not_needed_may_be_missing(tmp_path: Path) -> None:
    path = write_run_json(tmp_path) / "run.json"
    needed = ("schema_version", "command", "data", "survey", "objective", "max_epochs", "seed")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: values[name] for name in needed}))
    info = load_run_info(tmp_path)
    assert info.name == tmp_path.name
    assert (info.rungs, info.versions, info.num_trials, info.price_per_hour) == ((), {}, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"found no run\.json, expected the folder of a run"),
        ("{", r"malformed JSON .* restore the file"),
        ("[]", r"found schema version None, expected 1"),
        ('{"schema_version": 2}', r"found schema version 2, expected 1: write the report with the version"),
        ('{"schema_version": 1}', r"damaged record \(KeyError: 'survey'\)"),
    ],
)
def test_what_is_no_run_is_said(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=message):
        load_run_info(tmp_path)


def test_an_objective_of_another_task_is_damage(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"damaged record .*'rmse'"):
        load_run_info(write_run_json(tmp_path, objective="rmse"))
