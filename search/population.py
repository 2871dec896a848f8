"""Population based training: which trials make way at a generation's end, and how those that follow them vary.

All trials of a space train side by side, a generation at a time: at its end the worst quarter is stopped, and as many
new trials begin where the best quarter stands, each with the changeable settings of its forerunner varied. A trial
never changes: what its forerunners did until it began is part of its configuration, which can be trained from scratch.

Source:
    Jaderberg et al. 2017, "Population Based Training of Neural Networks", arXiv:1711.09846; truncation selection.
"""

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from galaxy_models.config import CHANGEABLE, TrainConfig
from galaxy_models.task import Direction
from search.entry import Entry
from search.errors import SpaceError
from search.terms import Terms

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# The study's attribute that says how many epochs the generations of a population that have ended had.
GENERATIONS_DONE = "generations_done"
# One in so many makes way, and as many are followed.
QUANTILE = 4
# The most generations that a trial's epochs are divided into.
NUM_GENERATIONS = 9
# How often settings are drawn until they differ from those before, and from those that others go on with.
_MAX_DRAWS = 20
# How often a parameter is drawn anew; else it becomes larger or smaller by one of the factors.
RESAMPLED = 0.25
FACTORS = (0.8, 1.2)
# What `made_way` says.
_MADE_WAY = re.compile(r"^replaced after epoch \d+ by trial \d+, which goes on from \d+$")


def generation_epochs(max_epochs: int) -> int:
    """Epochs of a generation.

    Args:
        max_epochs: of a whole trial.
    """
    return -(-max_epochs // NUM_GENERATIONS)


def generation_ends(max_epochs: int) -> tuple[int, ...]:
    """The epochs after which generations end, in ascending order; not that of the last, which nobody follows.

    Args:
        max_epochs: of a whole trial.
    """
    epochs = generation_epochs(max_epochs)
    return tuple(range(epochs, max_epochs, epochs))


@dataclass
class Population:
    """Where the trials of one space stand within a generation.

    Attributes:
        size: trials that train side by side.
        epochs: of a generation.
        direction: which way is better.
        done: epochs of the trial that was furthest when the latest generation ended.
        held: trials whose state others are to begin from, which must stay until they have: for the number of each,
            the numbers of those others.
    """

    size: int
    epochs: int
    direction: Direction
    done: int = 0
    held: dict[int, set[int]] = field(default_factory=dict)
    _values: dict[int, tuple[float, Entry]] = field(default_factory=dict)

    @classmethod
    def of(cls, terms: Terms, attrs: Mapping[str, Any]) -> "Population":
        """The population of a space, as far as its study's attributes say that it has come."""
        epochs, done = generation_epochs(terms.max_epochs), attrs.get(GENERATIONS_DONE, 0)
        return cls(size=terms.population, epochs=epochs, direction=terms.direction, done=done)

    def arrive(self, entry: Entry, value: float) -> bool:
        """Whether a trial has come to the end of the generation, and waits there.

        One without a finite value goes on to its next epoch.

        Args:
            entry: the trial.
            value: its objective after its latest epoch.
        """
        if entry.epochs < self.done + self.epochs or not math.isfinite(value):
            return False
        sign = 1.0 if self.direction == "min" else -1.0
        self._values[entry.number] = sign * value, entry
        return True

    def is_here(self, entries: Iterable[Entry]) -> bool:
        """Whether trials have all come to the end of the generation."""
        return all(entry.number in self._values for entry in entries)

    def end(self) -> list[Entry]:
        """End the generation: the trials that came to its end, best first, of equals the earlier first."""
        ranked = [entry for _, entry in sorted(self._values.values(), key=lambda one: (one[0], one[1].number))]
        self.done = max(entry.epochs for entry in ranked)
        self._values.clear()
        return ranked

    def hold(self, child: Entry) -> None:
        """Let the trial that another is to begin from wait for it."""
        assert child.parent is not None
        self.held.setdefault(child.parent, set()).add(child.number)

    def let_go(self, child: Entry) -> int | None:
        """Take down that a trial has begun, or will not; the number of the one that need not wait any more, if any."""
        waiting = self.held.get(child.parent) if child.parent is not None else None
        if waiting is None or child.number not in waiting:
            return None
        waiting.remove(child.number)
        if waiting:
            return None
        del self.held[child.parent]  # type: ignore[arg-type]
        return child.parent


def selected(ranked: Sequence[Entry]) -> tuple[Sequence[Entry], Sequence[Entry]]:
    """The best quarter, at least one, and the worst quarter, at least one of two.

    Args:
        ranked: best first.
    """
    num = max(1, len(ranked) // QUANTILE) if len(ranked) > 1 else 0
    return ranked[: max(1, num)], ranked[len(ranked) - num :]


def made_way(entry: Entry, child: Entry) -> str:
    """Why a trial ended that another takes the place of, in words."""
    return f"replaced after epoch {entry.epochs} by trial {child.number}, which goes on from {child.parent}"


def without_names(reason: str) -> str:
    """Why a trial ended, the same for all that made way to others of their population."""
    return _MADE_WAY.sub("replaced at the end of a generation", reason)


def vary(
    params: Mapping[str, Any],
    distributions: Mapping[str, "BaseDistribution"],
    config_of: Callable[[dict[str, Any]], TrainConfig],
    rng: random.Random,
    *,
    taken: Sequence[Mapping[str, Any]] = (),
) -> tuple[dict[str, Any], TrainConfig] | None:
    """Vary those of a trial's parameters that mean a change of changeable settings and of nothing else.

    Args:
        params: the trial's, by name.
        distributions: where those that may be varied are drawn from, by name.
        config_of: the configuration that parameters mean.
        rng: decides.
        taken: parameters that others go on with from the same trial.

    Returns:
        The varied parameters, and the configuration that they mean, which is that of no other; None where nothing
        (more) can be varied, or the parameters mean no configuration, as the space has become another one.
    """
    try:
        before = config_of(dict(params))
        others = [config_of(dict(one)) for one in taken]
    except SpaceError:
        return None
    for _ in range(_MAX_DRAWS):
        varied = dict(params)
        for name in sorted(distributions):
            other = {**params, name: _other(params[name], distributions[name], rng)}
            if is_change(before, other, config_of):
                varied[name] = other[name]
        if is_change(before, varied, config_of) and (after := config_of(varied)) not in others:
            return varied, after
    return None


def is_change(before: TrainConfig, params: dict[str, Any], config_of: Callable[[dict[str, Any]], TrainConfig]) -> bool:
    """Whether a network that was trained one way can go on with what other parameters mean."""
    try:
        after = config_of(params)
    except SpaceError:
        return False  # another branch of the space, which has parameters of its own
    settings = {name: getattr(before, name) for name in CHANGEABLE}
    return after != before and replace(after, **settings) == before


def _other(value: Any, distribution: Any, rng: random.Random) -> Any:
    choices = getattr(distribution, "choices", None)
    anew = rng.random() < RESAMPLED
    if choices is not None:
        if anew:
            return rng.choice(choices)
        place = choices.index(value) + rng.choice((-1, 1))
        return choices[min(max(place, 0), len(choices) - 1)]
    low, high, step = distribution.low, distribution.high, distribution.step
    factor = rng.choice(FACTORS)
    if not anew:
        found = value * factor
    elif distribution.log:
        found = math.exp(rng.uniform(math.log(low), math.log(high)))
    else:
        found = rng.uniform(low, high)
    if step:
        found = low + round((found - low) / step) * step
    found = min(max(found, low), high)
    return round(found) if type(distribution).__name__.startswith("Int") else float(found)
