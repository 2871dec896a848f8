"""The command line of a search, and how trials share a machine."""

import argparse
from pathlib import Path

import pytest

from search.errors import RunError
from search.options import Places, SearchOptions, duration_s, fixed_parameter, gpu_share, parse_options, plan_places


def options(*words: str) -> SearchOptions:
    return parse_options(["--space", "spaces/cnn.py", *words], "python -m search.run ...")


@pytest.mark.parametrize(
    ("text", "seconds"), [("600", 600), ("90s", 90), ("10m", 600), ("2h", 7200), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "ten", "10 m s", "5w", "1e3", "nan"])
def test_rejects_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a positive time"):
        duration_s(text)


def test_fixed_parameters_are_json_where_they_can_be() -> None:
    assert fixed_parameter("batch_size=32") == ("batch_size", 32)
    assert fixed_parameter("weights=none") == ("weights", "none")
    assert fixed_parameter("any_angle=true") == ("any_angle", True)
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=VALUE"):
        fixed_parameter("weights")


@pytest.mark.parametrize(
    "words",
    [
        ("--num-trials", "0"),
        ("--max-epochs", "-1"),
        ("--time-budget", "soon"),
        ("--seed", "x"),
        ("--name", "../elsewhere"),
        ("--gpus-per-trial", "1.5"),
        ("--precision", "float8"),
        ("--no-such-option",),
    ],
)
def test_wrong_values_end_with_code_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        options(*words)
    assert words[0] in capsys.readouterr().err


def test_spaces_of_one_name_are_refused() -> None:
    with pytest.raises(RunError, match="files of different names"):
        options("--space", "elsewhere/cnn.py")


def test_several_spaces_keep_their_order() -> None:
    assert options("--space", "spaces/vgg16.py").spaces == (Path("spaces/cnn.py"), Path("spaces/vgg16.py"))


@pytest.mark.parametrize("share", ["0.5", "0", "1", "4", "0.1"])
def test_gpu_shares(share: str) -> None:
    assert gpu_share(share) == float(share)


@pytest.mark.parametrize(
    ("words", "num_cpus", "num_gpus", "expected"),
    [
        ((), 2, 0, Places(1, 0.0, 2)),
        (("--cpus-per-trial", "2"), 5, 0, Places(2, 0.0, 2)),
        (("--max-concurrent", "1"), 8, 0, Places(1, 0.0, 1)),
        ((), 16, 4, Places(4, 1.0, 4)),
        (("--gpus-per-trial", "0.5"), 16, 4, Places(2, 0.5, 8)),
        # Three trials of 0.3 fit on one GPU; the 0.1 left on each of two GPUs hold no fourth.
        (("--gpus-per-trial", "0.3"), 64, 2, Places(9, 0.3, 6)),
        (("--gpus-per-trial", "2"), 16, 4, Places(8, 2.0, 2)),
        (("--gpus-per-trial", "0"), 16, 4, Places(1, 0.0, 16)),
        (("--gpus-per-trial", "0.1"), 10, 1, Places(1, 0.1, 10)),
    ],
)
def test_places(words: tuple[str, ...], num_cpus: int, num_gpus: int, expected: Places) -> None:
    assert plan_places(options(*words), num_cpus=num_cpus, num_gpus=num_gpus) == expected


def test_a_trial_cannot_ask_for_more_than_there_is() -> None:
    with pytest.raises(RunError, match="--cpus-per-trial: got 3, expected at most 2"):
        plan_places(options("--cpus-per-trial", "3"), num_cpus=2, num_gpus=0)
    with pytest.raises(RunError, match="--gpus-per-trial: got 1, expected at most 0"):
        plan_places(options("--gpus-per-trial", "1"), num_cpus=2, num_gpus=0)


def test_a_space_keeps_its_precision_unless_one_is_asked_for() -> None:
    assert options().precision is None
    assert options("--precision", "float32").precision == "float32"
