"""Tune's view of the ledger's beginnings: asks it for trials."""

import math
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from search.lean import pack_own
from search.ledger import Ledger


class StudySearcher(Searcher):
    """Gives each space its turn, as long as there is a free place.

    A trial is suggested only when a worker is free for it, so that the sampler knows every result there is;
    with one worker the order of events, and so the search, is the same every time.

    Args:
        ledger: the run's ledger.
        room: how many trials may run at the same time, now.
        keep_top: best trials of each space whose weights are kept.
    """

    def __init__(self, ledger: Ledger, room: Callable[[], int], *, keep_top: int = 1) -> None:
        super().__init__(metric="objective", mode=ledger.direction)
        self._ledger = ledger
        self._room = room
        self._keep_top = keep_top
        self.fault: Exception | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Take part in Tune's set-up; the objective is known already."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What one trial is told, packed; None while all places are taken; FINISHED when every space had its trials."""
        if self.fault is not None:
            return Searcher.FINISHED
        if len(self._ledger.live) >= self._room():
            return None
        try:
            entry = self._ledger.start(trial_id)
        except Exception as error:
            # Kept for the driver: raised here, Tune would bury it under its own.
            self.fault = error
            return Searcher.FINISHED
        if entry is None:
            return Searcher.FINISHED if self._ledger.finished else None
        account = self._ledger.accounts[entry.space]
        told = {
            "space": entry.space,
            "number": entry.number,
            "train": entry.config,
            "known_epochs": entry.epochs,
            "parent": entry.parent,
            "branched_after": entry.branched_after,
            "micro_batch": account.micro_batch(entry.config["image_px"]),
            "value_to_beat": math.nan if entry.rerun_of is not None else account.value_to_beat(self._keep_top),
        }
        return pack_own(told)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Results are written by the scheduler, which decides on them."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Trials are closed by the scheduler and the recorder, which know why they ended."""

    def save(self, checkpoint_path: str) -> None:
        """Tune snapshots its searcher; nothing reads that, since the study is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: a run is resumed from its studies."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """See `save`."""
        return {}
