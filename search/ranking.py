"""One space's ended trials in order, and which of them are to be run again to the full length."""

import math
from bisect import insort

from search.entry import Entry
from search.rungs import REDUCTION_FACTOR
from search.terms import Terms


class Ranking:
    """Ended trials with a value that did not fail, best first, of equals the earlier first.

    Args:
        terms: what the space was given.
    """

    def __init__(self, terms: Terms) -> None:
        self._max_epochs = terms.max_epochs
        self._sign = 1.0 if terms.direction == "min" else -1.0
        self._ranked: list[tuple[float, int, Entry]] = []
        self._rerun: set[tuple[int, int]] = set()
        self._failed_reruns: set[int] = set()
        self._has_shorter = False

    @property
    def num_reruns(self) -> int:
        """Trials that run another's configuration and seed again."""
        return len(self._rerun)

    @property
    def best(self) -> Entry | None:
        """The best ended trial that did not fail."""
        return self._ranked[0][2] if self._ranked else None

    def entries(self, places: int | None = None) -> list[Entry]:
        """The first places, or all; the others are not written out for it."""
        return [entry for _, _, entry in self._ranked[:places]]

    def value(self, place: int) -> float:
        """The value of the trial in this place, from 1; NaN if there are not so many."""
        return self._ranked[place - 1][2].best_value if len(self._ranked) >= place else math.nan

    def note_start(self, entry: Entry) -> None:
        """Take note of a trial, which may run another again."""
        if entry.rerun_of is not None:
            self._rerun.add((entry.rerun_of, entry.max_epochs))

    def note_end(self, entry: Entry) -> None:
        """Give a trial that has ended its place."""
        self._has_shorter |= entry.max_epochs < self._max_epochs
        if entry.rerun_of is not None and entry.outcome == "failed":
            self._failed_reruns.add(entry.rerun_of)
        # A trial that took another's result has no weights of its own.
        if entry.outcome != "failed" and entry.epochs and math.isfinite(entry.best_value):
            place = (self._sign * entry.best_value, entry.number, entry)
            insort(self._ranked, place, key=lambda item: item[:2])

    def promotion(self) -> Entry | None:
        """A complete trial to run again because trials may be longer now than they were: one of the best third."""
        if not self._has_shorter:
            return None
        shorter: dict[int, Entry] = {}
        for entry in self.entries():
            if entry.outcome == "complete" and entry.max_epochs < self._max_epochs:
                shorter.setdefault(entry.root, entry)
        chosen = list(shorter.values())[: -(-len(shorter) // REDUCTION_FACTOR)]
        return next((entry for entry in chosen if (entry.root, self._max_epochs) not in self._rerun), None)

    def finalist(self, places: int) -> Entry | None:
        """A trial of one of the best configurations that was not run to the full length, and is not being run to it.

        It was stopped, or is of a time when trials were shorter.

        Args:
            places: how many configurations; a trial that ran one again takes no place of its own, nor does one that
                failed when it was run again.
        """
        seen: set[str] = set()
        for _, _, entry in self._ranked:
            configuration = entry.configuration
            if configuration in seen or entry.root in self._failed_reruns:
                continue
            if len(seen) == places:
                break
            in_full = entry.outcome == "complete" and entry.max_epochs >= self._max_epochs
            if not in_full and (entry.root, self._max_epochs) not in self._rerun:
                return entry
            seen.add(configuration)
        return None
