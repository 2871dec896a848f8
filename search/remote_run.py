"""A run that is kept in a storage, brought to this machine: to go on with it, or to read it."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from search.errors import RunError
from search.files import STATES, WEIGHTS
from search.journal import JOURNAL, whole_bytes
from search.mirror import SEGMENTS, Mirror, segment_name, segment_starts
from search.run_dir import RECORD, load_record
from search.storage import Storage, is_uri
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
    if not name or name.endswith(":"):
        raise RunError(f"{run}: names no run, expected such as s3://bucket/runs/my-survey: add the run's name")
    return COPIES / name


def brought_here(run: str) -> Path:
    """The folder of a run on this machine, as it is in the storage that keeps it, if one does.

    Raises:
        RunError: there is no such run.
        StorageError: its storage cannot be reached.
    """
    folder = local_folder(run)
    if is_uri(run):
        storage = Storage(run)
        if storage.read(RECORD) is None:
            raise RunError(f"{run}: no {RECORD} in it, expected the folder of a run in a storage: check the name")
        fetch_run(storage, folder)
    elif (root := load_record(folder)["options"].get("storage")) is not None:
        fetch_run(Storage(root).child(folder.resolve().name), folder)
    return folder


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
    storage = Storage(run)
    if storage.read(RECORD) is None:
        raise RunError(f"{run}: no {RECORD} in it, expected the folder of a run in a storage: check the name")
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
    with StorageLock(storage):
        fetch_run(storage, run_dir)
        mirror = Mirror(run_dir, run_dir / JOURNAL, storage, say=say)
        try:
            yield mirror
        finally:
            if not mirror.close():
                say(f"{storage.uri} does not answer and lacks the latest of the run: go on with --resume {run_dir}")


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
    for name, size in names.items():
        path = folder / name
        room = name.partition("/")[0]
        if room in (SEGMENTS, STATES, WEIGHTS, _REPORT) or name == LOCK or not wanted(name):
            continue
        if name == RECORD or not path.is_file() or path.stat().st_size != size:
            storage.get(name, path)


def _fetch_journal(storage: Storage, path: Path, segments: list[tuple[int, int]]) -> bool:
    """Bring the journal here; false if it is here already and goes further than the storage's."""
    length = sum(segments[-1]) if segments else 0
    here = path.read_bytes()[: whole_bytes(path)] if path.is_file() else b""
    start = max((one for one, _ in segments if one <= len(here)), default=0)
    parts = [storage.read(segment_name(one)) or b"" for one, _ in segments if one >= start]
    there = here[:start] + b"".join(parts)
    common = min(len(here), len(there))
    if here[:common] != there[:common]:
        raise RunError(
            f"{path}: not the beginning of the journal in {storage.uri}, nor the other way round: the run was gone on "
            "with in two places; remove the folder here, or resume it as a run of its own without its storage"
        )
    if len(here) > length:
        return False
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(there)
    partial.replace(path)
    return True
