"""One space's trials: asks its study for them, takes their epochs down, decides which go on, and closes them.

It knows nothing of Ray, so a simulation can drive it too. Everything it knows follows from the study.
"""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from galaxy_models.seeds import derive_seed
from search.entry import (
    DUPLICATE_OF,
    EPOCH,
    FINALIST_OF,
    GPU_S,
    PROMOTED_FROM,
    STATES,
    SURVEY_DIGEST,
    WAITS_FOR,
    Entry,
    Outcome,
    better,
    end_time,
    epoch_metrics,
    read_entry,
)
from search.population import GENERATIONS_DONE, Population, made_way, selected
from search.proposals import Proposals
from search.ranking import Ranking
from search.rungs import make_rule
from search.samplers import SamplerPlan
from search.space import Space
from search.terms import Terms


class Account:
    """The trials of one space.

    Attributes:
        name: the space's name.
        study: its study.
        terms: what it was given.
        started: trials started, not counted those that run one again to the full length or go on from one.
        num_branches: trials that go on from one of their population.
        counts: ended trials by outcome.
        live: trials that have not ended, by number.
        unfinished: of those, the ones that are to go on and that nobody runs yet: an earlier session left them behind,
            or a generation of a population has begun.
        ranking: ended trials with a value that did not fail, best first.
        replaced: trials that made way for others of their population in this session, by number.
        since_best: trials ended since the best value was reached; those run again to the full length not counted.
        spent_epochs, spent_gpu_s: what was trained so far; the seconds times the GPUs that each trial had then.
    """

    def __init__(self, space: Space, study: optuna.Study, sampler: SamplerPlan, terms: Terms) -> None:
        self.name = space.name
        self.study = study
        self.terms = terms
        self._proposals = Proposals(space, study, sampler, terms)
        self._ranking = Ranking(terms)
        self._rule = make_rule(
            terms.scheduler,
            max_epochs=terms.max_epochs,
            direction=terms.direction,
            seed=derive_seed(terms.seed, "rule", space.name),
        )
        self._twins: dict[str, list[Entry]] = {}
        self._followers: dict[int, list[Entry]] = {}
        self._micro_batches: dict[int | None, int] = {}
        self._population = Population.of(terms, study.user_attrs) if terms.population else None
        self.num_branches = 0
        self.started = 0
        self.counts: Counter[str] = Counter()
        self.live: dict[int, Entry] = {}
        self.unfinished: list[Entry] = []
        self.replaced: dict[int, Entry] = {}
        self.since_best = 0
        self.spent_epochs = 0
        self.spent_gpu_s = 0.0
        trials = study.get_trials(deepcopy=False)
        entries = [self._take_over(trial) for trial in trials]
        # In the order of their ends, as when they ended: patience and the sampler's history go by it.
        for trial in sorted((one for one in trials if one.state.is_finished()), key=end_time):
            del self.live[trial.number]
            self._note_end(entries[trial.number])
        self.unfinished = [entry for entry in self.unfinished if not self._rests(entry, trials[entry.number])]

    def _take_over(self, trial: optuna.trial.FrozenTrial) -> Entry:
        entry = read_entry(self.name, trial, objective=self.terms.objective, direction=self.terms.direction)
        for epoch, metrics in epoch_metrics(trial).items():
            self._judge(entry, epoch, metrics[self.terms.objective])
            self._note_memory(entry, metrics)
            self.spent_gpu_s += metrics.get(GPU_S, 0.0)
        self.spent_epochs += entry.own_epochs
        if entry.outcome is None and entry.survey_digest != self.terms.survey_digest:
            # It goes on with the survey of today; what comes of two surveys is nobody else's result.
            entry.survey_digest = None if entry.epochs or entry.parent is not None else self.terms.survey_digest
            self.study._storage.set_trial_user_attr(entry.trial_id, SURVEY_DIGEST, entry.survey_digest)
        self._note_start(entry, trial.user_attrs)
        if (other := trial.user_attrs.get(WAITS_FOR)) is not None and entry.outcome is None:
            self._followers.setdefault(other, []).append(entry)
        elif entry.outcome is None:
            self.unfinished.append(entry)
            if self._population is not None and entry.parent is not None and not entry.own_epochs:
                self._population.hold(entry)
        return entry

    def _rests(self, entry: Entry, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether a trial that an earlier session left behind waits for others of its population."""
        population = self._population
        if population is None or entry.rerun_of is not None:
            return False
        value = trial.intermediate_values.get(entry.epochs, math.nan)
        return population.arrive(entry, value) or entry.number in population.held

    @property
    def ranking(self) -> list[Entry]:
        """Ended trials with a value that did not fail, best first."""
        return self._ranking.entries()

    @property
    def best(self) -> Entry | None:
        """The best ended trial that did not fail."""
        return self._ranking.best

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
        return self._ranking.entries(places)

    def value_to_beat(self, place: int = 1) -> float:
        """The value of the ended trial in this place of the ranking; NaN if there are not so many."""
        return self._ranking.value(place)

    def micro_batch(self, image_px: int | None) -> int | None:
        """Images that an earlier trial with images of this size had in memory at once; None if no trial ran out."""
        return self._micro_batches.get(image_px)

    @property
    def num_trials(self) -> int:
        """Trials of the study so far."""
        return self.started + self._ranking.num_reruns + self.num_branches

    def promotion(self) -> Entry | None:
        """See `Ranking`."""
        return self._ranking.promotion()

    def finalist(self, places: int) -> Entry | None:
        """See `Ranking`."""
        return self._ranking.finalist(places)

    def ask(self, quota: int) -> Entry | None:
        """Start a trial; None if what the sampler proposed last has run already and no trial is left.

        Args:
            quota: trials that the space may have had then.

        Raises:
            SpaceError: the space file failed.
        """
        while self.started < quota:
            params, attrs = self._proposals.next()
            entry = self._proposals.start(self.num_trials, list(self.live.values()), params=params, attrs=attrs)
            self._note_start(entry, attrs)
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
        again = self._proposals.run_again(self.num_trials, list(self.live.values()), origin=entry, why=why)
        self._note_start(again, {why: entry.root})
        return again

    def _note_start(self, entry: Entry, attrs: Mapping[str, Any]) -> None:
        entry.rerun_of = attrs.get(FINALIST_OF, attrs.get(PROMOTED_FROM))
        self.live[entry.number] = entry
        self._ranking.note_start(entry)
        self.num_branches += entry.parent is not None
        if not entry.is_extra:
            self.started += 1
            if DUPLICATE_OF not in attrs and attrs.get(WAITS_FOR) is None:
                self._twins.setdefault(entry.digest, []).append(entry)
        self._proposals.note_start(attrs)

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
        if self._population is None or entry.outcome is not None or entry.rerun_of is not None:
            return entry.outcome is None
        self._let_go_of_parent(entry)
        return not self._population.arrive(entry, value)

    def _let_go_of_parent(self, entry: Entry) -> None:
        """Let the trial that another began from go on."""
        assert self._population is not None
        number = self._population.let_go(entry)
        if number is not None and number in self.live:
            self.unfinished.append(self.live[number])

    @property
    def going_on(self) -> list[Entry]:
        """Trials that have not ended, but for those that wait for the result of another."""
        twins = {entry.number for followers in self._followers.values() for entry in followers}
        return [entry for number, entry in self.live.items() if number not in twins]

    @property
    def is_population(self) -> bool:
        """Whether its trials train side by side."""
        return self._population is not None

    @property
    def rests(self) -> bool:
        """Whether a population has trials that have not ended, and none that can go on."""
        return self._population is not None and bool(self.live) and not self.unfinished

    def end_generation(self) -> None:
        """Once all of a population have come to a generation's end, let new trials take the places of the worst."""
        population = self._population
        if population is None or self.started < population.size:
            return
        members = [entry for entry in self.going_on if entry.rerun_of is None]
        if not members or not population.is_here(members):
            return
        ranked = population.end()
        best, worst = selected(ranked)
        children = self._branches(best, len(worst) + population.size - len(ranked))
        for entry, child in zip(reversed(worst), children, strict=False):
            self.finish(entry, "stopped", made_way(entry, child))
            self.replaced[entry.number] = entry
        self.study.set_user_attr(GENERATIONS_DONE, population.done)
        resting = [entry for entry in ranked if entry.outcome is None and entry.number not in population.held]
        self.unfinished += [*children, *resting]

    def _branches(self, best: Sequence[Entry], num: int) -> list[Entry]:
        """Make trials that are to go on from one of the best each, no two alike; fewer where no more can be."""
        assert self._population is not None
        children: list[Entry] = []
        origins = list(best)
        while origins and len(children) < num:
            number = self.num_trials
            rng = random.Random(derive_seed(self.terms.seed, "population", self.name, number, len(origins)))  # noqa: S311
            origin = rng.choice(origins)
            siblings = [entry for entry in children if entry.parent == origin.number]
            entry = self._proposals.branch(number, list(self.live.values()), origin=origin, siblings=siblings, rng=rng)
            if entry is None:
                origins.remove(origin)
                continue
            self._note_start(entry, {})
            self._population.hold(entry)
            children.append(entry)
        return children

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
        if self._population is not None:
            self._let_go_of_parent(entry)

    def _note_end(self, entry: Entry) -> None:
        outcome = entry.outcome
        assert outcome is not None
        self.counts[outcome] += 1
        self.since_best += not entry.is_extra
        self._proposals.note_end(entry)
        self._ranking.note_end(entry)
        # That a stopped trial does better when it is run in full does not say that more is to be found.
        if self.best is entry and entry.rerun_of is None:
            self.since_best = 0

    def _wait_for(self, entry: Entry, twin: Entry) -> None:
        """Let a trial wait for the result of one that runs and has the same configuration."""
        self._followers.setdefault(twin.number, []).append(entry)
        self.study._storage.set_trial_user_attr(entry.trial_id, WAITS_FOR, twin.number)

    def _answer_followers(self, twin: Entry) -> None:
        """Give the trials that waited for one its result; where that is none, the first of them runs itself."""
        followers = self._followers.pop(twin.number, [])
        # One that learned from two surveys has a result as little as one that failed.
        if twin.outcome != "failed" and twin.survey_digest is not None:
            for entry in followers:
                self._reuse(entry, twin)
        elif followers:
            first, *others = followers
            self.study._storage.set_trial_user_attr(first.trial_id, WAITS_FOR, None)
            self._twins.setdefault(first.digest, []).append(first)
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
