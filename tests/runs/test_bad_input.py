"""Spaces and surveys that cannot be used: one message, code 2, nothing made."""

import json
from pathlib import Path
from typing import Any

import pytest
from blobs import SPACE, run, run_here

from galaxy_models.data.manifest import SCHEMA_VERSION
from search.run import main

WORDS = ("--space", "one.py", "--data", "data")


@pytest.fixture
def place(survey: Path, tmp_path: Path) -> Path:
    """A folder with a space and a survey that are both as they should be."""
    (tmp_path / "data").mkdir()
    for path in survey.iterdir():
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "one.py").write_text(SPACE)
    return tmp_path


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda space, data: space.unlink(), "no such file"),
        (lambda space, data: space.write_text("def space(trial:"), "line 1"),
        (lambda space, data: space.write_text(SPACE.replace('backbone="cnn"', 'backbone="resnet5"')), "resnet5"),
        (
            lambda space, data: space.write_text("def space(trial):\n    return 3\n"),
            "returned 3, expected a TrainConfig",
        ),
        (lambda space, data: space.write_text(SPACE.replace('"adamw"', '"adamww"')), "did you mean"),
        (lambda space, data: (data / "manifest.json").unlink(), "manifest.json"),
        (lambda space, data: (data / "train-00000.arrow").unlink(), "train-00000.arrow"),
        (lambda space, data: flip_a_byte(data / "val-00000.arrow"), "val-00000.arrow"),
        (lambda space, data: raise_version(data / "manifest.json"), "schema"),
    ],
)
def test_bad_input_is_one_message_and_code_2(place: Path, break_it: Any, message: str) -> None:
    break_it(place / "one.py", place / "data")
    check_refused(place, message, run_here(place, main, *WORDS))


def test_a_process_of_its_own_says_no_more_than_that(place: Path) -> None:
    flip_a_byte(place / "data" / "val-00000.arrow")
    check_refused(place, "val-00000.arrow", run(place, *WORDS))


def check_refused(place: Path, message: str, ended: tuple[int, str, str]) -> None:
    code, _, err = ended
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not (place / "runs").exists()


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def raise_version(path: Path) -> None:
    values = json.loads(path.read_text())
    values["schema_version"] = SCHEMA_VERSION + 1
    path.write_text(json.dumps(values))
