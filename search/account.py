"""One space's trials: asks its study for them, takes their epochs down, decides which go on, and closes them.

It knows nothing of Ray, so a simulation can drive it too. Everything it knows follows from the study.
"""

import math
import traceback
from bisect import insort
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.trial import TrialState

from galaxy_models.config import TrainConfig
from galaxy_models.seeds import derive_seed
from galaxy_models.task import Direction
from search.entry import (
    DUPLICATE_OF,
    EPOCH,
    FINALIST_OF,
    GPU_S,
    PROMOTED_FROM,
    STATES,
    WAITS_FOR,
    Entry,
    Outcome,
    better,
    end_time,
    epoch_metrics,
    read_entry,
)
from search.rungs import REDUCTION_FACTOR, make_rule
from search.samplers import MAX_RUNNING, History, SamplerPlan
from search.space import Space

# The study's attribute that lists configurations to run before the sampler's own.
QUEUE = "queue"
QUEUED = "queued"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What every space of a search is given alike.

    Attributes:
        max_epochs: epochs of a trial that is not stopped.
        objective: the result's key that is optimised, such as `val_nll`.
        direction: which way is better.
        seed: the run's seed.
        scheduler: the stopping rule, one of `rungs.SCHEDULERS`.
        repeats: how often the same configuration may be run; further times its recorded result is used.
        overrides: fields of TrainConfig that the command line sets for every trial.
    """

    max_epochs: int
    objective: str
    direction: Direction
    seed: int
    scheduler: str = "asha"
    repeats: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)


class Account:
    """The trials of one space.

    Attributes:
        name: the space's name.
        study: its study.
        terms: what it was given.
        started: trials started, those run again to the full length not counted.
        counts: ended trials by outcome.
        live: trials that have not ended, by number.
        unfinished: of those, the ones that an earlier session left behind and that nobody runs yet.
        ranking: ended trials with a value that did not fail, best first.
        since_best: trials ended since the best value was reached; those run again to the full length not counted.
        spent_epochs, spent_gpu_s: what was trained so far; the seconds times the GPUs that each trial had then.
    """

    def __init__(self, space: Space, study: optuna.Study, sampler: SamplerPlan, terms: Terms) -> None:
        self.name = space.name
        self.study = study
        self.terms = terms
        self._space = space
        self._sampler = sampler
        self._rule = make_rule(
            terms.scheduler,
            max_epochs=terms.max_epochs,
            direction=terms.direction,
            seed=derive_seed(terms.seed, "rule", space.name),
        )
        self._history = History(terms.direction)
        self._sign = 1.0 if terms.direction == "min" else -1.0
        self._ranked: list[tuple[float, int, Entry]] = []
        self._twins: dict[str, list[Entry]] = {}
        self._followers: dict[int, list[Entry]] = {}
        self._rerun: set[tuple[int, int]] = set()
        self._failed_reruns: set[int] = set()
        self._micro_batches: dict[int | None, int] = {}
        self._next_queued = 0
        self._has_shorter = False
        self.started = 0
        self.counts: Counter[str] = Counter()
        self.live: dict[int, Entry] = {}
        self.unfinished: list[Entry] = []
        self.since_best = 0
        self.spent_epochs = 0
        self.spent_gpu_s = 0.0
        self._queue: list[dict[str, Any]] = list(study.user_attrs.get(QUEUE, []))
        trials = study.get_trials(deepcopy=False)
        entries = [self._take_over(trial) for trial in trials]
        # In the order of their ends, as when they ended: patience and the sampler's history go by it.
        for trial in sorted((one for one in trials if one.state.is_finished()), key=end_time):
            del self.live[trial.number]
            self._note_end(entries[trial.number])

    def _take_over(self, trial: optuna.trial.FrozenTrial) -> Entry:
        entry = read_entry(self.name, trial, objective=self.terms.objective, direction=self.terms.direction)
        for epoch, metrics in epoch_metrics(trial).items():
            self._judge(entry, epoch, metrics[self.terms.objective])
            self._note_memory(entry, metrics)
            self.spent_gpu_s += metrics.get(GPU_S, 0.0)
        self.spent_epochs += entry.epochs
        self._note_start(entry, trial.user_attrs)
        if (other := trial.user_attrs.get(WAITS_FOR)) is not None and entry.outcome is None:
            self._followers.setdefault(other, []).append(entry)
        elif entry.outcome is None:
            self.unfinished.append(entry)
        return entry

    @property
    def ranking(self) -> list[Entry]:
        """Ended trials with a value that did not fail, best first."""
        return [entry for _, _, entry in self._ranked]

    @property
    def best(self) -> Entry | None:
        """The best ended trial that did not fail."""
        return self._ranked[0][2] if self._ranked else None

    @property
    def leader(self) -> Entry | None:
        """The trial with the best value so far, running ones included; None before the first epoch."""
        leader = self.best
        for entry in self.live.values():
            if better(entry.best_value, leader.best_value if leader else math.nan, self.terms.direction):
                leader = entry
        return leader

    def top(self, places: int) -> list[Entry]:
        """The first places of the ranking, which is not written out for it."""
        return [entry for _, _, entry in self._ranked[:places]]

    def value_to_beat(self, place: int = 1) -> float:
        """The value of the ended trial in this place of the ranking; NaN if there are not so many."""
        return self._ranked[place - 1][2].best_value if len(self._ranked) >= place else math.nan

    def micro_batch(self, image_px: int | None) -> int | None:
        """Images that an earlier trial with images of this size had in memory at once; None if no trial ran out."""
        return self._micro_batches.get(image_px)

    @property
    def num_trials(self) -> int:
        """Trials of the study so far."""
        return self.started + len(self._rerun)

    def promotion(self) -> Entry | None:
        """A complete trial to run again because trials may be longer now than they were: one of the best third."""
        if not self._has_shorter:
            return None
        shorter: dict[int, Entry] = {}
        for entry in self.ranking:
            if entry.outcome == "complete" and entry.max_epochs < self.terms.max_epochs:
                shorter.setdefault(entry.root, entry)
        chosen = list(shorter.values())[: -(-len(shorter) // REDUCTION_FACTOR)]
        return next((entry for entry in chosen if (entry.root, self.terms.max_epochs) not in self._rerun), None)

    def finalist(self, places: int) -> Entry | None:
        """A stopped trial of one of the best configurations that was not run again to the full length yet.

        Args:
            places: how many configurations; a trial that ran one again takes no place of its own, nor does one that
                failed when it was run again.
        """
        seen: set[str] = set()
        for _, _, entry in self._ranked:
            if entry.digest in seen or entry.root in self._failed_reruns:
                continue
            if len(seen) == places:
                break
            if entry.outcome == "stopped" and (entry.number, self.terms.max_epochs) not in self._rerun:
                return entry
            seen.add(entry.digest)
        return None

    def ask(self, quota: int) -> Entry | None:
        """Start a trial; None if what the sampler proposed last has run already and no trial is left.

        Args:
            quota: trials that the space may have had then.

        Raises:
            SpaceError: the space file failed.
        """
        while self.started < quota:
            params, attrs = self._next_in_queue()
            entry = self._start(params, attrs)
            twins = [one for one in self._twins[entry.digest] if one is not entry and one.outcome != "failed"]
            if len(twins) < self.terms.repeats:
                return entry
            self._twins[entry.digest].remove(entry)
            ended = [one for one in twins if one.outcome is not None]
            if ended:
                self._reuse(entry, ended[0])
            else:
                self._wait_for(entry, twins[0])
        return None

    def run_again(self, entry: Entry, why: str) -> Entry:
        """Start a trial with another's configuration and seed, to the full length.

        Args:
            entry: the other.
            why: FINALIST_OF or PROMOTED_FROM.
        """
        return self._start(entry.params, {why: entry.root, "reason": ""}, seed=entry.config["seed"])

    def _next_in_queue(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        if self._next_queued < len(self._queue):
            item = self._queue[self._next_queued]
            return item["params"], {**item["attrs"], QUEUED: self._next_queued}
        return None, {}

    def _start(self, params: dict[str, Any] | None, attrs: dict[str, Any], *, seed: int | None = None) -> Entry:
        running = list(self.live)[-MAX_RUNNING:]
        trials = [self.study._storage.get_trial(self.live[number].trial_id) for number in running]
        number = self.num_trials
        self.study.sampler = self._sampler.make(number, [*self._history.selected(), *trials])
        if params is not None:
            self.study.enqueue_trial(params, user_attrs=attrs)
            trial = self.study.ask()
        else:
            # As `ask` does, but for its look through all trials for one that waits: there is none.
            self.study._thread_local.cached_all_trials = None
            trial = optuna.Trial(self.study, self.study._storage.create_new_trial(self.study._study_id))
        assert trial.number == number, f"trial {trial.number} of {self.name}, expected {number}"
        try:
            config = self._space.config(trial)
        except Exception as error:
            trial.set_user_attr("reason", "".join(traceback.format_exception_only(error)).strip())
            self.study.tell(trial, state=TrialState.FAIL)
            raise
        config = self._complete(config, number if seed is None else None, seed)
        trial.set_user_attr("config", config.to_dict())
        entry = Entry(self.name, number, trial._trial_id, config.to_dict(), dict(trial.params))
        self._note_start(entry, attrs)
        return entry

    def _complete(self, config: TrainConfig, number: int | None, seed: int | None) -> TrainConfig:
        if seed is None:
            assert number is not None
            seed = derive_seed(self.terms.seed, "trial", self.name, number)
        return replace(config, epochs=self.terms.max_epochs, seed=seed, **self.terms.overrides)

    def _note_start(self, entry: Entry, attrs: Mapping[str, Any]) -> None:
        entry.rerun_of = attrs.get(FINALIST_OF, attrs.get(PROMOTED_FROM))
        self.live[entry.number] = entry
        if entry.rerun_of is not None:
            self._rerun.add((entry.rerun_of, entry.max_epochs))
        else:
            self.started += 1
            if DUPLICATE_OF not in attrs and attrs.get(WAITS_FOR) is None:
                self._twins.setdefault(entry.digest, []).append(entry)
        if QUEUED in attrs:
            self._next_queued = max(self._next_queued, attrs[QUEUED] + 1)

    def report(self, entry: Entry, metrics: Mapping[str, float]) -> bool:
        """Take one epoch down and decide; a trial that does not go on is closed.

        Args:
            entry: a live trial.
            metrics: what was measured; has `epoch` (from 1), `epoch_s` and the objective.

        Returns:
            Whether the trial goes on.
        """
        epoch, value = int(metrics["epoch"]), float(metrics[self.terms.objective])
        if epoch <= entry.epochs:
            return True  # told again by a worker that was started again
        entry.note(epoch, value, float(metrics["epoch_s"]), self.terms.direction)
        self.spent_epochs += 1
        self.spent_gpu_s += metrics.get(GPU_S, 0.0)
        self._note_memory(entry, metrics)
        storage = self.study._storage
        storage.set_trial_user_attr(entry.trial_id, f"{EPOCH}{epoch}", dict(metrics))
        if math.isfinite(value):
            storage.set_trial_intermediate_value(entry.trial_id, epoch, value)
        goes_on = self._judge(entry, epoch, value)
        if epoch >= entry.max_epochs:
            self._end_of(entry)
        elif not goes_on:
            self.finish(entry, "stopped", f"stopped by {self.terms.scheduler} after epoch {epoch}")
        return entry.outcome is None

    def _note_memory(self, entry: Entry, metrics: Mapping[str, float]) -> None:
        size = metrics.get("micro_batch")
        if size is not None and size < entry.config["batch_size"]:
            self.remember_micro_batch(entry.config["image_px"], int(size))

    def remember_micro_batch(self, image_px: int | None, size: int) -> None:
        """Let later trials with images of this size begin with so many images at once."""
        self._micro_batches[image_px] = min(size, self._micro_batches.get(image_px, size))

    def _judge(self, entry: Entry, epoch: int, value: float) -> bool:
        """The rule's decision. It judges trials of one length only, and no trial that is run for its full length."""
        if not math.isfinite(value) or entry.max_epochs != self.terms.max_epochs or entry.rerun_of is not None:
            return True
        return self._rule.goes_on(entry.number, epoch, value)

    def _end_of(self, entry: Entry) -> None:
        if entry.best_epoch:
            self.finish(entry, "complete", f"all {entry.max_epochs} epochs")
        else:
            self.finish(entry, "failed", f"{self.terms.objective} was never a finite number")

    def finish(self, entry: Entry, outcome: Outcome, reason: str) -> None:
        """Close a trial in its study; a second call changes nothing.

        A complete trial's value is that of its best epoch, whose weights are the ones that are kept.
        """
        if entry.outcome is not None:
            return
        entry.outcome, entry.reason = outcome, reason
        del self.live[entry.number]
        storage = self.study._storage
        for name in ("best_epoch", "seconds", "reason"):
            storage.set_trial_user_attr(entry.trial_id, name, getattr(entry, name))
        value = entry.best_value if outcome == "complete" else None
        if outcome == "stopped":
            # As Optuna tells a pruned trial: its value is the last one it reported.
            trial = storage.get_trial(entry.trial_id)
            value = None if trial.last_step is None else trial.intermediate_values[trial.last_step]
        storage.set_trial_state_values(entry.trial_id, state=STATES[outcome], values=None if value is None else [value])
        self._note_end(entry)
        self._answer_followers(entry)

    def _note_end(self, entry: Entry) -> None:
        outcome = entry.outcome
        assert outcome is not None
        self.counts[outcome] += 1
        self.since_best += entry.rerun_of is None
        self._has_shorter |= entry.max_epochs < self.terms.max_epochs
        self._history.add(self.study._storage.get_trial(entry.trial_id))
        if entry.rerun_of is not None and outcome == "failed":
            self._failed_reruns.add(entry.rerun_of)
        # A trial that took another's result has no weights of its own.
        if outcome != "failed" and entry.epochs and math.isfinite(entry.best_value):
            place = (self._sign * entry.best_value, entry.number, entry)
            insort(self._ranked, place, key=lambda item: item[:2])
            # That a stopped trial does better when it is run in full does not say that more is to be found.
            if self._ranked[0][2] is entry and entry.rerun_of is None:
                self.since_best = 0

    def _wait_for(self, entry: Entry, twin: Entry) -> None:
        """Let a trial wait for the result of one that runs and has the same configuration."""
        self._followers.setdefault(twin.number, []).append(entry)
        self.study._storage.set_trial_user_attr(entry.trial_id, WAITS_FOR, twin.number)

    def _answer_followers(self, twin: Entry) -> None:
        """Give the trials that waited for one its result; where it failed, the first of them runs itself."""
        followers = self._followers.pop(twin.number, [])
        if twin.outcome != "failed":
            for entry in followers:
                self._reuse(entry, twin)
        elif followers:
            first, *others = followers
            self.study._storage.set_trial_user_attr(first.trial_id, WAITS_FOR, None)
            self._twins[first.digest].append(first)
            self.unfinished.append(first)
            for entry in others:
                self._wait_for(entry, first)

    def _reuse(self, entry: Entry, twin: Entry) -> None:
        """Close a trial with the result of one that had the same configuration."""
        storage = self.study._storage
        for step, value in storage.get_trial(twin.trial_id).intermediate_values.items():
            storage.set_trial_intermediate_value(entry.trial_id, step, value)
        storage.set_trial_user_attr(entry.trial_id, DUPLICATE_OF, twin.number)
        entry.best_value, entry.best_epoch = twin.best_value, twin.best_epoch
        assert twin.outcome is not None
        self.finish(entry, twin.outcome, f"the same configuration as trial {twin.number}, whose result is used")
