"""A run in a storage and its folder here: whichever is ahead goes on, and what has gone on in both is refused."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from odd_storage import OddStorage, journal_in
from test_storage_lock import another_beats

from search import mirror as mirror_module
from search import storage_lock
from search.errors import RunError, StorageError
from search.journal import JOURNAL, RunJournal
from search.lock import RunLock
from search.mirror import Mirror
from search.remote_run import brought_here, copied, fetch_run, local_folder, mirrored
from search.run_dir import RECORD


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_lock, "_SETTLE_S", 0.01)
    monkeypatch.setattr(storage_lock, "_LOOK_INTERVAL_S", 0.02)
    monkeypatch.setattr(storage_lock, "LEASE_S", 0.6)


def record(root: str | None = None) -> str:
    return json.dumps(
        {"schema_version": 1, "options": {"storage": root}, "survey": {}, "spaces": {}, "code": {}, "sessions": []}
    )


def say(words: str) -> None:
    pytest.fail(words)


def tell(run_dir: Path, *facts: str, on_write: Callable[[int], None] = lambda size: None) -> None:
    journal = RunJournal(run_dir / JOURNAL, on_write=on_write)
    for fact in facts:
        journal.append_logs([{"fact": fact}])
        journal.commit()
    journal.close()


def kept(tmp_path: Path, *facts: str) -> OddStorage:
    """A run `a` in a storage, with these events."""
    origin, storage = tmp_path / "origin" / "a", OddStorage(tmp_path / "kept" / "a")
    origin.mkdir(parents=True)
    (origin / RECORD).write_text(record(storage.folder.parent.as_uri()))
    tell(origin, *facts)
    mirror = Mirror(origin, origin / JOURNAL, storage, say=say)
    mirror.put(origin / RECORD)
    assert mirror.close()
    return storage


def facts(run_dir: Path) -> list[str]:
    return [json.loads(line)["fact"] for line in (run_dir / JOURNAL).read_bytes().splitlines()]


def test_a_run_is_brought_but_for_what_workers_fetch_themselves(tmp_path: Path) -> None:
    storage, here = kept(tmp_path, "1", "2"), tmp_path / "here"
    for name in ("final/a/result.json", "spaces/a.py", "states/a/x.pt", "weights/a/x", "report/report.html", "lock"):
        storage.write(name, name.encode())
    storage.write("spaces/.a.py.1a2b3c4d.partial", b"half")
    fetch_run(storage, here)
    found = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert found == {RECORD, JOURNAL, "final/a/result.json", "spaces/a.py"}
    assert facts(here) == ["1", "2"]
    fetch_run(storage, tmp_path / "part", wanted=lambda name: not name.startswith("final"))
    assert not (tmp_path / "part" / "final").exists()
    fetch_run(OddStorage(tmp_path / "nothing"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_name_that_leads_out_of_the_folder_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = kept(tmp_path, "1")
    names = storage.names()
    (tmp_path / "kept" / "outside").write_bytes(b"x")
    monkeypatch.setattr(storage, "names", lambda below="": names | {"../outside": names[RECORD]})
    (tmp_path / "here").mkdir()
    fetch_run(storage, tmp_path / "here" / "a")
    assert os.listdir(tmp_path / "here") == ["a"]  # noqa: PTH208


def test_a_file_of_the_same_size_that_is_another_is_brought(tmp_path: Path) -> None:
    """The weights of all seeds of a network are of one size."""
    storage, here = kept(tmp_path, "1"), tmp_path / "here"
    name = "final/a/config-0-seed-0/weights.safetensors"
    storage.write(name, b"first")
    fetch_run(storage, here)
    asked = storage.attempts
    fetch_run(storage, here)
    # Its files' names and the journal, and nothing that is here.
    assert storage.attempts - asked == 2
    storage.write(name, b"other")
    fetch_run(storage, here)
    assert (here / name).read_bytes() == b"other"
    (here / name).write_bytes(b"third")
    fetch_run(storage, here)
    assert (here / name).read_bytes() == b"other"


def test_a_folder_behind_is_brought_up_and_one_ahead_is_left_and_sent(tmp_path: Path) -> None:
    storage, here = kept(tmp_path, "1", "2", "3"), tmp_path / "a"
    here.mkdir()
    tell(here, "1")
    (here / RECORD).write_text("old")
    fetch_run(storage, here)
    assert facts(here) == ["1", "2", "3"]
    assert (here / RECORD).read_bytes() == storage.read(RECORD)

    tell(here, "4")
    (here / RECORD).write_text("newer")
    fetch_run(storage, here)
    assert facts(here) == ["1", "2", "3", "4"]
    assert (here / RECORD).read_text() == "newer"
    # Although nothing is told any more.
    with mirrored(storage.folder.parent.as_uri(), here, say):
        pass
    assert journal_in(storage) == (here / JOURNAL).read_bytes()


def test_an_event_that_was_cut_short_here_is_no_difference(tmp_path: Path) -> None:
    storage, here = kept(tmp_path, "1", "2"), tmp_path / "here"
    here.mkdir()
    tell(here, "1")
    with (here / JOURNAL).open("ab") as file:
        file.write(b'{"fact":"ano')
    fetch_run(storage, here)
    assert facts(here) == ["1", "2"]


@given(
    common=st.lists(st.integers(0, 20), max_size=6),
    here=st.lists(st.integers(0, 20), max_size=4),
    there=st.lists(st.integers(0, 20), max_size=4),
    segment_bytes=st.integers(1, 120),
)
# What is here ends where a segment there begins.
@example(common=[], here=[0], there=[0, 0], segment_bytes=1)
@settings(max_examples=60, deadline=None)
def test_what_has_gone_on_in_two_places_is_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, common: list[int], here: list[int], there: list[int], segment_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("two")
    begin = [f"{number}-{'x' * size}" for number, size in enumerate(common)]
    ours = begin + [f"here-{'x' * size}" for size in here]
    theirs = begin + [f"there{'x' * size}" for size in there]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mirror_module, "SEGMENT_BYTES", segment_bytes)
        storage, run_dir = OddStorage(folder / "kept" / "a"), folder / "a"
        for path in (run_dir, folder / "other"):
            path.mkdir()
        (folder / "other" / RECORD).write_text(record())
        mirror = Mirror(folder / "other", folder / "other" / JOURNAL, storage, say=say)
        mirror.put(folder / "other" / RECORD)
        for fact in theirs:
            tell(folder / "other", fact, on_write=mirror.committed)
        assert mirror.close()
    tell(run_dir, *ours)
    before = (run_dir / JOURNAL).read_bytes()
    if here and there:
        with pytest.raises(RunError, match="was gone on with in two places, expected one: remove the folder here, or "):
            fetch_run(storage, run_dir)
        assert (run_dir / JOURNAL).read_bytes() == before
    else:
        fetch_run(storage, run_dir)
        assert facts(run_dir) == max(ours, theirs, key=len)


def test_a_run_of_which_only_the_record_arrived_goes_on(tmp_path: Path) -> None:
    storage, here = kept(tmp_path), tmp_path / "here"
    fetch_run(storage, here)
    assert (here / JOURNAL).read_bytes() == b""


def test_the_folder_of_a_uri() -> None:
    assert local_folder("s3://bucket/runs/my-survey/?region=x") == Path("runs/my-survey")
    assert local_folder("elsewhere/a") == Path("elsewhere/a")
    for run in ("s3://", "s3://bucket/..", "s3://bucket/runs/.a"):
        with pytest.raises(RunError, match="names no run, expected such as s3://bucket/runs/my-survey"):
            local_folder(run)


def test_a_run_is_brought_by_its_uri_or_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = kept(tmp_path, "1")
    here = brought_here(storage.uri)
    assert (here, facts(here)) == (Path("runs/a"), ["1"])
    tell(tmp_path / "origin" / "a", "2")
    with mirrored(storage.folder.parent.as_uri(), tmp_path / "origin" / "a", say):
        pass
    assert brought_here("runs/a") == Path("runs/a")
    assert facts(here) == ["1", "2"]
    with pytest.raises(RunError, match=r"kept/b: no run\.json in it, expected the folder of a run in a storage"):
        brought_here((tmp_path / "kept" / "b").as_uri())
    assert not Path("runs/b").exists()


def test_a_folder_in_which_a_search_runs_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = kept(tmp_path, "1")
    here = brought_here(storage.uri)
    tell(tmp_path / "origin" / "a", "2")
    with mirrored(storage.folder.parent.as_uri(), tmp_path / "origin" / "a", say):
        pass
    inode = (here / JOURNAL).stat().st_ino
    with RunLock(here):
        for run in (storage.uri, "runs/a"):
            with pytest.raises(RunError, match=f"runs/a: in use by process {os.getpid()} on .*, expected no other"):
                brought_here(run)
    assert (here / JOURNAL).stat().st_ino == inode
    brought_here("runs/a")
    inode = (here / JOURNAL).stat().st_ino
    brought_here("runs/a")
    # What is the same is not replaced.
    assert (here / JOURNAL).stat().st_ino == inode


def test_a_run_that_moves_to_another_storage_takes_its_checkpoints_along(tmp_path: Path) -> None:
    run_dir, root = tmp_path / "a", (tmp_path / "new").as_uri()
    for name in ("states/s/trial-00001.pt", "weights/s/x.safetensors", "final/s/result.json", "states/s/.half"):
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_bytes(name.encode())
    (run_dir / RECORD).write_text(record((tmp_path / "gone").as_uri()))
    tell(run_dir, "1")
    assert brought_here(str(run_dir), root) == run_dir
    with mirrored(root, run_dir, say):
        found = OddStorage(tmp_path / "new" / "a").names()
        assert {"states/s/trial-00001.pt", "weights/s/x.safetensors", "final/s/result.json"} <= found.keys()
        assert "states/s/.half" not in found
    assert journal_in(OddStorage(tmp_path / "new" / "a")) == (run_dir / JOURNAL).read_bytes()


def test_a_run_that_another_driver_works_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = kept(tmp_path, "1")
    with another_beats(storage):
        here = brought_here(storage.uri)
        with (
            pytest.raises(RunError, match=r"in use by process 12 on elsewhere, expected no other search in it: wait"),
            mirrored(storage.folder.parent.as_uri(), here, say),
        ):
            pytest.fail("it was let in")
    assert journal_in(storage) == (here / JOURNAL).read_bytes()


def test_a_new_run_never_takes_the_name_of_one_that_is_there(tmp_path: Path) -> None:
    storage = kept(tmp_path, "1")
    new = tmp_path / "new" / "a"
    new.mkdir(parents=True)
    with (
        pytest.raises(RunError, match=r"--name: .*kept/a exists already, expected a new folder: choose another name"),
        mirrored(storage.folder.parent.as_uri(), new, say),
    ):
        pytest.fail("it was let in")
    assert list(new.iterdir()) == []


def test_the_end_says_what_did_not_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    run_dir = tmp_path / "a"
    run_dir.mkdir()
    monkeypatch.setattr(mirror_module, "PATIENCE_S", 0.1)
    monkeypatch.setattr(mirror_module, "_FIRST_WAIT_S", 0.05)
    with mirrored((tmp_path / "kept").as_uri(), run_dir, lines.append) as mirror:
        assert mirror is not None
        monkeypatch.setattr(mirror._storage, "write", _refuse)
        (run_dir / "x").write_bytes(b"x")
        mirror.put(run_dir / "x")
    assert lines[-1].endswith(f"/kept/a does not answer and lacks the latest of the run: go on with --resume {run_dir}")


def _refuse(name: str, data: bytes) -> None:
    raise StorageError("away")


def test_without_a_storage_there_is_no_mirror(tmp_path: Path) -> None:
    with mirrored(None, tmp_path, say) as mirror:
        assert mirror is None


def test_a_copy_to_read_is_gone_with_the_block(tmp_path: Path) -> None:
    storage = kept(tmp_path, "1")
    with copied(storage.uri, wanted=lambda name: True) as here:
        assert here.name == "a"
        assert facts(here) == ["1"]
    assert not here.exists()
    with copied("runs/a", wanted=lambda name: True) as here:
        assert here == Path("runs/a")
    with pytest.raises(RunError, match=r"no run\.json in it"), copied(storage.uri + "b", wanted=lambda name: True):
        pytest.fail("there is none")
    assert threading.active_count() < 50
