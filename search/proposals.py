"""Makes one space's trials: what was queued first, then as the sampler proposes."""

import random
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from galaxy_models.config import TrainConfig
from galaxy_models.seeds import derive_seed
from search.entry import BRANCHED_AFTER, PARENT, SURVEY_DIGEST, Entry
from search.population import vary
from search.samplers import MAX_RUNNING, History, SamplerPlan
from search.space import Space
from search.terms import Terms

# The study's attribute that lists configurations to run before the sampler's own.
QUEUE = "queue"
QUEUED = "queued"


class Proposals:
    """The trials that a space's study gets.

    Attributes:
        space: the space.
        sampler: what proposes when nothing is queued.
        history: ended trials, as the sampler sees them.
    """

    def __init__(self, space: Space, study: optuna.Study, sampler: SamplerPlan, terms: Terms) -> None:
        self.space = space
        self.sampler = sampler
        self.history = History(terms.direction)
        self._study = study
        self._terms = terms
        self._queue: list[dict[str, Any]] = list(study.user_attrs.get(QUEUE, []))
        self._next_queued = 0

    def next(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """The next queued configuration's parameters and attributes; None and none where the sampler is to propose."""
        if self._next_queued < len(self._queue):
            item = self._queue[self._next_queued]
            return item["params"], {**item["attrs"], QUEUED: self._next_queued}
        return None, {}

    def note_start(self, attrs: Mapping[str, Any]) -> None:
        """Take note of a trial with these attributes, which may have been queued."""
        if QUEUED in attrs:
            self._next_queued = max(self._next_queued, attrs[QUEUED] + 1)

    def note_end(self, entry: Entry) -> None:
        """Let the sampler know of a trial that has ended."""
        self.history.add(self._study._storage.get_trial(entry.trial_id))

    def start(
        self, number: int, running: Sequence[Entry], *, params: dict[str, Any] | None, attrs: dict[str, Any]
    ) -> Entry:
        """Begin a trial in the study.

        Args:
            number: of the trial.
            running: trials that run beside it.
            params: its parameters; None = the sampler proposes them.
            attrs: what it records of where it came from.

        Raises:
            SpaceError: the space file failed.
        """
        trial = self._make(number, running, params, attrs)
        try:
            config = self.space.config(trial)
        except Exception as error:
            trial.set_user_attr("reason", "".join(traceback.format_exception_only(error)).strip())
            self._study.tell(trial, state=TrialState.FAIL)
            raise
        seed = derive_seed(self._terms.seed, "trial", self.space.name, number)
        return self._enter(trial, {**config.to_dict(), "seed": seed})

    def branch(
        self, number: int, running: Sequence[Entry], *, origin: Entry, siblings: Sequence[Entry], rng: random.Random
    ) -> Entry | None:
        """Begin a trial that goes on from another's state with its settings varied; None where they cannot be.

        Of the space file nothing is asked but what varied parameters mean, as it may have changed since.

        Args:
            number: of the trial.
            running: trials that run beside it.
            origin: the other.
            siblings: trials that go on from the same state, from which it is to differ.
            rng: decides how they are varied.
        """
        found = self._study._storage.get_trial(origin.trial_id)
        free = {name: one for name, one in found.distributions.items() if name not in self.sampler.fixed}
        taken = [entry.params for entry in siblings]
        varied = vary(found.params, free, self.space.config_of, rng, taken=taken)
        if varied is None:
            return None
        params, settings = varied
        trial = self._make(number, running, params, {PARENT: origin.number, BRANCHED_AFTER: origin.epochs})
        for name, distribution in found.distributions.items():
            trial._suggest(name, distribution)
        whole = TrainConfig.from_dict(origin.config).changed(origin.epochs, settings)
        entry = self._enter(trial, whole.to_dict())
        entry.parent, entry.branched_after, entry.epochs = origin.number, origin.epochs, origin.epochs
        return entry

    def _make(
        self, number: int, running: Sequence[Entry], params: dict[str, Any] | None, attrs: dict[str, Any]
    ) -> optuna.Trial:
        study, storage = self._study, self._study._storage
        trials = [storage.get_trial(entry.trial_id) for entry in running[-MAX_RUNNING:]]
        study.sampler = self.sampler.make(number, [*self.history.selected(), *trials])
        if params is not None:
            study.enqueue_trial(params, user_attrs=attrs)
            trial = study.ask()
        else:
            # As `ask` does, but for its look through all trials for one that waits: there is none.
            study._thread_local.cached_all_trials = None
            trial = optuna.Trial(study, storage.create_new_trial(study._study_id))
        assert trial.number == number, f"trial {trial.number} of {self.space.name}, expected {number}"
        return trial

    def run_again(self, number: int, running: Sequence[Entry], *, origin: Entry, why: str) -> Entry:
        """Begin a trial with another's parameters, configuration and seed.

        The space file is not asked, as it may have changed since.

        Args:
            number: of the trial.
            running: trials that run beside it.
            origin: the other.
            why: the attribute that says which it was.
        """
        trial = self._make(number, running, origin.params, {why: origin.root, "reason": ""})
        for name, distribution in self._study._storage.get_trial(origin.trial_id).distributions.items():
            trial._suggest(name, distribution)
        return self._enter(trial, origin.config)

    def _enter(self, trial: optuna.Trial, config: dict[str, Any]) -> Entry:
        """Write down what a trial trains."""
        config = {**config, "epochs": self._terms.max_epochs, **self._terms.overrides}
        survey_digest = self._terms.survey_digest
        trial.set_user_attr("config", config)
        trial.set_user_attr(SURVEY_DIGEST, survey_digest)
        params = dict(trial.params)
        return Entry(self.space.name, trial.number, trial._trial_id, config, params, survey_digest=survey_digest)
