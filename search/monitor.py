"""The search in the terminal: one live table, or plain lines where there is no terminal."""

import time
from collections import Counter
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.ledger import Entry, Ledger


def clock(seconds: float) -> str:
    """A duration as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Monitor(Callback):
    """Shows how a search stands. It comes after the recorder among Tune's callbacks, so that the ledger is current.

    Args:
        ledger: the run's ledger.
        max_concurrent: trials that run at the same time.
        time_budget_s: the search's bound in time, None without one.
        console: where to draw.
    """

    def __init__(self, ledger: Ledger, max_concurrent: int, time_budget_s: float | None, console: Console) -> None:
        self._ledger = ledger
        self._max_concurrent = max_concurrent
        self._time_budget_s = time_budget_s
        self._console = console
        self._start = time.monotonic()
        self._live: Live | None = None
        self._announced: set[str] = set()
        self._over = False
        self._num_ended = 0
        self._last_end_s = 0.0

    def __enter__(self) -> "Monitor":
        """Begin to show."""
        self._start = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self.render, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._over = True
            self._live.stop()
            self._live = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._start

    def remaining_s(self) -> float | None:
        """Estimated seconds to the end: from the mean time of ended trials, and no later than the budget's end."""
        ended = [entry for entry in self._ledger.entries.values() if entry.outcome is not None]
        bounds = []
        if self._time_budget_s is not None:
            bounds.append(max(0.0, self._time_budget_s - self.elapsed_s))
        if len(ended) != self._num_ended:
            self._num_ended, self._last_end_s = len(ended), self.elapsed_s
        if len(ended) >= self._max_concurrent:
            total = self._ledger.num_trials * len(self._ledger.spaces)
            # Between two ends the estimate counts down.
            bounds.append(max(0.0, self._last_end_s / len(ended) * total - self.elapsed_s))
        return min(bounds, default=None)

    def render(self) -> Group:
        """The live table."""
        ledger = self._ledger
        table = Table(pad_edge=False)
        for title in (
            "backbone",
            "running",
            "stopped",
            "done",
            "failed",
            "of",
            f"best {ledger.objective}",
            "epoch",
            "trial",
        ):
            table.add_column(title, justify="left" if title == "backbone" else "right")
        for name in ledger.spaces:
            counts = Counter(entry.outcome for entry in ledger.entries.values() if entry.space == name)
            leader = ledger.leader(name)
            best = (
                (f"{leader.best_value:.4f}", str(leader.best_epoch), str(leader.number)) if leader else ("-", "-", "-")
            )
            states = [str(counts[key]) for key in (None, "stopped", "complete", "failed")]
            table.add_row(Text(name), *states, str(ledger.num_trials), *best)
        remaining = None if self._over else self.remaining_s()
        left = "" if remaining is None else f", about {clock(remaining)} left"
        return Group(table, Text(f"elapsed {clock(self.elapsed_s)}{left}", style="dim"))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Print a line where there is no live table."""
        self._announce(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Print a line where there is no live table."""
        self._announce(trial.trial_id)

    def _announce(self, key: str) -> None:
        entry = self._ledger.entries.get(key)
        if self._live is not None or entry is None or key in self._announced:
            return
        self._announced.add(key)
        self._console.print(self.line(entry), highlight=False, markup=False, soft_wrap=True)

    def line(self, entry: Entry) -> str:
        """One ended trial in a line."""
        ledger = self._ledger
        num_ended = sum(other.outcome is not None for other in ledger.entries.values())
        total = ledger.num_trials * len(ledger.spaces)
        reached = f"{ledger.objective} {entry.best_value:.4f} in epoch {entry.best_epoch}; " if entry.best_epoch else ""
        leader = ledger.leader(entry.space)
        best = f"best {leader.best_value:.4f} (trial {leader.number})" if leader else "no value yet"
        return (
            f"[{clock(self.elapsed_s)}] {num_ended}/{total} {entry.space} trial {entry.number}: {entry.reason}; "
            f"{reached}{best}"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}
