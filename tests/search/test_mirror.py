"""What a driver writes arrives in the storage in the order in which it was written, whatever the storage does."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_storage import OddStorage, journal_in

from search import mirror as module
from search.entry import Entry
from search.files import state_path, weights_path
from search.journal import JOURNAL, RunJournal
from search.mirror import Mirror, segment_name, segment_starts
from search.storage import Kept


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(module, "_LONGEST_WAIT_S", 0.01)
    monkeypatch.setattr(module, "_LOOK_INTERVAL_S", 0.002)


@pytest.fixture
def storage(tmp_path: Path) -> OddStorage:
    return OddStorage(tmp_path / "kept")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def make_mirror(
    run_dir: Path, storage: OddStorage, lines: list[str] | None = None, **more: Callable[[], bool]
) -> Mirror:
    return Mirror(run_dir, run_dir / JOURNAL, storage, say=(lines if lines is not None else []).append, **more)


def wait_for(fact: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < until
        time.sleep(0.002)


def test_segments_in_order_up_to_the_first_gap() -> None:
    sizes = {segment_name(0): 10, segment_name(10): 5, segment_name(16): 5, "journal/x.log": 1, "run.json": 9}
    sizes |= {"journal/.000000000000015.log.1.partial": 3, "weights/a/000000000000015.log": 3}
    assert segment_starts({name: Kept(size, 0) for name, size in sizes.items()}) == [(0, 10), (10, 5)]
    assert segment_starts({segment_name(3): Kept(5, 0)}) == []


def test_files_and_the_journal_arrive_in_the_order_in_which_they_were_written(
    run_dir: Path, storage: OddStorage
) -> None:
    (run_dir / JOURNAL).write_bytes(b"{} \n{} \n")
    assert make_mirror(run_dir, OddStorage(storage.folder)).close()
    lines: list[str] = []
    mirror = make_mirror(run_dir, storage, lines)
    storage.failures = 50  # so that all are asked for before the first arrives
    for name in ("first", "gone", "second"):
        (run_dir / name).write_bytes(name.encode())
        mirror.put(run_dir / name)
    (run_dir / "gone").unlink()
    with (run_dir / JOURNAL).open("ab") as file:
        file.write(b"{} \n")
    mirror.committed(12)
    mirror.committed(12)
    (run_dir / "third").write_bytes(b"third")
    mirror.put(run_dir / "third")
    assert mirror.close()
    # The journal is never behind a file that was written after it, and may be ahead of others.
    assert [name for name in storage.written if "/" not in name] == ["first", "second", "third"]
    assert [name for name in storage.written if "/" in name] == [segment_name(0)]
    assert storage.written.index(segment_name(0)) < storage.written.index("third")
    assert journal_in(storage) == b"{} \n{} \n{} \n"
    assert len(lines) == 1
    assert "lacks the latest of the run; the search goes on and tries again: away" in lines[0]


def test_a_file_tells_nothing_of_a_journal_that_has_not_arrived(run_dir: Path, storage: OddStorage) -> None:
    mirror = make_mirror(run_dir, storage)
    storage.failures = float("inf")
    record = run_dir / "run.json"
    record.write_bytes(b"begun")
    mirror.put(record)
    wait_for(lambda: storage.attempts > 3)
    # Its turn came long ago, but it could not be sent; now it says how long the journal is.
    (run_dir / JOURNAL).write_bytes(b"{} \n")
    mirror.committed(4)
    record.write_bytes(b"ended after 4 bytes")
    mirror.put(record)
    storage.failures = 0
    assert mirror.close()
    assert storage.written[0] == segment_name(0)
    assert storage.read("run.json") == b"ended after 4 bytes"


def test_a_file_that_is_written_often_while_the_storage_is_away_is_sent_once(
    run_dir: Path, storage: OddStorage
) -> None:
    mirror = make_mirror(run_dir, storage)
    storage.failures = float("inf")
    mirror.put(_write(run_dir / "begin", b""))
    for number in range(500):
        mirror.put(_write(run_dir / "live.json", str(number).encode()))
        mirror.sweep("a", live={}, best=[], num_known=number)
    storage.failures = 0
    assert mirror.close()
    assert storage.written.count("live.json") <= 2
    assert storage.read("live.json") == b"499"
    assert storage.listed <= 1 + 2 * 2


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


EVENT = st.integers(0, 60)


@given(
    before=st.lists(EVENT, max_size=6),
    after=st.lists(st.tuples(EVENT, st.integers(0, 2), st.booleans()), max_size=12),
    segment_bytes=st.integers(1, 150),
)
@settings(max_examples=40, deadline=None)
def test_the_storage_always_has_a_whole_beginning_of_the_journal(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], after: list[tuple[int, int, bool]], segment_bytes: int
) -> None:
    """Events of any length, with failures between them, and restarts of the driver in between."""
    folder = tmp_path_factory.mktemp("run")
    storage = OddStorage(folder / "kept")
    seen: list[bytes] = []
    plain_write = storage.write

    def write(name: str, data: bytes) -> None:
        plain_write(name, data)
        seen.append(journal_in(storage))

    storage.write = write  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SEGMENT_BYTES", segment_bytes)

        def begin() -> tuple[Mirror, RunJournal]:
            mirror = make_mirror(folder, storage)
            return mirror, RunJournal(folder / JOURNAL, on_write=mirror.committed)

        # What no storage knew of until now: an earlier session could not bring it.
        journal = RunJournal(folder / JOURNAL)
        for size in before:
            tell(journal, size)
        journal.close()
        mirror, journal = begin()
        for size, failures, again in after:
            storage.failures = failures
            tell(journal, size)
            if again:
                journal.close()
                assert mirror.close()
                mirror, journal = begin()
        journal.close()
        storage.failures = 0
        assert mirror.close()
    whole = (folder / JOURNAL).read_bytes()
    assert journal_in(storage) == whole
    assert all(whole.startswith(one) and (not one or one.endswith(b" \n")) for one in seen)
    assert seen == sorted(seen, key=len)


def tell(journal: RunJournal, size: int) -> None:
    journal.append_logs([{"fact": "x" * size}])
    journal.commit()


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    monkeypatch.setattr(module, "_LAST_CALL_S", 0.3)


@pytest.mark.usefixtures("_impatient")
def test_a_search_that_has_ended_does_not_wait_for_ever(run_dir: Path, storage: OddStorage) -> None:
    mirror = make_mirror(run_dir, storage)
    storage.failures = float("inf")
    mirror.put(_write(run_dir / "one", b"1"))
    start = time.monotonic()
    assert not mirror.close()
    assert 0.15 < time.monotonic() - start < 5


@pytest.mark.usefixtures("_impatient")
def test_a_call_that_never_returns_is_not_waited_for(
    run_dir: Path, storage: OddStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = make_mirror(run_dir, storage)
    monkeypatch.setattr(storage, "write", lambda name, data: time.sleep(30))
    mirror.put(_write(run_dir / "one", b"1"))
    start = time.monotonic()
    assert not mirror.close()
    assert time.monotonic() - start < 10


def test_a_slow_storage_that_answers_is_waited_for(
    run_dir: Path, storage: OddStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    mirror = make_mirror(run_dir, storage)
    plain_write = storage.write

    def write(name: str, data: bytes) -> None:
        time.sleep(0.1)
        plain_write(name, data)

    monkeypatch.setattr(storage, "write", write)
    for number in range(8):
        mirror.put(_write(run_dir / str(number), b"x"))
    assert mirror.close()
    assert len(storage.written) == 8


def test_a_disk_that_fails_does_not_end_the_mirror(run_dir: Path, storage: OddStorage) -> None:
    """A storage may be a folder, and answer as a full disk does."""
    lines: list[str] = []
    mirror = make_mirror(run_dir, storage, lines)
    storage.failures, storage.error = 4, OSError(28, "No space left on device")
    mirror.put(_write(run_dir / "one", b"1"))
    assert mirror.close()
    assert storage.read("one") == b"1"
    assert "No space left" in lines[0]


def test_nothing_is_done_in_a_run_that_is_anothers(run_dir: Path, storage: OddStorage) -> None:
    ours = [True]
    mirror = make_mirror(run_dir, storage, ours=lambda: ours[0])
    mirror.put(_write(run_dir / "one", b"1"))
    wait_for(lambda: storage.written)
    ours[0] = False
    mirror.put(_write(run_dir / "two", b"2"))
    assert not mirror.close()
    assert storage.written == ["one"]


def test_a_journal_that_something_else_cut_is_not_sent(run_dir: Path, storage: OddStorage) -> None:
    lines: list[str] = []
    (run_dir / JOURNAL).write_bytes(b"{} \n{} \n")
    mirror = make_mirror(run_dir, storage, lines)
    wait_for(lambda: journal_in(storage) == b"{} \n{} \n")
    mirror.committed(12)
    wait_for(lambda: lines)
    assert "8 bytes, expected 12, which were written" in lines[0]
    assert journal_in(storage) == b"{} \n{} \n"
    with (run_dir / JOURNAL).open("ab") as file:
        file.write(b"{} \n")
    assert mirror.close()


def test_only_what_is_not_wanted_is_swept(run_dir: Path, storage: OddStorage) -> None:
    def kept(path: Path) -> str:
        name = path.relative_to(run_dir).as_posix()
        storage.write(name, b"x")
        return name

    live = Entry("a", 4, 4, {"epochs": 9}, {}, best_value=0.5, best_epoch=3)
    best = Entry("a", 1, 1, {"epochs": 9}, {}, best_value=0.1, best_epoch=2)
    wanted = {
        kept(weights_path(run_dir, "a", 1, 2)),
        kept(state_path(run_dir, "a", 4)),
        kept(weights_path(run_dir, "a", 4, 3)),
        kept(weights_path(run_dir, "a", 4, 5)),  # better, and not told yet
        kept(state_path(run_dir, "a", 7)),  # of a trial that began after this was asked
        kept(weights_path(run_dir, "b", 0, 1)),
        kept(run_dir / "weights" / "a" / "notes.txt"),
    }
    for path in (state_path(run_dir, "a", 1), weights_path(run_dir, "a", 1, 1), weights_path(run_dir, "a", 4, 2)):
        kept(path)
    kept(state_path(run_dir, "a", 0))
    kept(run_dir / "states" / "a" / ".trial-00002.pt.1a2b3c4d.partial")
    mirror = make_mirror(run_dir, storage)
    mirror.sweep("a", live={4: live}, best=[best], num_known=7)
    assert mirror.close()
    assert set(storage.names()) == wanted


def test_a_folder_is_brought_without_what_is_half_written(run_dir: Path, storage: OddStorage) -> None:
    _write(run_dir / "report" / "a" / "page.html", b"page")
    _write(run_dir / "report" / ".page.html.partial", b"pa")
    mirror = make_mirror(run_dir, storage)
    mirror.put_below(run_dir / "report")
    mirror.put_below(run_dir / "tensorboard")
    assert mirror.close()
    assert list(storage.names()) == ["report/a/page.html"]
