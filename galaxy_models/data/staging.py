"""A folder appears whole or not at all."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galaxy_models.data.manifest import MANIFEST_NAME
from galaxy_models.errors import DataError, MachineError


def check_output(out: Path, *, force: bool) -> None:
    """Refuse an output that is in use.

    Args:
        out: the folder to make.
        force: whether an earlier conversion there may be replaced.

    Raises:
        DataError: there is one and `force` is not set, or there is something that is no conversion.
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


@contextmanager
def staged_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a temporary folder beside `out`, which takes its name at the end; after any failure it is removed.

    Args:
        out: the folder to make; an absolute path.
        force: whether an earlier conversion there is replaced, once the new one is complete.

    Yields:
        The temporary folder, empty.

    Raises:
        DataError: something else has appeared at `out` meanwhile.
        MachineError: the disk is full.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise DataError(f"--out {out}: found a file on the way to it, expected folders: choose another place") from None
    mark = secrets.token_hex(4)
    partial = out.with_name(f".{out.name}.partial-{mark}")
    partial.mkdir()
    try:
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
