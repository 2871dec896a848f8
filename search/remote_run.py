"""A run that is kept in a storage, brought to this machine: to go on with it, or to read it."""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from search.errors import RunError
from search.files import STATES, WEIGHTS
from search.journal import JOURNAL, whole_bytes
from search.lock import RunLock
from search.mirror import SEGMENTS, Mirror, segment_name, segment_starts
from search.results import FINAL
from search.run_dir import RECORD, load_record
from search.signals import leave_at_once
from search.storage import Kept, Storage, is_uri
from search.storage_lock import LOCK, StorageLock

# Where a copy is put that is named by its URI only.
COPIES = Path("runs")
_REPORT = "report"


def local_folder(run: str) -> Path:
    """The folder of a run on this machine: the path itself, or where the copy of one in a storage goes.

    Raises:
        RunError: a URI without a run's name.
    """
    if not is_uri(run):
        return Path(run)
    name = run.partition("?")[0].rstrip("/").rpartition("/")[2]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RunError(f"{run}: names no run, expected such as s3://bucket/runs/my-survey: add the run's name")
    return COPIES / name


def brought_here(run: str, root: str | None = None) -> Path:
    """The folder of a run on this machine, as it is in the storage that keeps it, if one does.

    Args:
        run: its folder, or its URI.
        root: the storage that is to keep it from now on; None = the one that did.

    Raises:
        RunError: there is no such run, or a search on this machine works on it.
        StorageError: its storage cannot be reached.
    """
    folder = local_folder(run)
    if is_uri(run):
        storage = _storage_of(run)
        folder.mkdir(parents=True, exist_ok=True)
    else:
        began = load_record(folder)["options"].get("storage")
        root = root or began
        if root is None:
            return folder
        storage = Storage(root).child(folder.resolve().name)
    with RunLock(folder):
        fetch_run(storage, folder)
    return folder


def _storage_of(run: str) -> Storage:
    """A run's folder in its storage.

    Raises:
        RunError: no run there.
    """
    storage = Storage(run)
    if storage.read(RECORD) is None:
        raise RunError(f"{run}: no {RECORD} in it, expected the folder of a run in a storage: check the name")
    return storage


@contextlib.contextmanager
def copied(run: str, *, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """The folder of a run to read, of one in a storage a copy that is gone with the block.

    Args:
        run: its folder, or its URI.
        wanted: which files of the one in a storage are copied.

    Raises:
        RunError: no run there.
    """
    if not is_uri(run):
        yield Path(run)
        return
    storage = _storage_of(run)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / local_folder(run).name
        fetch_run(storage, folder, wanted=wanted)
        yield folder


@contextlib.contextmanager
def mirrored(root: str | None, run_dir: Path, say: Callable[[str], None]) -> Iterator[Mirror | None]:
    """Keep a run in a storage beside its folder on this machine, as long as the block lasts.

    Args:
        root: the URI of the storage that runs are kept in; None without one.
        run_dir: the run's folder, whose lock is held.
        say: prints a line for the user.

    Raises:
        RunError: another search works on the run, or did so since it was here.
        StorageError: the storage cannot be used.
    """
    if root is None:
        yield None
        return
    storage = Storage(root).child(run_dir.resolve().name)
    with StorageLock(storage, _leave) as lock:
        begun = storage.read(RECORD) is not None
        if begun and not (run_dir / RECORD).is_file():
            raise RunError(f"--name: {storage.uri} exists already, expected a new folder: choose another name")
        fetch_run(storage, run_dir)
        mirror = Mirror(run_dir, run_dir / JOURNAL, storage, say=say, ours=lock.confirm)
        if not begun:
            _bring_checkpoints(storage, run_dir)
        try:
            yield mirror
        finally:
            if not mirror.close():
                say(f"{storage.uri} does not answer and lacks the latest of the run: go on with --resume {run_dir}")


def _leave(words: str) -> None:
    """End this process: whatever it and its workers would write on is another's."""
    leave_at_once(
        1,
        f"error: {words}, expected no other search in it: this one was silent for too long and ends here; go on from "
        "there, when that one has ended",
    )


def _bring_checkpoints(storage: Storage, run_dir: Path) -> None:
    """Bring what workers will look for to a storage that a run is kept in from now on."""
    for folder in (STATES, WEIGHTS, FINAL):
        for path in sorted((run_dir / folder).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                storage.put(path, path.relative_to(run_dir).as_posix())


def fetch_run(storage: Storage, folder: Path, *, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Bring a run here as it is in its storage, but for checkpoints of trials, which workers fetch themselves.

    A folder here that is ahead of the storage, as its machine was cut off or stopped before all had arrived, stays as
    it is.

    Args:
        storage: the run's folder there.
        folder: where to; made if it is not there.
        wanted: whether a file of this name is of use.

    Raises:
        RunError: the two have gone on apart from each other.
    """
    names = storage.names()
    if RECORD not in names:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not _fetch_journal(storage, folder / JOURNAL, segment_starts(names)):
        return
    for name, kept in names.items():
        path, parts = folder / name, PurePosixPath(name).parts
        if parts[0] in (SEGMENTS, STATES, WEIGHTS, _REPORT, LOCK) or not wanted(name):
            continue
        # No file of a run has such a name; in another's bucket one may, to lead out of the folder.
        if any(part.startswith(".") for part in parts):
            continue
        if not _is_here(path, kept) and storage.get(name, path):
            os.utime(path, ns=(kept.written_ns, kept.written_ns))


def _is_here(path: Path, kept: Kept) -> bool:
    """Whether a file was brought from the storage and is unchanged on both sides: weights all have one size."""
    if not path.is_file():
        return False
    found = path.stat()
    # To the microsecond: not every file system keeps more.
    return found.st_size == kept.num_bytes and found.st_mtime_ns // 1000 == kept.written_ns // 1000


def _fetch_journal(storage: Storage, path: Path, segments: list[tuple[int, int]]) -> bool:
    """Bring the journal here; false if it is here already and goes further than the storage's."""
    here = path.read_bytes()[: whole_bytes(path)] if path.is_file() else b""
    # With a segment that both have a part of, which cannot be the same in two runs: every event tells its time.
    start = max((one for one, _ in segments if one < len(here)), default=0)
    parts = [storage.read(segment_name(one)) or b"" for one, _ in segments if one >= start]
    there = here[:start] + b"".join(parts)
    common = min(len(here), len(there))
    if here[:common] != there[:common]:
        raise RunError(
            f"{path}: not the beginning of the journal in {storage.uri}, nor the other way round: the run was gone on "
            "with in two places, expected one: remove the folder here, or keep it as a run of its own, with --storage "
            "and another place"
        )
    if path.is_file() and len(here) >= len(there):
        return len(here) == len(there)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(there)
    partial.replace(path)
    return True
