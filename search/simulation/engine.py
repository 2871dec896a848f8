"""Tune without Ray: searcher, scheduler and callbacks are called as Tune calls them, on virtual workers.

Only the clock is another: the next result is taken from a heap of events, and nobody sleeps.
The order of calls is that of Tune's controller (`TuneController._process_trial_result`, `stop_trial`, `step`).
"""

import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.simulation.curves import Curves

OBJECTIVE = "objective"
# The objective as an epoch's metric, which a ledger keeps.
METRIC = "val_value"


@dataclass(frozen=True)
class Stack:
    """What decides in a search.

    Attributes:
        searcher: proposes configurations.
        scheduler: stops and pauses trials.
        row_of: the recorded configuration that a suggestion stands for.
        max_pending: trials that may wait for a worker; Tune's default is 1, so that one is always asked for early.
        num_samples: trials that are asked for, as Tune counts them.
        callbacks: are told what happens.
        give_up: told of a trial whose recorded curve ended before the scheduler ended it.
        fault: gives what went wrong in searcher, scheduler or callbacks, which keep it since Tune would bury it.
    """

    searcher: Searcher
    scheduler: TrialScheduler
    row_of: Callable[[dict[str, Any]], int]
    max_pending: int
    num_samples: float = math.inf
    callbacks: Sequence[Callback] = ()
    give_up: Callable[[str], None] = lambda trial_id: None
    fault: Callable[[], Exception | None] = lambda: None


@dataclass(eq=False)
class VirtualTrial:
    """A stand-in for Tune's Trial, with what searchers, schedulers and callbacks read of one.

    Attributes:
        trial_id: its name.
        config: what the searcher suggested.
        row: the recorded configuration that it replays.
        status: in Tune's words.
        last_result: the newest result.
        epochs: epochs done.
        event: the number of the event that it waits for.
        ended: how it ended: "done", "stopped", "cut" (its recorded curve ended), or "" while it lives.
        is_saving: never.
        run_metadata: empty.
    """

    trial_id: str
    config: dict[str, Any]
    row: int
    status: str = Trial.PENDING
    last_result: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    event: int = -1
    ended: str = ""
    is_saving: bool = False
    run_metadata: SimpleNamespace = field(default_factory=SimpleNamespace)


@dataclass(frozen=True)
class Bounds:
    """When a simulated search ends.

    Attributes:
        num_trials: trials that the sampler proposes.
        max_epochs: epochs of a trial that is not stopped.
        total_epochs: epochs of all trials together.
        time_s: time on the virtual clock, in seconds.
    """

    num_trials: int
    max_epochs: int
    total_epochs: float = math.inf
    time_s: float = math.inf


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened in a simulated search, an element for each of R results.

    Attributes:
        time_s: (R,) when it arrived, in seconds of the virtual clock.
        value: (R,) the objective.
        epoch: (R,) the trial's epoch.
        trials: all trials in the order of their suggestion.
        suggest_s: (T,) real time that the searcher took for each trial.
        result_s: (R,) real time that searcher, scheduler and callbacks took for each result.
        place_s: real time that the scheduler took to choose which trial runs next, in all.
    """

    time_s: np.ndarray
    value: np.ndarray
    epoch: np.ndarray
    trials: Sequence[VirtualTrial]
    suggest_s: np.ndarray
    result_s: np.ndarray
    place_s: float


class VirtualTune:
    """Runs one search; to searchers and schedulers it is Tune's controller.

    Args:
        stack: what decides.
        curves: what the workers would have measured.
        num_workers: trials that run side by side.
        bounds: when to end.
        timer: the clock, in seconds, that weighs the stack's own work.
    """

    def __init__(
        self,
        stack: Stack,
        curves: Curves,
        *,
        num_workers: int,
        bounds: Bounds,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._stack = stack
        self._curves = curves
        self._free = num_workers
        self._bounds = bounds
        self._timer = timer
        self._trials: list[VirtualTrial] = []
        self._live: dict[str, VirtualTrial] = {}
        self._pending: dict[str, VirtualTrial] = {}
        self._num_paused = 0
        self._finished = False
        self._now = 0.0
        self._events: list[tuple[float, int, VirtualTrial]] = []
        self._numbers = itertools.count()
        self._results: list[tuple[float, float, int]] = []
        self._suggest_s: list[float] = []
        self._result_s: list[float] = []
        self._place_s = 0.0
        self.search_alg = SimpleNamespace(searcher=stack.searcher)

    def get_trials(self) -> list[VirtualTrial]:
        """All trials, as schedulers ask for them."""
        return self._trials

    def get_live_trials(self) -> set[VirtualTrial]:
        """Trials that have not ended, as schedulers ask for them."""
        return set(self._live.values())

    def run(self) -> Trace:
        """Run until nothing is left to do or a limit is met.

        Raises:
            Exception: what searcher, scheduler or callbacks kept: a search that it cut short says nothing of regret.
        """
        self._fill()
        while self._events and len(self._results) < self._bounds.total_epochs:
            now, number, trial = heapq.heappop(self._events)
            if trial.event != number:
                continue  # it was stopped or paused since
            if now > self._bounds.time_s:
                break
            self._now = now
            before = self._timer()
            self._take_result(trial)
            self._result_s.append(self._timer() - before)
            self._fill()
        times, values, epochs = zip(*self._results, strict=True) if self._results else ((), (), ())
        return Trace(
            np.array(times, float), np.array(values, float), np.array(epochs, int), self._trials,
            np.array(self._suggest_s), np.array(self._result_s), self._place_s,
        )  # fmt: skip

    def _fill(self) -> None:
        """Ask for trials and start them, until no worker is free or nobody wants one."""
        while self._ask() | self._start():
            pass
        fault = self._stack.fault()
        if fault is not None:
            raise fault

    def _ask(self) -> bool:
        """Add one trial to the queue, if it has room and the searcher has one."""
        full = len(self._pending) >= self._stack.max_pending or len(self._trials) >= self._stack.num_samples
        if self._finished or full:
            return False
        trial_id = f"{len(self._trials):08d}"
        before = self._timer()
        config = self._stack.searcher.suggest(trial_id)
        suggest_s = self._timer() - before
        if config is None or config == Searcher.FINISHED:
            self._finished = config is not None
            return False
        trial = VirtualTrial(trial_id, config, self._stack.row_of(config))
        self._trials.append(trial)
        self._live[trial_id] = self._pending[trial_id] = trial
        self._suggest_s.append(suggest_s)
        self._stack.scheduler.on_trial_add(self, trial)
        return True

    def _start(self) -> bool:
        """Give a free worker to the trial that the scheduler chooses, else to the one that waits longest."""
        if not self._free or not (self._pending or self._num_paused):
            return False
        before = self._timer()
        trial = self._stack.scheduler.choose_trial_to_run(self)
        self._place_s += self._timer() - before
        trial = trial or next(iter(self._pending.values()), None)
        if trial is None:
            return False
        self._set_status(trial, Trial.RUNNING)
        for callback in self._stack.callbacks:
            callback.on_trial_start(len(self._results), self._trials, trial)
        self._schedule(trial)
        return True

    def _schedule(self, trial: VirtualTrial) -> None:
        trial.event = next(self._numbers)
        due = self._now + float(self._curves.seconds[trial.row][trial.epochs])
        heapq.heappush(self._events, (due, trial.event, trial))

    def _set_status(self, trial: VirtualTrial, status: str) -> None:
        self._pending.pop(trial.trial_id, None)
        self._num_paused += (status == Trial.PAUSED) - (trial.status == Trial.PAUSED)
        self._free += (trial.status == Trial.RUNNING) - (status == Trial.RUNNING)
        trial.status, trial.event = status, -1
        if status == Trial.TERMINATED:
            del self._live[trial.trial_id]

    def _take_result(self, trial: VirtualTrial) -> None:
        result = self._measure(trial)
        decision = self._stack.scheduler.on_trial_result(self, trial, result)
        if decision == TrialScheduler.STOP:
            result["done"] = True
        else:
            self._stack.searcher.on_trial_result(trial.trial_id, result)
        for callback in self._stack.callbacks:
            callback.on_trial_result(len(self._results), self._trials, trial, result)
        trial.last_result = result
        if trial.status != Trial.RUNNING:
            return  # the scheduler stopped it itself
        if decision == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif trial.epochs == self._length(trial):
            # As of a training function that returns: the scheduler was asked, and is told of the end.
            self._stack.give_up(trial.trial_id)
            self.stop_trial(trial)
        elif decision == TrialScheduler.PAUSE:
            self.pause_trial(trial)
        else:
            self._schedule(trial)

    def _length(self, trial: VirtualTrial) -> int:
        return min(self._bounds.max_epochs, len(self._curves.values[trial.row]))

    def _measure(self, trial: VirtualTrial) -> dict[str, Any]:
        """The trial's next epoch, as a worker would report it."""
        value = float(self._curves.values[trial.row][trial.epochs])
        epoch_s = float(self._curves.seconds[trial.row][trial.epochs])
        trial.epochs += 1
        self._results.append((self._now, value, trial.epochs))
        return {
            "trial_id": trial.trial_id,
            "training_iteration": trial.epochs,
            "epoch": trial.epochs,
            "epoch_s": epoch_s,
            "time_this_iter_s": epoch_s,
            "time_total_s": trial.last_result.get("time_total_s", 0.0) + epoch_s,
            OBJECTIVE: value,
            METRIC: value,
            "diverged": False,
            "done": False,
        }

    def stop_trial(self, trial: VirtualTrial) -> None:
        """End a trial, as Tune does on a scheduler's word."""
        if trial.status == Trial.TERMINATED:
            return
        if trial.status == Trial.RUNNING:
            self._stack.scheduler.on_trial_complete(self, trial, trial.last_result)
            self._stack.searcher.on_trial_complete(trial.trial_id, result=trial.last_result)
        else:
            self._stack.scheduler.on_trial_remove(self, trial)
            self._stack.searcher.on_trial_complete(trial.trial_id)
        for callback in self._stack.callbacks:
            callback.on_trial_complete(len(self._results), self._trials, trial)
        cut = trial.epochs == len(self._curves.values[trial.row])
        trial.ended = "done" if trial.epochs == self._bounds.max_epochs else "cut" if cut else "stopped"
        self._set_status(trial, Trial.TERMINATED)

    def pause_trial(self, trial: VirtualTrial, should_checkpoint: bool = True) -> None:
        """Take a trial off its worker; it goes on from where it was when the scheduler chooses it again."""
        self._set_status(trial, Trial.PAUSED)
