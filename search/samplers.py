"""The samplers that propose configurations, each made anew for each trial.

A sampler keeps no state of its own between two trials: its draws are seeded with the trial's number and its knowledge
is what the study holds. A search that was killed therefore goes on as if it had not been.
"""

import importlib.util
import itertools
import math
import warnings
from bisect import insort
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from galaxy_models.seeds import derive_seed
from galaxy_models.task import Direction
from search.errors import RunError
from search.space import fixed_sampler

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Random configurations before the sampler begins to learn, the named ones included.
NUM_STARTUP_TRIALS = 10
# Ended trials that a sampler looks at: the best half of this and the latest half. TPE's time grows with their number.
MAX_HISTORY = 100
MAX_RUNNING = 100
# Values of a continuous parameter, and points in all, on a grid.
GRID_VALUES = 3
MAX_GRID_POINTS = 10_000
_PACKAGES = {"gp": ("scipy",), "cmaes": ("cmaes",), "qmc": ("scipy",), "grid": ()}
# Samplers that go by all trials, at little cost for each.
_NEED_ALL = ("cmaes", "qmc", "grid")
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass
class History:
    """The ended trials of a study that a sampler needs: the best and the latest.

    Attributes:
        direction: which way is better.
        latest: the latest ended trials, in the order of their ends.
    """

    direction: Direction
    latest: deque[FrozenTrial] = field(default_factory=lambda: deque(maxlen=MAX_HISTORY // 2))
    _best: list[tuple[tuple[float, ...], FrozenTrial]] = field(default_factory=list)

    def add(self, trial: FrozenTrial) -> None:
        """Take note of an ended trial; failed ones teach nothing."""
        if trial.state not in _FINISHED:
            return
        self.latest.append(trial)
        insort(self._best, (self._rank(trial), trial), key=lambda item: item[0])
        del self._best[MAX_HISTORY // 2 :]

    def _rank(self, trial: FrozenTrial) -> tuple[float, ...]:
        """As Optuna's TPE ranks: complete trials by value, then pruned ones by how far they came and by value."""
        sign = 1.0 if self.direction == "min" else -1.0
        if trial.state == TrialState.COMPLETE:
            return (0.0, 0.0, sign * (trial.value if trial.value is not None else math.inf))
        step = trial.last_step
        value = math.inf if step is None else sign * trial.intermediate_values[step]
        return (1.0, -float(step or 0), value)

    def selected(self) -> list[FrozenTrial]:
        """The best and the latest, in the order of their numbers."""
        found = {trial.number: trial for trial in itertools.chain((trial for _, trial in self._best), self.latest)}
        return [found[number] for number in sorted(found)]


class _View:
    """A study of which a sampler sees the selected trials only."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self._study = study
        self._trials = list(trials)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, deepcopy: bool = True, states: Any = None, use_cache: bool = False) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]

    get_trials = _get_trials


class BoundedSampler(optuna.samplers.BaseSampler):
    """Shows a sampler a bounded part of the study, so that its time per trial does not grow with the search.

    Args:
        sampler: the sampler proper.
        trials: what it may see: ended and running trials.
    """

    def __init__(self, sampler: optuna.samplers.BaseSampler, trials: Sequence[FrozenTrial]) -> None:
        self._sampler = sampler
        self._trials = trials

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, "BaseDistribution"]:
        """The parameters that are drawn together."""
        return self._sampler.infer_relative_search_space(self._view(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, "BaseDistribution"]
    ) -> dict[str, Any]:
        """Draw them."""
        return self._sampler.sample_relative(self._view(study), trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: "BaseDistribution"
    ) -> Any:
        """Draw a parameter on its own."""
        return self._sampler.sample_independent(self._view(study), trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Let the sampler prepare a trial."""
        self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Nothing: the grid would try to stop a loop that is not Optuna's, and no other keeps anything here."""

    def _view(self, study: optuna.Study) -> Any:
        return _View(study, self._trials)


class GroupingSampler(BoundedSampler):
    """Shows TPE one trial for each set of parameters when it forms its groups of them, as it looks at nothing else.

    A trial with the parameters of an earlier one divides no group any further, and a group keeps the ranges of the
    first trial that has it.
    """

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, "BaseDistribution"]:
        """The parameters that are drawn together."""
        kinds: dict[Any, FrozenTrial] = {}
        for one in self._trials:
            if one.state in _FINISHED:
                kinds.setdefault(frozenset(one.distributions), one)
        return self._sampler.infer_relative_search_space(cast(Any, _View(study, list(kinds.values()))), trial)


class UnboundedSampler(BoundedSampler):
    """Shows a sampler the whole study."""

    def _view(self, study: optuna.Study) -> Any:
        return study


@dataclass(frozen=True, kw_only=True)
class SamplerPlan:
    """How a space's configurations are proposed.

    Attributes:
        name: one of `options.SAMPLERS`.
        space: the space's name; each space draws from generators of its own.
        seed: the run's seed.
        fixed: parameters that keep a value the user gave.
        distributions: where the space's parameters are drawn from; only for a grid.
        kept: what a sampler remembers within a session, and could find out from the study again.
    """

    name: str
    space: str
    seed: int
    fixed: Mapping[str, Any]
    distributions: Mapping[str, "BaseDistribution"] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def make(self, number: int, trials: Sequence[FrozenTrial]) -> optuna.samplers.BaseSampler:
        """Make the sampler of one trial.

        Args:
            number: the trial's number, which seeds its draws.
            trials: the ended and running trials that it may see.
        """
        seed = derive_seed(self.seed, "sampler", self.space, number) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            wrap = UnboundedSampler if self.name in _NEED_ALL else BoundedSampler
            if self.name == "tpe":
                wrap = GroupingSampler
            return fixed_sampler(wrap(self._proper(seed), trials), self.fixed)

    def _proper(self, seed: int) -> optuna.samplers.BaseSampler:
        whole = derive_seed(self.seed, "sampler", self.space) % 2**32
        samplers = optuna.samplers
        startup: dict[str, Any] = {"n_startup_trials": NUM_STARTUP_TRIALS}
        if self.name == "tpe":
            return samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True, **startup)
        if self.name == "gp":
            return samplers.GPSampler(seed=seed, warn_independent_sampling=False, **startup)
        if self.name == "cmaes":
            from search.cma import RetoldCmaEsSampler

            return RetoldCmaEsSampler(
                self.kept, seed=seed, warn_independent_sampling=False, consider_pruned_trials=True, **startup
            )
        if self.name == "qmc":
            # One scrambled sequence for the whole search; the study counts how far it is.
            independent = samplers.RandomSampler(seed=seed)
            quiet: dict[str, Any] = {"warn_asynchronous_seeding": False, "warn_independent_sampling": False}
            return samplers.QMCSampler(seed=whole, scramble=True, independent_sampler=independent, **quiet)
        if self.name == "grid":
            return samplers.GridSampler(grid_values(self.distributions, self.fixed), seed=whole)
        return samplers.RandomSampler(seed=seed)


def check_sampler(name: str, distributions: Mapping[str, "BaseDistribution"], fixed: Mapping[str, Any]) -> None:
    """Check that a sampler can be had and fits a space.

    Raises:
        RunError: a package is missing, or the grid is too large.
    """
    for package in _PACKAGES.get(name, ()):
        if importlib.util.find_spec(package) is None:
            raise RunError(f"--sampler {name}: needs the package {package}: pip install 'galaxy-search[samplers]'")
    if name == "grid":
        grid = grid_values(distributions, fixed)
        points = math.prod(len(values) for values in grid.values())
        if points > MAX_GRID_POINTS:
            raise RunError(
                f"--sampler grid: {points:,} points of {len(grid)} parameters, expected at most {MAX_GRID_POINTS:,}: "
                "keep parameters at one value with --fix"
            )


def grid_values(distributions: Mapping[str, "BaseDistribution"], fixed: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The grid over a space: all choices, whole numbers in at most GRID_VALUES steps, numbers likewise.

    Args:
        distributions: where parameters are drawn from, by name.
        fixed: parameters that keep one value.
    """
    return {
        name: [fixed[name]] if name in fixed else _values(distribution)
        for name, distribution in sorted(distributions.items())
    }


def _values(distribution: Any) -> list[Any]:
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return list(choices)
    low, high, log = distribution.low, distribution.high, distribution.log
    spread = [index / (GRID_VALUES - 1) for index in range(GRID_VALUES)]
    values = [low * (high / low) ** share if log else low + (high - low) * share for share in spread]
    step = distribution.step
    if step:
        values = [low + round((value - low) / step) * step for value in values]
    values = [min(max(value, low), high) for value in values]
    whole = isinstance(distribution, optuna.distributions.IntDistribution)
    return sorted({round(value) if whole else value for value in values})
