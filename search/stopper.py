"""When a whole search ends before its last trial: a bound is reached, a signal came, or something is wrong."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune import Stopper


class SearchStopper(Stopper):
    """Ends the experiment at its next step.

    Args:
        budget_s: seconds that the search may still take; None = no bound.
        received: signals that came so far; filled by a signal handler.
        fault: gives the fault that ends the search, or None.
        spent: says which other bound is reached; empty if none is.
    """

    def __init__(
        self,
        *,
        budget_s: float | None,
        received: Sequence[int],
        fault: Callable[[], Exception | None],
        spent: Callable[[], str],
    ) -> None:
        self._deadline = None if budget_s is None else time.monotonic() + budget_s
        self._received = received
        self._fault = fault
        self._spent = spent
        self.reason = ""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Trials are stopped by the scheduler alone."""
        return False

    def stop_all(self) -> bool:
        """Whether the search ends now; `reason` then says why."""
        if self._received:
            self.reason = "interrupted"
        elif (fault := self._fault()) is not None:
            self.reason = f"an error: {fault}"
        elif self._deadline is not None and time.monotonic() >= self._deadline:
            self.reason = "time budget"
        else:
            self.reason = self._spent()
        return bool(self.reason)

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its stopper; nothing reads that, since the study is the record."""
        return {}
