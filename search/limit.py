"""A limit on how long an epoch may take, which ends the process where it hangs."""

import contextlib
import faulthandler
from collections.abc import Iterator
from pathlib import Path

from search.errors import TrialHungError


@contextlib.contextmanager
def limited(path: Path, timeout_s: float | None) -> Iterator[None]:
    """End this process if the block takes too long; where it hung is then in a file, which its successor finds.

    The clock runs in a thread of Python's own that needs no lock, so a call that never returns is ended too.

    Args:
        path: where the successor leaves word of the place, as it gives up.
        timeout_s: how long the block may take; None = as long as it likes.

    Raises:
        TrialHungError: it took a process too long before.
    """
    if not timeout_s:
        yield
        return
    # Of a block that was ended. It is not `path` itself: who tries once more, in another session, begins without it.
    running = path.with_name(f".{path.name}")
    if running.exists() and running.stat().st_size:
        running.replace(path)
        raise TrialHungError(f"no epoch within {timeout_s:g} s (--trial-timeout): where it hung is in {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with running.open("w") as file:
        faulthandler.dump_traceback_later(timeout_s, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    running.unlink(missing_ok=True)
