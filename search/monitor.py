"""The search in the terminal: one live table, or plain lines where there is no terminal."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.entry import Entry
from search.ledger import Ledger
from search.live_file import Node
from search.recorder import Recorder


def clock(seconds: float) -> str:
    """A duration as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Monitor(Callback):
    """Shows how a search stands. It comes after the recorder among Tune's callbacks, so that the ledger is current.

    Args:
        ledger: the run's ledger.
        recorder: knows the trials by Tune's names.
        room: how many trials may run at the same time, now.
        time_budget_s: seconds that the search may still take, None without a bound.
        console: where to draw.
        nodes: gives the machines of the cluster.
    """

    def __init__(
        self,
        ledger: Ledger,
        recorder: Recorder,
        room: Callable[[], int],
        time_budget_s: float | None,
        console: Console,
        *,
        nodes: Callable[[], Sequence[Node]] = tuple,
    ) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._room = room
        self._time_budget_s = time_budget_s
        self._console = console
        self._nodes = nodes
        self._start = time.monotonic()
        self._live: Live | None = None
        self._running: dict[str, Entry] = {}
        self._num_replaced: Counter[str] = Counter()
        self._ended_before, self._epochs_before = ledger.num_ended, ledger.spent_epochs
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
        """Seconds since this session of the search began."""
        return time.monotonic() - self._start

    @property
    def _total(self) -> int:
        """Trials of the whole search, as far as can be told."""
        limits, accounts = self._ledger.limits, self._ledger.accounts
        known = self._ledger.num_ended + sum(len(account.live) for account in accounts.values())
        return max(limits.num_trials * len(accounts), known)

    def remaining_s(self) -> float | None:
        """Estimated seconds to the end: from the mean time of ended trials, and no later than the budget's end.

        Of populations, whose trials end together, from the mean time of epochs.
        """
        num_ended = self._ledger.num_ended - self._ended_before
        num_epochs, to_come = self._ledger.spent_epochs - self._epochs_before, self._ledger.epochs_to_come
        bounds = []
        if self._time_budget_s is not None:
            bounds.append(max(0.0, self._time_budget_s - self.elapsed_s))
        if num_ended != self._num_ended:
            self._num_ended, self._last_end_s = num_ended, self.elapsed_s
        if to_come is not None:
            bounds += [self.elapsed_s / num_epochs * to_come] if num_epochs >= self._room() else []
        elif num_ended >= self._room():
            num_trials = self._total - self._ended_before
            # Between two ends the estimate counts down.
            bounds.append(max(0.0, self._last_end_s / num_ended * num_trials - self.elapsed_s))
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
        running = Counter(entry.space for entry in ledger.live.values())
        for name, account in ledger.accounts.items():
            leader, counts = account.leader, account.counts
            best = (
                (f"{leader.best_value:.4f}", str(leader.best_epoch), str(leader.number)) if leader else ("-", "-", "-")
            )
            states = [str(running[name]), *(str(counts[key]) for key in ("stopped", "complete", "failed"))]
            table.add_row(Text(name), *states, str(ledger.limits.num_trials + account.num_branches), *best)
        remaining = None if self._over else self.remaining_s()
        left = "" if remaining is None else f", about {clock(remaining)} left"
        return Group(table, Text(f"elapsed {clock(self.elapsed_s)}{left}{self._cluster()}", style="dim"))

    def _cluster(self) -> str:
        """A line on the machines, where there are several."""
        nodes = self._nodes()
        if len(nodes) < 2:
            return ""
        num_alive = sum(node.alive for node in nodes)
        busy = f"{len(self._running)} of {self._room()} places busy"
        return f"\nnodes {num_alive} of {len(nodes)} alive, {busy}"

    def say(self, words: str) -> None:
        """Print a line of its own, above the live table where there is one."""
        self._console.print(words, highlight=False, markup=False, soft_wrap=True)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Remember who runs, and tell of those that made way before."""
        self._announce_replaced()
        self._running[trial.trial_id] = self._recorder.entry(trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Print a line where there is no live table."""
        self._announce(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Print a line where there is no live table."""
        self._announce(trial.trial_id)

    def _announce(self, key: str) -> None:
        entry = self._running.pop(key, None)
        made_way = entry is not None and entry.number in self._ledger.accounts[entry.space].replaced
        if self._live is None and entry is not None and entry.outcome is not None and not made_way:
            self.say(self.line(entry))
        self._announce_replaced()

    def _announce_replaced(self) -> None:
        for name, account in self._ledger.accounts.items():
            for entry in list(account.replaced.values())[self._num_replaced[name] :]:
                self._num_replaced[name] += 1
                if self._live is None:
                    self.say(self.line(entry))

    def line(self, entry: Entry) -> str:
        """One ended trial in a line."""
        ledger = self._ledger
        reached = f"{ledger.objective} {entry.best_value:.4f} in epoch {entry.best_epoch}; " if entry.best_epoch else ""
        leader = ledger.accounts[entry.space].leader
        best = f"best {leader.best_value:.4f} (trial {leader.number})" if leader else "no value yet"
        place = f"[{clock(self.elapsed_s)}] {ledger.num_ended}/{self._total} {entry.space} trial {entry.number}"
        return f"{place}: {entry.reason}; {reached}{best}"

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}
