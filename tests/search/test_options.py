"""What is typed for each option, and how trials share a machine."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search.errors import RunError
from search.options import (
    Places,
    SearchOptions,
    check_free,
    duration_s,
    fixed_parameter,
    gpu_share,
    more_trials,
    plan_cluster,
    plan_places,
    positive_int,
    price,
    run_name,
    seed_number,
)

SPACES = (Path("spaces/cnn.py"),)


@pytest.mark.parametrize(
    ("text", "seconds"), [("600", 600), ("90s", 90), ("10m", 600), ("2h", 7200), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h", "-5", "ten", "10 m s", "5w", "1e3", "nan", "inf"])
def test_rejects_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a positive time"):
        duration_s(text)


def test_fixed_parameters_are_json_where_they_can_be() -> None:
    assert fixed_parameter("batch_size=32") == ("batch_size", 32)
    assert fixed_parameter("weights=none") == ("weights", "none")
    assert fixed_parameter("image_px=None") == ("image_px", None)
    assert fixed_parameter("any_angle=true") == ("any_angle", True)
    assert fixed_parameter("name=a=b") == ("name", "a=b")
    for text in ("weights", "=1"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=VALUE"):
            fixed_parameter(text)


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (positive_int, {"1": 1, "999999999": 999999999}, ["0", "-1", "1.5", "x", "", "1_000", "+1", "1000000000"]),
        (seed_number, {"0": 0, "4294967295": 4294967295}, ["4294967296", "-1", "x", "1.0"]),
        (gpu_share, {"0.5": 0.5, "0": 0.0, "1": 1.0, "4": 4.0, "0.1": 0.1}, ["1.5", "-1", "nan", "x", "0.0001", "inf"]),
        (price, {"0": 0.0, "1.25": 1.25}, ["-1", "x", "1e3", ""]),
        (more_trials, {"5": (False, 5), "+50": (True, 50)}, ["0", "+0", "++1", "-1", "+"]),
        (run_name, {"a.b-c_1": "a.b-c_1"}, ["../up", ".hidden", "", "a/b", "a b", "x" * 101]),
    ],
)
def test_what_is_typed(parse: Callable[[str], Any], good: dict[str, Any], bad: list[str]) -> None:
    assert {text: parse(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            parse(text)


@pytest.mark.parametrize(
    ("options", "num_cpus", "num_gpus", "expected"),
    [
        ({}, 2, 0, Places(1, 0.0, 2)),
        ({"cpus_per_trial": 2}, 5, 0, Places(2, 0.0, 2)),
        ({"max_concurrent": 1}, 8, 0, Places(1, 0.0, 1)),
        ({}, 16, 4, Places(4, 1.0, 4)),
        ({"gpus_per_trial": 0.5}, 16, 4, Places(2, 0.5, 8)),
        # Three trials of 0.3 fit on one GPU; the 0.1 left on each of two GPUs hold no fourth.
        ({"gpus_per_trial": 0.3}, 64, 2, Places(9, 0.3, 6)),
        ({"gpus_per_trial": 2.0}, 16, 4, Places(8, 2.0, 2, 2)),
        ({"gpus_per_trial": 4.0}, 6, 8, Places(4, 4.0, 1, 4)),
        ({"gpus_per_trial": 2.0, "processes_per_trial": 2, "cpus_per_trial": 6}, 16, 4, Places(6, 2.0, 2, 2)),
        ({"processes_per_trial": 2}, 5, 0, Places(2, 0.0, 2, 2)),
        ({"processes_per_trial": 2, "cpus_per_trial": 4}, 9, 0, Places(4, 0.0, 2, 2)),
        ({"processes_per_trial": 1}, 16, 4, Places(4, 1.0, 4)),
        ({"gpus_per_trial": 0.0}, 16, 4, Places(1, 0.0, 16)),
        ({"gpus_per_trial": 0.1}, 10, 1, Places(1, 0.1, 10)),
    ],
)
def test_places(options: dict[str, Any], num_cpus: int, num_gpus: int, expected: Places) -> None:
    assert plan_places(SearchOptions(spaces=SPACES, **options), num_cpus=num_cpus, num_gpus=num_gpus) == expected


def test_a_trial_cannot_ask_for_more_than_there_is() -> None:
    with pytest.raises(RunError, match="--cpus-per-trial: got 3, expected at most 2"):
        plan_places(SearchOptions(spaces=SPACES, cpus_per_trial=3), num_cpus=2, num_gpus=0)
    with pytest.raises(RunError, match="--gpus-per-trial: got 1, expected at most 0"):
        plan_places(SearchOptions(spaces=SPACES, gpus_per_trial=1), num_cpus=2, num_gpus=0)


@pytest.mark.parametrize(
    ("options", "num_gpus", "message"),
    [
        ({"processes_per_trial": 2, "gpus_per_trial": 0.5}, 4, "--processes-per-trial: got 2 with .* 0.5, expected 1"),
        ({"processes_per_trial": 2}, 4, "--processes-per-trial: got 2 with --gpus-per-trial 1, expected 1"),
        ({"processes_per_trial": 1, "gpus_per_trial": 4.0}, 4, "--processes-per-trial: got 1 with .* 4, expected 4"),
        ({"processes_per_trial": 2, "cpus_per_trial": 3}, 0, "--cpus-per-trial: got 3 for the 2 processes of a trial"),
        ({"gpus_per_trial": 4.0, "cpus_per_trial": 2}, 4, "--cpus-per-trial: got 2 .* expected a multiple of 4"),
        ({"processes_per_trial": 9}, 0, "--cpus-per-trial: got 9, expected at most 8"),
    ],
)
def test_processes_have_whole_gpus_and_equal_parts(options: dict[str, Any], num_gpus: int, message: str) -> None:
    with pytest.raises(RunError, match=message):
        plan_places(SearchOptions(spaces=SPACES, **options), num_cpus=8, num_gpus=num_gpus)


def test_a_runs_folder_must_be_free_and_possible(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    check_free(SearchOptions(spaces=SPACES, runs_dir=tmp_path, name="free"))
    with pytest.raises(RunError, match=r"--name: .*taken exists already, expected a new folder"):
        check_free(SearchOptions(spaces=SPACES, runs_dir=tmp_path, name="taken"))
    with pytest.raises(RunError, match=r"--runs-dir: .*file is a file, expected a folder"):
        check_free(SearchOptions(spaces=SPACES, runs_dir=tmp_path / "file" / "below"))


def test_options_survive_the_record_and_names_of_another_version_are_passed_over() -> None:
    options = SearchOptions(
        spaces=(Path("a.py"), Path("b.py")), data=Path("d"), fixed={"lr": 0.1}, warm_start=Path("w"), time_budget_s=9.5
    )
    assert SearchOptions.from_json({**options.to_json(), "later": 1}) == options


@pytest.mark.parametrize(
    ("options", "sizes", "expected"),
    [
        # Each machine by itself: what is left on one is of no use to another.
        ({"cpus_per_trial": 2}, [(3, 0), (3, 0), (1, 0), (4, 0)], Places(2, 0.0, 4)),
        ({}, [(0, 0), (2, 0), (1, 0)], Places(1, 0.0, 3)),
        # Where there are GPUs, machines without them train nothing.
        ({}, [(4, 0), (8, 2), (4, 1)], Places(4, 1.0, 3)),
        ({"gpus_per_trial": 0.5}, [(8, 2), (4, 1)], Places(2, 0.5, 6)),
        # Trials that machines are to be started for.
        ({"gpus_per_trial": 1.0, "cpus_per_trial": 4, "max_concurrent": 8}, [(0, 0)], Places(4, 1.0, 8)),
        ({"max_concurrent": 8}, [(4, 1)], Places(4, 1.0, 8)),
        # Several processes may lie on several machines.
        ({"gpus_per_trial": 4.0}, [(8, 2), (8, 2), (4, 1)], Places(16, 4.0, 1, 4)),
        ({"processes_per_trial": 2, "cpus_per_trial": 4}, [(2, 0), (2, 0), (2, 0)], Places(4, 0.0, 1, 2)),
    ],
)
def test_a_cluster_is_divided_machine_by_machine(
    options: dict[str, Any], sizes: list[tuple[int, int]], expected: Places
) -> None:
    assert plan_cluster(SearchOptions(spaces=SPACES, **options), sizes) == expected


@pytest.mark.parametrize(
    ("options", "sizes", "words"),
    [
        ({}, [(0, 0)], r"the cluster has no machine for a trial's process \(1 CPUs, 0 GPUs\)"),
        ({"gpus_per_trial": 1.0}, [(4, 0)], r"no machine for a trial's process \(1 CPUs, 1 GPUs\)"),
        ({"cpus_per_trial": 8}, [(4, 0), (6, 0)], r"no machine for a trial's process \(8 CPUs, 0 GPUs\)"),
        ({"gpus_per_trial": 1.0, "max_concurrent": 4}, [(0, 0)], "--cpus-per-trial: got none"),
        ({"gpus_per_trial": 4.0}, [(8, 2), (4, 1)], "a trial has 4 processes, and the cluster room for 3"),
        ({"gpus_per_trial": 2.0, "cpus_per_trial": 3}, [(8, 2)], "got 3 for the 2 processes"),
    ],
)
def test_a_cluster_that_has_not_what_is_asked_for(
    options: dict[str, Any], sizes: list[tuple[int, int]], words: str
) -> None:
    with pytest.raises(RunError, match=words):
        plan_cluster(SearchOptions(spaces=SPACES, **options), sizes)
