"""A folder appears whole or not at all."""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from galaxy_models.data.manifest import MANIFEST_NAME
from galaxy_models.errors import DataError, MachineError

REJECTED_NAME = "rejected.csv"
# All that a conversion makes; a folder that holds anything else is never replaced.
_OWN_FILES = re.compile(
    rf"{re.escape(MANIFEST_NAME)}|{re.escape(REJECTED_NAME)}|(train|val|test)-\d{{5,}}\.arrow", re.ASCII
)
# A path that cannot be: too long, through a file, through links that lead in a circle, in a folder that takes none.
_BAD_PATH = (errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def resolve_output(out: Path) -> Path:
    """The absolute path of the folder to make, past any links: the output may be a link to a roomier disk.

    Raises:
        DataError: there can be no such folder.
    """
    try:
        resolved = out.resolve()
        with _bad_path_named(out):
            resolved.exists()
    except RuntimeError:  # what Path.resolve makes of links in a circle
        raise _bad_path(out, os.strerror(errno.ELOOP)) from None
    return resolved


def check_apart(out: Path, sources: Iterable[Path]) -> None:
    """Refuse an output that touches what is read.

    Args:
        out: the folder to make; resolved.
        sources: folders and files that are read; resolved.

    Raises:
        DataError: one of them is the output, lies in it, or has it inside.
    """
    for source in sources:
        if source.is_relative_to(out):
            raise DataError(f"--out {out}: found the survey's own {source} there: choose a place apart from the survey")
        if out.is_relative_to(source):
            raise DataError(f"--out {out}: found it inside the survey {source}: choose a place apart from the survey")


def check_output(out: Path, *, force: bool) -> None:
    """Refuse an output that is in use.

    Args:
        out: the folder to make.
        force: whether an earlier conversion there may be replaced.

    Raises:
        DataError: there is one and `force` is not set, or there is something that no conversion made.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise DataError(f"--out {out}: found a file, expected a folder to make: choose another name")
    if not any(out.iterdir()):
        return
    if not (out / MANIFEST_NAME).is_file():
        raise DataError(f"--out {out}: found a folder that is no converted survey: choose another name")
    if not force:
        raise DataError(f"--out {out}: found a converted survey: choose another name, or replace it with --force")
    strangers = sorted(item.name for item in out.iterdir() if item.is_dir() or not _OWN_FILES.fullmatch(item.name))
    if strangers:
        raise DataError(
            f"--out {out}: found {strangers[0]!r}, which no conversion makes, so --force does not replace the folder: "
            "take it out or choose another name"
        )


@contextmanager
def staged_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside `out`, which takes its name at the end; after any failure it is removed.

    What a process that was killed left of an earlier attempt at `out` is removed, too.

    Args:
        out: the folder to make; an absolute path.
        force: whether an earlier conversion there is replaced, once the new one is complete.

    Yields:
        The temporary folder, empty.

    Raises:
        DataError: there can be no such folder, or something else has appeared there meanwhile.
        MachineError: the disk is full.
    """
    mark = secrets.token_hex(4)
    partial = out.with_name(f".{out.name}.partial-{mark}")
    try:
        with _bad_path_named(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(out)
            partial.mkdir()
    except FileExistsError:
        raise _bad_path(out, "found a file on the way to it") from None
    try:
        with _locked(partial):
            yield partial
            _sync(partial)
            _install(partial, out, out.with_name(f".{out.name}.replaced-{mark}"), force=force)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MachineError(
            f"--out {out}: the disk is full, the unfinished output is removed: free some room or choose another place"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder; the lock ends with this process, however that ends.

    Yields:
        Whether it is locked: not if another process has it, or if its file system has no such locks.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(out: Path) -> None:
    name = re.compile(rf"\.{re.escape(out.name)}\.partial-[0-9a-f]{{8}}")
    # What cannot be looked at or removed is in nobody's way.
    with suppress(OSError):
        for folder in [item for item in out.parent.iterdir() if name.fullmatch(item.name)]:
            with _locked(folder) as is_abandoned:
                if is_abandoned:
                    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _bad_path_named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _BAD_PATH:
            raise
        raise _bad_path(out, os.strerror(error.errno)) from None


def _bad_path(out: Path, found: str) -> DataError:
    return DataError(f"--out {out}: {found}, expected a place for a folder: choose another place")


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _install(partial: Path, out: Path, replaced: Path, *, force: bool) -> None:
    # Checked again: somebody may have converted to the same place in the meantime.
    check_output(out, force=force)
    try:
        if out.exists():
            out.rename(replaced)
        partial.rename(out)
    finally:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
    shutil.rmtree(replaced, ignore_errors=True)
    descriptor = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
