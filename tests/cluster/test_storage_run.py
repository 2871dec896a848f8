"""A run that is kept in an object storage: its machine is lost at any moment, and another one goes on."""

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blobs import SPACE, run, start, write_survey

from search.files import STATES, WEIGHTS
from search.journal import JOURNAL
from search.storage import Storage
from search.study import load_studies

pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'galaxy-search[test]'")
pytest.importorskip("moto", reason="moto is not installed: pip install 'galaxy-search[test]'")
from object_storage import BUCKET, ObjectStorage

WORDS = ("--num-trials", "5", "--max-epochs", "9", "--max-concurrent", "1", "--final-seeds", "1")
ROOT = f"s3://{BUCKET}/runs"


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_survey(tmp_path_factory.mktemp("survey"))


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    with ObjectStorage(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        patch.setenv("GALAXY_SEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield server


def folder_with_space(path: Path) -> Path:
    path.mkdir()
    (path / "one.py").write_text(SPACE)
    return path


def facts(run_dir: Path) -> list[Any]:
    """All that decides and is decided, but for the time of day and the time it took."""
    return [
        (
            one.number, one.state, one.params, one.values, one.intermediate_values,
            {key: value for key, value in one.user_attrs.items() if key in ("best_epoch", "reason", "config")},
        )
        for one in load_studies(run_dir)["one"].get_trials()
    ]  # fmt: skip


def test_a_lost_machine_costs_nothing_that_was_in_the_storage(s3: ObjectStorage, survey: Path, tmp_path: Path) -> None:
    whole = folder_with_space(tmp_path / "whole")
    first = ("--space", "one.py", "--data", str(survey), "--name", "lost", *WORDS)
    code, _, err = run(whole, *first)
    assert code == 0, err

    lost, storage = folder_with_space(tmp_path / "lost"), Storage(f"{ROOT}/lost")
    process = start(lost, *first, "--storage", ROOT)
    journal = lost / "runs" / "lost" / JOURNAL
    until = time.monotonic() + 200
    # Within its first trial, so that there is something to go on from.
    while not journal.exists() or journal.read_bytes().count(b'"epoch:') < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    known = sum(name.startswith(f"{STATES}/") for name in storage.names())
    assert known == 1
    shutil.rmtree(lost / "runs")

    other = folder_with_space(tmp_path / "other")
    code, out, err = run(other, "--resume", f"{ROOT}/lost", "--data", str(survey))
    assert code == 0, out + err
    assert "goes on" in out
    assert facts(other / "runs" / "lost") == facts(whole / "runs" / "lost")

    names = storage.names()
    assert not [name for name in names if name.startswith(f"{STATES}/")]
    best = json.loads((other / "runs" / "lost" / "report" / "best_configs.json").read_text())["one"]
    kept = [name for name in names if name.startswith(f"{WEIGHTS}/")]
    assert len(kept) == 1
    assert f"trial-{best['trial']:05d}" in kept[0]
    assert {"run.json", "report/report.html", "final/one/config-0-seed-0/weights.safetensors"} <= names.keys()

    code, _, err = run(other, "--resume", f"{ROOT}/lost", "--num-trials", "+1")
    assert code == 0, err
    assert len(load_studies(other / "runs" / "lost")["one"].get_trials()) > len(facts(whole / "runs" / "lost"))


def test_a_storage_that_is_silent_for_a_while_holds_nobody_up_for_long(
    s3: ObjectStorage, survey: Path, tmp_path: Path
) -> None:
    folder = folder_with_space(tmp_path / "silent")
    words = ("--space", "one.py", "--data", str(survey), "--name", "silent", *WORDS, "--storage", ROOT)
    process = start(folder, *words)
    journal = folder / "runs" / "silent" / JOURNAL
    until = time.monotonic() + 200
    while not journal.exists() or journal.read_bytes().count(b'"epoch:') < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    s3.stop()
    time.sleep(8)
    s3.go_on()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    storage = Storage(f"{ROOT}/silent")
    sent = b"".join(storage.read(name) or b"" for name in sorted(storage.names("journal")))
    assert sent == journal.read_bytes()


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("s3://no-such-bucket/runs", "no-such-bucket/runs: .*NO_SUCH_BUCKET"),
        ("elsewhere", "got elsewhere, expected a URI such as s3://bucket/runs"),
    ],
)
def test_a_storage_that_cannot_be_used(s3: ObjectStorage, survey: Path, tmp_path: Path, root: str, words: str) -> None:
    folder = folder_with_space(tmp_path / "refused")
    code, _, err = run(folder, "--space", "one.py", "--data", str(survey), "--storage", root)
    assert code == 2
    assert re.search(words, err), err
    assert not (folder / "runs").exists()


def test_no_run_of_that_name(s3: ObjectStorage, tmp_path: Path) -> None:
    code, _, err = run(tmp_path, "--resume", f"{ROOT}/nothing")
    assert code == 2
    assert f"{ROOT}/nothing: no run.json in it" in err
