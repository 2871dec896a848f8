"""A run that is kept in an object storage: its machine is lost at any moment, and another one goes on."""

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blobs import SPACE, run, start, write_survey

from search.files import STATES, WEIGHTS
from search.journal import JOURNAL
from search.run import main
from search.storage import Storage
from search.storage_lock import LOCK
from search.study import load_studies

pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'galaxy-search[test]'")
pytest.importorskip("moto", reason="moto is not installed: pip install 'galaxy-search[test]'")
from object_storage import BUCKET, ObjectStorage

WORDS = ("--num-trials", "3", "--max-epochs", "9", "--max-concurrent", "1", "--final-seeds", "1")
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


def begun(process: "subprocess.Popen[str]", run_dir: Path, num_epochs: int) -> None:
    """Wait until a search has told of so many epochs."""
    journal = run_dir / JOURNAL
    until = time.monotonic() + 200
    while not journal.exists() or journal.read_bytes().count(b'"epoch:') < num_epochs:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(s3: ObjectStorage, survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search whose storage was silent for a while."""
    folder = folder_with_space(tmp_path_factory.mktemp("all") / "whole")
    words = ("--space", "one.py", "--data", str(survey), "--name", "whole", *WORDS, "--storage", ROOT)
    process = start(folder, *words)
    begun(process, folder / "runs" / "whole", 2)
    s3.stop()
    time.sleep(8)
    s3.go_on()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    return folder / "runs" / "whole"


def test_a_storage_that_is_silent_for_a_while_lacks_nothing_in_the_end(whole: Path) -> None:
    storage = Storage(f"{ROOT}/whole")
    sent = b"".join(storage.read(name) or b"" for name in sorted(storage.names("journal")))
    assert sent == (whole / JOURNAL).read_bytes()
    for name in ("run.json", "report/report.html"):
        assert storage.read(name) == (whole / name).read_bytes()
    assert LOCK not in storage.names()


def test_a_lost_machine_costs_nothing_that_was_in_the_storage(whole: Path, survey: Path, tmp_path: Path) -> None:
    lost, storage = folder_with_space(tmp_path / "lost"), Storage(f"{ROOT}/lost")
    process = start(lost, "--space", "one.py", "--data", str(survey), "--name", "lost", *WORDS, "--storage", ROOT)
    # Within its first trial, so that there is something to go on from.
    begun(process, lost / "runs" / "lost", 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    known = sum(name.startswith(f"{STATES}/") for name in storage.names())
    assert known == 1
    shutil.rmtree(lost / "runs")

    other = folder_with_space(tmp_path / "other")
    code, out, err = run(other, "--resume", f"{ROOT}/lost", "--data", str(survey))
    assert code == 0, out + err
    assert "goes on" in out
    assert facts(other / "runs" / "lost") == facts(whole)

    names = storage.names()
    assert not [name for name in names if name.startswith(f"{STATES}/")]
    best = json.loads((other / "runs" / "lost" / "report" / "best_configs.json").read_text())["one"]
    kept = [name for name in names if name.startswith(f"{WEIGHTS}/")]
    assert len(kept) == 1
    assert f"trial-{best['trial']:05d}" in kept[0]
    assert {"run.json", "report/report.html", "final/one/config-0-seed-0/weights.safetensors"} <= names.keys()


def test_a_run_that_another_driver_works_on(
    whole: Path, survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder_with_space(tmp_path / "second"))
    storage, over = Storage(f"{ROOT}/whole"), threading.Event()

    def beat() -> None:
        number = 0
        while not over.wait(0.2):
            number += 1
            storage.write(LOCK, json.dumps({"id": "first", "beat": number, "host": "far", "process": 12}).encode())

    storage.write(LOCK, b"{}")
    first = threading.Thread(target=beat)
    first.start()
    try:
        assert main(["--resume", f"{ROOT}/whole", "--num-trials", "+1"]) == 2
    finally:
        over.set()
        first.join()
        storage.remove(LOCK)
    err = capsys.readouterr().err
    assert f"error: {ROOT}/whole: in use by process 12 on far, expected no other search in it: wait for its end" in err


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("s3://no-such-bucket/runs", "no-such-bucket/runs: .*NO_SUCH_BUCKET"),
        ("elsewhere", "got elsewhere, expected a URI such as s3://bucket/runs"),
    ],
)
def test_a_storage_that_cannot_be_used(
    s3: ObjectStorage,
    survey: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    root: str,
    words: str,
) -> None:
    monkeypatch.chdir(folder_with_space(tmp_path / "refused"))
    assert main(["--space", "one.py", "--data", str(survey), "--storage", root]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not Path("runs").exists()


def test_no_run_of_that_name(
    s3: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--resume", f"{ROOT}/nothing"]) == 2
    assert f"{ROOT}/nothing: no run.json in it" in capsys.readouterr().err
    assert not Path("runs").exists()
