"""A run in a storage has one search at a time, and a search that loses it ends."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from odd_storage import OddStorage

from search import storage_lock as module
from search.errors import RunError, StorageError
from search.storage_lock import LOCK, StorageLock

BEAT_S, LEASE_S = 0.05, 0.6


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", BEAT_S)
    monkeypatch.setattr(module, "LEASE_S", LEASE_S)
    monkeypatch.setattr(module, "_SETTLE_S", 0.05)
    monkeypatch.setattr(module, "_LOOK_INTERVAL_S", 0.02)


@pytest.fixture
def storage(tmp_path: Path) -> OddStorage:
    return OddStorage(tmp_path / "kept")


def holder(storage: OddStorage) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((storage.folder / LOCK).read_bytes())
    return found


def leave_a_name(storage: OddStorage, **facts: object) -> None:
    name = {"id": "other", "beat": 7, "host": "elsewhere", "process": 12, "among": "another machine"}
    storage.folder.mkdir(exist_ok=True)
    # In one step, as a storage does.
    partial = storage.folder / ".other"
    partial.write_text(json.dumps(name | facts))
    partial.replace(storage.folder / LOCK)


@contextlib.contextmanager
def another_beats(storage: OddStorage) -> Iterator[None]:
    """A search on another machine, which lives."""
    over = threading.Event()

    def beat() -> None:
        number = 0
        while not over.wait(BEAT_S):
            number += 1
            leave_a_name(storage, beat=number)

    leave_a_name(storage)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_it_beats_and_lets_go(storage: OddStorage) -> None:
    with StorageLock(storage, pytest.fail) as lock:
        first = holder(storage)
        assert first["process"] == os.getpid()
        time.sleep(4 * BEAT_S)
        assert holder(storage)["beat"] > first["beat"]
        assert lock.confirm()
    assert storage.names() == {}
    with StorageLock(storage, pytest.fail):
        pass


def test_another_one_is_refused_while_it_beats(storage: OddStorage) -> None:
    start = time.monotonic()
    with another_beats(storage), pytest.raises(RunError, match=r"kept: in use by process 12 on elsewhere, expected no"):
        StorageLock(storage, pytest.fail)
    assert time.monotonic() - start < LEASE_S
    assert holder(storage)["id"] == "other"


def test_one_that_is_silent_is_replaced(storage: OddStorage) -> None:
    leave_a_name(storage)
    start = time.monotonic()
    with StorageLock(storage, pytest.fail):
        assert time.monotonic() - start >= LEASE_S
        assert holder(storage)["process"] == os.getpid()


def test_one_that_has_long_been_silent_is_not_waited_for(storage: OddStorage) -> None:
    leave_a_name(storage)
    long_ago = time.time() - 5 * LEASE_S
    os.utime(storage.folder / LOCK, (long_ago, long_ago))
    start = time.monotonic()
    with StorageLock(storage, pytest.fail):
        assert time.monotonic() - start < LEASE_S
        assert list(storage.names()) == [LOCK]


def test_a_damaged_name_is_that_of_a_silent_one(storage: OddStorage) -> None:
    storage.write(LOCK, b"[3")
    with StorageLock(storage, pytest.fail):
        assert holder(storage)["process"] == os.getpid()


def test_one_that_died_on_this_machine_is_not_waited_for(storage: OddStorage) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    died = {"host": "any", "process": int(child.stdout)}
    leave_a_name(storage, among=module._among(), **died)
    start = time.monotonic()
    with StorageLock(storage, pytest.fail):
        assert time.monotonic() - start < LEASE_S
    # Of another machine of the same name nobody knows that from here.
    leave_a_name(storage, **died)
    start = time.monotonic()
    with StorageLock(storage, pytest.fail):
        assert time.monotonic() - start >= LEASE_S


def test_one_that_lives_on_this_machine_is_waited_for(storage: OddStorage) -> None:
    leave_a_name(storage, among=module._among(), process=os.getpid())
    start = time.monotonic()
    with StorageLock(storage, pytest.fail):
        assert time.monotonic() - start >= LEASE_S


def test_it_is_told_once_when_another_takes_the_run(storage: OddStorage) -> None:
    told: list[str] = []
    with StorageLock(storage, told.append) as lock:
        leave_a_name(storage)
        until = time.monotonic() + 10
        while not told:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert lock.lost == "process 12 on elsewhere"
        assert not lock.confirm()
    assert told == [f"{storage.uri}: process 12 on elsewhere works on it now"]
    # Whoever holds it now keeps it.
    assert holder(storage)["id"] == "other"


def test_one_that_slept_asks_before_it_goes_on(storage: OddStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(module, "BEAT_S", 30.0)
    lock = StorageLock(storage, told.append)
    asked = storage.attempts
    assert lock.confirm()
    assert storage.attempts == asked
    leave_a_name(storage)
    assert lock.confirm()  # known a moment ago
    time.sleep(LEASE_S / 2)
    assert not lock.confirm()
    assert not lock.confirm()
    assert len(told) == 1
    lock._over.set()


def test_of_two_at_once_one_goes_on(storage: OddStorage) -> None:
    """Both find the place free; later at most one of them goes on."""
    refused: list[RunError] = []
    lost: list[str] = []
    held: list[StorageLock] = []

    def take() -> None:
        try:
            held.append(StorageLock(OddStorage(storage.folder), lost.append))
        except RunError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    time.sleep(4 * BEAT_S)
    assert len(refused) + len(lost) == 3
    (winner,) = [one for one in held if not one.lost]
    assert holder(storage)["id"] == winner._id
    for one in held:
        one._over.set()


@pytest.mark.parametrize("error", [StorageError("away"), OSError(28, "No space left on device")])
def test_it_goes_on_beating_after_the_storage_was_away(storage: OddStorage, error: Exception) -> None:
    with StorageLock(storage, pytest.fail):
        before = holder(storage)["beat"]
        storage.error, storage.failures = error, 3
        until = time.monotonic() + 10
        while holder(storage)["beat"] < before + 2:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_storage_that_is_away_in_the_end_holds_nobody_up(storage: OddStorage) -> None:
    with StorageLock(storage, pytest.fail):
        storage.failures = float("inf")
    storage.failures = 0
    assert holder(storage)["process"] == os.getpid()


def test_a_storage_that_cannot_be_reached_is_told(storage: OddStorage) -> None:
    storage.failures = 1
    with pytest.raises(StorageError, match="away"):
        StorageLock(storage, pytest.fail)
