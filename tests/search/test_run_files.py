"""A worker's files: the run's own, or by way of a storage, and what waits for a disk or a storage."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from odd_storage import OddStorage

from search import run_files as module
from search.errors import StorageError, UnheardError
from search.places import CACHE_VARIABLE, cache_dir
from search.run_files import RunFiles


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(module, "WAIT_S", 0.001)


def test_without_a_storage_all_is_in_the_runs_folder(tmp_path: Path) -> None:
    files = RunFiles.of_worker(tmp_path, None)
    assert files.root == files.node_root == tmp_path
    path = tmp_path / "final" / "a" / "state.pt"
    assert not files.fetch(path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    files.keep(path)
    files.clear()
    assert files.fetch(path)
    files.remove(path)
    files.remove(path)
    assert not path.exists()
    files.remove_folder(tmp_path / "final")
    files.remove_folder(tmp_path / "final")
    assert list(tmp_path.iterdir()) == []


def test_what_one_worker_keeps_another_one_fetches(tmp_path: Path) -> None:
    uri = (tmp_path / "kept").as_uri()
    one = RunFiles.of_worker(Path("runs/a"), uri)
    other = RunFiles(tmp_path / "other", OddStorage(tmp_path / "kept"))
    path = one.root / "states" / "a" / "trial-00001.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"state")
    assert not other.fetch(other.root / "states" / "a" / "trial-00001.pt")
    one.keep(path)
    one.clear()
    assert not path.exists()
    assert other.fetch(other.root / "states" / "a" / "trial-00001.pt")
    assert one.fetch(path)
    assert path.read_bytes() == b"state"
    # What is kept counts, not a copy that somebody else has replaced since.
    path.write_bytes(b"old")
    assert one.fetch(path)
    assert path.read_bytes() == b"state"
    one.remove(path)
    assert not other.fetch(other.root / "states" / "a" / "trial-00001.pt")
    for name in ("x", "y/z"):
        (one.root / "final" / name).parent.mkdir(parents=True, exist_ok=True)
        (one.root / "final" / name).write_bytes(b"1")
        one.keep(one.root / "final" / name)
    one.remove_folder(one.root / "final")
    assert OddStorage(tmp_path / "kept").names() == {}


def test_only_folders_of_this_machines_dead_are_removed() -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, workers = child.stdout.decode().strip(), cache_dir() / "workers" / "a"
    here, elsewhere = workers / platform.node(), workers / "another-machine"
    for path in (here / dead, here / str(os.getppid()), here / "errors", elsewhere / dead):
        path.mkdir(parents=True)
    files = RunFiles.of_worker(Path("runs/a"), "file:///nowhere")
    assert not (here / dead).exists()
    assert (here / str(os.getppid())).exists()
    assert (here / "errors").exists()
    # Machines may share a home.
    assert (elsewhere / dead).exists()
    assert files.node_root == here
    assert files.root == here / str(os.getpid())


def test_a_worker_may_start_while_the_storage_does_not_answer() -> None:
    files = RunFiles.of_worker(Path("runs/a"), "abc://bucket/runs/a")
    with pytest.raises(StorageError, match="abc://bucket/runs/a"):
        files.fetch(files.root / "x")


def test_a_full_disk_and_a_silent_storage_are_waited_for_and_that_is_told(tmp_path: Path) -> None:
    met: list[Exception] = [
        OSError(errno.ENOSPC, "full"), StorageError("s3://b: away"), OSError(errno.EDQUOT, "full", "/quota"),
        UnheardError("no answer"),
    ]  # fmt: skip
    told: list[str] = []

    def work() -> int:
        if met:
            raise met.pop(0)
        return 3

    files = RunFiles(tmp_path, None, tell=told.append)
    assert files.until_done(work) == 3
    room = "the disk is full: waiting for room"
    waits = [f"{tmp_path}: {room}", "waiting for the storage: s3://b: away", f"/quota: {room}", "waiting: no answer"]
    assert told == [*waits, ""]
    assert files.until_done(work) == 3
    assert len(told) == 5


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), ValueError("broken")])
def test_what_does_not_pass_is_not_waited_for(tmp_path: Path, error: Exception) -> None:
    met = [error]

    def work() -> None:
        raise met.pop()

    with pytest.raises(type(error), match="broken"):
        RunFiles(tmp_path, None).until_done(work)


def test_a_signal_ends_the_waiting(tmp_path: Path) -> None:
    received: list[int] = []

    def work() -> None:
        if len(received) < 2:
            received.append(2)
        raise StorageError("away")

    with pytest.raises(StorageError, match="away"):
        RunFiles(tmp_path, None).until_done(work, received=received)
    assert len(received) == 1
