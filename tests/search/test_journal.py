"""The journal holds whole events and nothing else, however a writer ends."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from two_spaces import epoch, make_ledger

from search import journal as module
from search.errors import RunError
from search.journal import RunJournal, check_size, read_journal, whole_bytes
from search.study import load_studies


def facts(path: Path) -> list[dict[str, Any]]:
    return list(read_journal(path))


def write_events(path: Path, *events: list[dict[str, Any]]) -> None:
    journal = RunJournal(path)
    for event in events:
        journal.append_logs(event)
        journal.commit()
    journal.close()


FIRST = [{"fact": 1, "text": "a \n b"}, {"fact": 2, "text": "é"}]
LAST = [{"fact": 3, "value": float("inf")}, {"fact": 4, "text": " \\n "}, {"fact": 5}]


def test_an_event_cut_at_any_byte_is_dropped_and_the_next_one_follows_the_last_whole_one(tmp_path: Path) -> None:
    path, cut = tmp_path / "whole", tmp_path / "cut"
    write_events(path, FIRST)
    first = path.stat().st_size
    write_events(path, LAST)
    whole = path.read_bytes()
    assert facts(path) == FIRST + LAST
    for size in range(first, len(whole)):
        cut.write_bytes(whole[:size])
        assert whole_bytes(cut) == first
        write_events(cut, [{"fact": 6}])
        assert facts(cut) == [*FIRST, {"fact": 6}], f"cut after {size} bytes"
    assert whole_bytes(path) == len(whole)


def test_a_cut_event_longer_than_the_block_that_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "long"
    write_events(path, FIRST)
    first = path.stat().st_size
    for size in (2**20 - 1, 2**20, 2**20 + 1, 2**21 + 5):
        with path.open("r+b") as file:
            file.truncate(first)
            file.seek(first)
            file.write(b"x" * size)
        assert whole_bytes(path) == first


def test_what_a_search_left_half_written_is_no_trial_of_it(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    ledger.start("0")
    path = tmp_path / "study.journal"
    before = path.stat().st_size
    ledger.report("0", epoch(1, 0.5))
    data = path.read_bytes()
    for size in range(before, len(data)):
        path.write_bytes(data[:size])
        again = make_ledger(tmp_path, names="a")
        (entry,) = again.accounts["a"].unfinished
        assert (entry.epochs, again.spent_epochs) == (0, 0)
        (trial,) = again.accounts["a"].study.get_trials()
        assert trial.intermediate_values == {}


def test_each_event_of_a_search_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make_ledger(tmp_path, names="a")
    written: list[bytes] = []
    write = os.write

    def spy(file: int, data: Any) -> int:
        written.append(bytes(data))
        return write(file, data)

    monkeypatch.setattr(module.os, "write", spy)
    ledger.start("0")
    ledger.start("1")
    ledger.report("0", epoch(1, 0.5))
    ledger.report("1", epoch(1, 0.9))  # and the decision that ends it
    assert len(written) == 4
    for event in written:
        assert event.endswith(b" \n")
        lines = event.splitlines()
        assert all(isinstance(json.loads(line), dict) for line in lines)
        assert not any(line.endswith(b" ") for line in lines[:-1])
    assert written[3].count(b"\n") > written[2].count(b"\n")


def test_an_event_is_synced_when_it_must_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    journal = RunJournal(tmp_path / "j")
    synced: list[float] = []
    monkeypatch.setattr(module.os, "fsync", lambda file: synced.append(now[0]))
    for time_s in (0.1, 0.5, 1.5, 1.6):
        now[0] = time_s
        journal.append_logs([{"fact": 1}])
        journal.commit(durable=now[0] == 0.5)
    assert synced == [0.5, 1.6]


def test_a_full_disk_is_waited_for_and_leaves_no_half_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    write_events(path, FIRST)
    size = path.stat().st_size
    write, seen = os.write, []
    # Some of the event is written before the disk is full, then nothing, then there is room.
    answers = [5, errno.ENOSPC, errno.EDQUOT, None]

    def nearly_full(file: int, data: Any) -> int:
        answer = answers.pop(0)
        if answer in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(answer, os.strerror(answer))
        return write(file, data[:answer])

    def wait(error: OSError) -> None:
        assert path.stat().st_size == size
        seen.append(error.errno)

    journal = RunJournal(path, wait=wait)
    monkeypatch.setattr(module.os, "write", nearly_full)
    journal.append_logs(LAST)
    journal.commit()
    assert seen == [errno.ENOSPC, errno.EDQUOT]
    assert not answers
    assert facts(path) == FIRST + LAST


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_that_waiting_does_not_mend_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "j"

    def give_up(error: OSError) -> None:
        raise RunError("a signal came")

    journal = RunJournal(path, wait=give_up)

    def broken(file: int, data: Any) -> int:
        raise OSError(number, os.strerror(number))

    journal.append_logs(FIRST)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", broken)
        with pytest.raises((OSError, RunError), match="a signal came" if number == errno.ENOSPC else str(path)):
            journal.commit()
    # Nothing is lost: what could not be written is still to be written.
    journal.commit()
    assert facts(path) == FIRST


def test_a_reader_sees_a_search_as_it_goes_and_writes_nothing(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    ledger.start("0")
    study = load_studies(tmp_path)["a"]
    assert [trial.state.name for trial in study.get_trials()] == ["RUNNING"]
    ledger.report("0", epoch(1, 0.5))
    assert study.get_trials()[0].intermediate_values == {1: 0.5}
    size = (tmp_path / "study.journal").stat().st_size
    with pytest.raises(AssertionError, match="a reader wrote"):
        study.set_user_attr("mine", 1)
    assert (tmp_path / "study.journal").stat().st_size == size


def test_the_format_is_optunas_own(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    ledger.start("0")
    ledger.report("0", epoch(1, 0.5))
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    (trial,) = optuna.load_study(study_name="a", storage=JournalStorage(backend)).get_trials()
    assert trial.params == {"lr": 1e-3, "beta": 0.9}
    assert trial.intermediate_values == {1: 0.5}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a journal", "not one whole event in 13 bytes, expected a run's journal: copy the run's folder again"),
        (b'{"op_code":0} \nhalf a li \n', "line 2 is damaged, expected a JSON object: copy the run's folder again"),
        (b"[1] \n", "line 1 is damaged"),
    ],
)
def test_a_damaged_journal_is_refused_with_the_place(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "j").write_bytes(data)
    with pytest.raises(RunError, match=message):
        list(RunJournal(tmp_path / "j").read_logs(0))


def test_where_it_was_written_a_journal_may_lack_what_a_power_cut_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.journal"
    monkeypatch.setattr(module.time, "monotonic", lambda: 0.0)
    journal = RunJournal(path)
    journal.append_logs(FIRST)
    journal.commit(durable=True)
    synced = path.stat().st_size
    journal.append_logs(LAST)
    journal.commit()
    written = path.stat().st_size
    whole = path.read_bytes()
    check_size(path)
    os.truncate(path, synced)
    check_size(path)
    # Another file, so a copy.
    (tmp_path / "copy").write_bytes(whole[:synced])
    (tmp_path / "copy").rename(path)
    with pytest.raises(RunError, match=rf"study\.journal: {synced} bytes, expected at least {written}: copy the run's"):
        check_size(path)
    path.write_bytes(whole)
    check_size(path)
    # Once a search goes on with it, it is no copy any more.
    RunJournal(path).close()
    os.truncate(path, written - 1)
    with pytest.raises(RunError, match=f"{written - 1} bytes, expected at least {written}"):
        check_size(path)


def test_a_journal_is_never_shorter_than_what_is_taken_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill may come between any two calls."""
    path, looked = tmp_path / "study.journal", []
    write, pwrite = os.write, os.pwrite

    def look() -> None:
        check_size(path)
        looked.append(path.stat().st_size)

    def writing(file: int, data: Any) -> int:
        look()
        done = write(file, data[: len(data) // 2 + 1])
        look()
        return done

    def noting(file: int, data: bytes, offset: int) -> int:
        done = pwrite(file, data, offset)
        look()
        return done

    journal = RunJournal(path)
    monkeypatch.setattr(module.os, "write", writing)
    monkeypatch.setattr(module.os, "pwrite", noting)
    for event in (FIRST, LAST):
        journal.append_logs(event)
        journal.commit()
    journal.close()
    assert len(looked) > 10
    assert looked[-1] == path.stat().st_size


def test_a_folder_without_a_journal_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"study\.journal: no such file, expected the journal of a run"):
        load_studies(tmp_path)
