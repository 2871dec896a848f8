"""All trials of a run: which space gets the next one, what each reports, and when a space or the search has enough.

Tune places and stops trials; the ledger is told of it and keeps the studies, which are the one record.
It knows nothing of Ray, so a simulation can drive it too.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from galaxy_models.task import Direction
from search.account import Account
from search.entry import FINALIST_OF, GPU_S, PROMOTED_FROM, Entry, Outcome
from search.turns import Standing, fewest, losers, race_quotas, race_round

# The study's attribute that says why a space left a race.
DROPPED = "dropped"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds a search beside the length of a trial; what earlier sessions spent counts.

    Attributes:
        num_trials: trials each space gets, those run again to the full length not counted.
        epochs: epochs of all trials together.
        gpu_hours: hours of all trials together, times the GPUs that each had.
        gpus_per_trial: GPUs of each trial.
        share: `equal`, or `race`: after each round the worse half of the spaces gets no more.
        num_finalists: of the best trials of each space, those that were stopped are run again to the full length.
        min_complete: complete trials that a space has before it may leave a race, unless more than `num_trials` failed.
        patience: trials that a space may end one after the other without a better value; None = any number.
    """

    num_trials: int
    epochs: int | None = None
    gpu_hours: float | None = None
    gpus_per_trial: float = 0.0
    share: str = "equal"
    num_finalists: int = 1
    min_complete: int = 2
    patience: int | None = None


class Converged(Protocol):
    """Says whether a space's search has converged."""

    def __call__(self, account: Account) -> str:
        """Why no better trial is to be expected; empty if one is."""
        ...


@dataclass
class Ledger:
    """All trials of a run, each space's in its own account.

    Attributes:
        accounts: the spaces' accounts by name, in the order in which they take turns.
        limits: what bounds the search.
        commit: brings what was written to the journal as one event; given `durable=True` also to the disk.
        elapsed_s: gives the seconds the search has run, earlier sessions included.
        converged: a test beside `limits.patience`.
        live: trials that somebody runs, by the caller's key.
        given_up: why a space gets no more trials, by space.
        has_enough: why a space needs no more trials, by space.
    """

    accounts: Mapping[str, Account]
    limits: Limits
    commit: Callable[..., None] = lambda durable=False: None
    elapsed_s: Callable[[], float] = lambda: math.nan
    converged: Converged | None = None
    live: dict[str, Entry] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    has_enough: dict[str, str] = field(default_factory=dict)
    _asked_at: dict[str, int] = field(default_factory=dict)

    @property
    def objective(self) -> str:
        """The result's key that is optimised, such as `val_nll`."""
        return next(iter(self.accounts.values())).terms.objective

    @property
    def direction(self) -> Direction:
        """Which way is better."""
        return next(iter(self.accounts.values())).terms.direction

    @property
    def spent_epochs(self) -> int:
        """Epochs of all trials so far."""
        return sum(account.spent_epochs for account in self.accounts.values())

    @property
    def num_ended(self) -> int:
        """Trials that have ended."""
        return sum(account.counts.total() for account in self.accounts.values())

    @property
    def epochs_to_come(self) -> int | None:
        """Epochs that are to come at most; None where trials may be stopped for good, so that nobody knows."""
        accounts = [account for name, account in self.accounts.items() if name not in self.given_up]
        if not all(account.is_population for account in accounts):
            return None
        whole = sum(account.terms.population * account.terms.max_epochs for account in accounts)
        return max(0, whole - sum(account.spent_epochs for account in accounts))

    @property
    def left_race(self) -> dict[str, str]:
        """Why spaces left the race, by space."""
        studies = {name: account.study for name, account in self.accounts.items()}
        return {name: study.user_attrs[DROPPED] for name, study in studies.items() if DROPPED in study.user_attrs}

    def start(self, key: str) -> Entry | None:
        """Start the next trial of whichever space it is due; first come those that an earlier session left behind.

        Args:
            key: the caller's name for the trial.

        Returns:
            The trial; None if there is none to start now. `finished` says whether there will be.

        Raises:
            SpaceError: the space file failed.
        """
        entry = None
        while entry is None:
            for account in self.accounts.values():
                if account.name not in self.given_up:
                    account.end_generation()
            due = self._due()
            if due is not None:
                entry = due()
            elif not self._end_round():
                break
        self.commit()
        if entry is None and not self.live:
            stuck = [name for name, one in self.accounts.items() if one.rests and name not in self.given_up]
            assert not stuck, f"trials of {', '.join(stuck)} wait for each other"
        if entry is not None:
            self.live[key] = entry
        return entry

    @property
    def finished(self) -> bool:
        """Whether no trial runs and none is to come; true only after `start` had none."""
        return not self.live and self._due() is None

    def _due(self) -> Callable[[], Entry | None] | None:
        """What starts the next trial; None if none can be started before another has ended."""
        accounts = {name: account for name, account in self.accounts.items() if name not in self.given_up}
        left = [account for account in accounts.values() if account.unfinished]
        if left and not left[0].is_population:
            return partial(left[0].unfinished.pop, 0)
        behind = min(left, key=lambda account: account.spent_epochs, default=None)
        quotas = {name: self._quota(account) for name, account in accounts.items()}
        name = fewest([self._standing(account) for account in accounts.values()], quotas)
        # The trials of populations go on over and over: they take turns with those of other spaces that begin.
        if behind is not None and (name is None or behind.spent_epochs <= accounts[name].spent_epochs):
            return partial(behind.unfinished.pop, 0)
        ready = [accounts[name]] if name is not None else []
        ready += [
            account
            for account in accounts.values()
            if account.started >= quotas[account.name]
            and all(entry.rerun_of is not None for entry in account.live.values())
        ]
        for account in ready:
            if (entry := account.promotion()) is not None:
                return partial(account.run_again, entry, PROMOTED_FROM)
            if account.name == name:
                return partial(account.ask, quotas[name])
            if (entry := account.finalist(self._num_finalists)) is not None:
                return partial(account.run_again, entry, FINALIST_OF)
        return None

    @property
    def _num_finalists(self) -> int:
        racing = self.limits.share == "race" and len(self.accounts) > 1
        return max(self.limits.num_finalists, self.limits.min_complete) if racing else self.limits.num_finalists

    def _standing(self, account: Account) -> Standing:
        return Standing(account.name, account.started, account.spent_epochs, account.value_to_beat())

    def _quota(self, account: Account) -> int:
        """Trials that a space may have had by now."""
        if self._has_enough(account) or DROPPED in account.study.user_attrs:
            return account.started
        if self.limits.share == "equal":
            return self.limits.num_trials
        total = self.limits.num_trials * len(self.accounts)
        # Others take the place of trials that failed, where a space would else leave with too few; not for ever.
        replaced = min(account.counts["failed"], self.limits.num_trials)
        quotas = race_quotas(len(self.accounts), total, at_least=self.limits.min_complete + replaced)
        return quotas[race_round(len(self.accounts), len(self._racing()))]

    def _racing(self) -> list[Account]:
        """The spaces that are in the race; one that was given up drops nobody."""
        return [
            account
            for account in self.accounts.values()
            if DROPPED not in account.study.user_attrs and account.name not in self.given_up
        ]

    def _end_round(self) -> bool:
        """Let the worse half leave the race once nothing of this round is left to run; false if there is no race."""
        racing = self._racing()
        if self.limits.share != "race" or len(racing) < 2 or any(account.live for account in racing):
            return False
        standings = {account.name: self._standing(account) for account in racing}
        for name in losers(list(standings.values()), self.direction):
            one = standings[name]
            words = f"{name} left the race after {one.started} trials, its best value being {one.best:.4f}"
            self.accounts[name].study.set_user_attr(DROPPED, words)
        return True

    def _has_enough(self, account: Account) -> bool:
        """Whether a space has converged; asked anew when a trial has ended, as one that ran beside may be the best."""
        ended = account.counts.total()
        if self._asked_at.get(account.name) != ended:
            self._asked_at[account.name] = ended
            self.has_enough.pop(account.name, None)
            if words := self._convergence(account):
                self.has_enough[account.name] = words
        return account.name in self.has_enough

    def _convergence(self, account: Account) -> str:
        patience, since = self.limits.patience, account.since_best
        if patience is not None and since >= patience:
            return f"{account.name} has converged: {since} trials in a row ended without a better value"
        return self.converged(account) if self.converged is not None else ""

    def report(self, key: str, metrics: Mapping[str, float]) -> bool:
        """Take one epoch down, decide, and write both as one event.

        Args:
            key: the trial's key.
            metrics: what was measured; has `epoch` (from 1), `epoch_s` and the objective.

        Returns:
            Whether the trial goes on; if not, it is closed.
        """
        entry = self.live[key]
        stamped = {**metrics, "elapsed_s": round(self.elapsed_s(), 3)}
        if self.limits.gpus_per_trial:
            stamped[GPU_S] = metrics["epoch_s"] * self.limits.gpus_per_trial
        goes_on = self.accounts[entry.space].report(entry, stamped)
        self.commit(durable=not goes_on)
        if not goes_on:
            del self.live[key]
        return goes_on

    def finish(self, key: str, outcome: Outcome, reason: str) -> None:
        """Close a trial for another reason than its own report; one that is closed already stays as it is."""
        entry = self.live.pop(key, None)
        if entry is not None:
            self.accounts[entry.space].finish(entry, outcome, reason)
            self.commit(durable=True)

    def put_back(self, key: str) -> None:
        """Leave a trial that nobody runs any more to the next `start`, which comes to it first."""
        entry = self.live.pop(key)
        self.accounts[entry.space].unfinished.insert(0, entry)

    def spent(self) -> str:
        """Which bound of all trials together is reached; empty if none is."""
        limits = self.limits
        if limits.epochs is not None and self.spent_epochs >= limits.epochs:
            return f"epoch budget: {self.spent_epochs:,} of {limits.epochs:,} epochs"
        if limits.gpu_hours is not None:
            hours = sum(account.spent_gpu_s for account in self.accounts.values()) / 3600
            if hours >= limits.gpu_hours:
                return f"GPU budget: {hours:.2f} of {limits.gpu_hours:g} GPU-hours"
        return ""
