"""Where a command may write."""

import errno
import tempfile
from pathlib import Path

from galaxy_models.errors import DataError


def check_new(out: Path) -> None:
    """Check that a file or folder can be made, before hours are spent on what goes into it.

    Args:
        out: what `--out` names; folders on the way to it need not be there.

    Raises:
        DataError: there is something already, or there can be nothing.
    """
    try:
        if out.exists() or out.is_symlink():
            raise DataError(f"--out {out}: it exists, expected a new name: choose another, or remove it")
        nearest = next(folder for folder in out.absolute().parents if folder.exists())
        # Tried, since what permissions say is not all that can stand in the way.
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".galaxy-search-"):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DataError(
            f"--out {out}: {error.strerror}, expected a place where something new can be made: choose another place"
        ) from None
