"""When a trial is stopped early: rules in whole numbers over what the trials of one space have reported.

A rule's state follows from the reports alone, in any order that keeps each trial's own: it is rebuilt from the study.
"""

import bisect
from collections.abc import Sequence
from typing import Protocol

from galaxy_models.seeds import derive_seed
from galaxy_models.task import Direction

REDUCTION_FACTOR = 3
RULES = ("asha", "hyperband", "median", "none")
# Population based training stops by no rule of its own: see `search.population`.
SCHEDULERS = (*RULES, "pbt")
# The median rule waits for so many trials at an epoch before it judges.
MIN_MEDIAN_TRIALS = 5


def rung_epochs(max_epochs: int, *, first: int = 1) -> tuple[int, ...]:
    """The epochs after which trials are compared, in ascending order: 1, 3, 9, 27 ...

    Counted in whole numbers: a logarithm loses the rung at 81 of 243 epochs, since log(243)/log(3) = 4.999...

    Args:
        max_epochs: epochs of a trial that is never stopped; not a rung, since nothing is left to stop.
        first: the lowest rung.
    """
    rungs = []
    epochs = first
    while epochs < max_epochs:
        rungs.append(epochs)
        epochs *= REDUCTION_FACTOR
    return tuple(rungs)


class StoppingRule(Protocol):
    """Says after each epoch whether a trial goes on."""

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Take note of a trial's finite value after an epoch, and decide.

        Args:
            number: the trial's number in its study.
            epoch: counted from 1.
            value: the objective.
        """
        ...


class NoStopping:
    """Every trial runs to its end."""

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Always."""
        return True


class Asha:
    """Asynchronous successive halving, which stops and never revives.

    A trial goes on past a rung if it is among the best third, rounded up, of all that have reached the rung so far,
    itself included. Of equal values the earlier ranks higher. Rounded down, fewer than one in three would go on.

    Args:
        rungs: ascending epochs.
        direction: which way is better.

    Source:
        Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934; the stopping
        variant.
    """

    def __init__(self, rungs: Sequence[int], direction: Direction) -> None:
        self._sign = 1.0 if direction == "min" else -1.0
        self._values: dict[int, list[float]] = {epochs: [] for epochs in rungs}

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Compare at a rung; between rungs always go on."""
        values = self._values.get(epoch)
        if values is None:
            return True
        rank = bisect.bisect_right(values, self._sign * value)
        values.insert(rank, self._sign * value)
        return rank < -(-len(values) // REDUCTION_FACTOR)


class Hyperband:
    """Asynchronous HyperBand: several ASHAs whose lowest rungs differ, so that slow starters have a chance.

    A trial's bracket is drawn from its number, in HyperBand's proportions: the bracket that stops earliest gets the
    most trials.

    Args:
        max_epochs: epochs of a trial that is not stopped.
        direction: which way is better.
        seed: of the draw.

    Source:
        Li et al. 2018, "Hyperband", JMLR 18, algorithm 1.
    """

    def __init__(self, max_epochs: int, direction: Direction, *, seed: int) -> None:
        self._seed = seed
        firsts = rung_epochs(max_epochs) or (1,)
        self._brackets = [Asha(rung_epochs(max_epochs, first=first), direction) for first in firsts]
        top = len(firsts)
        shares = [-(-(top + 1) * REDUCTION_FACTOR**left // (left + 1)) for left in range(top, 0, -1)]
        self._places = [index for index, share in enumerate(shares) for _ in range(share)]

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Compare within the trial's bracket."""
        place = derive_seed(self._seed, "bracket", number) % len(self._places)
        return self._brackets[self._places[place]].goes_on(number, epoch, value)


class MedianRule:
    """Stops a trial whose best value so far is worse than the median of the others' running means at that epoch.

    Args:
        direction: which way is better.

    Source:
        Golovin et al. 2017, "Google Vizier", KDD, section 3.2.2.
    """

    def __init__(self, direction: Direction) -> None:
        self._sign = 1.0 if direction == "min" else -1.0
        self._sums: dict[int, tuple[float, int, float]] = {}
        self._means: dict[int, list[float]] = {}

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Compare after every epoch that enough trials have reached."""
        signed = self._sign * value
        total, count, best = self._sums.get(number, (0.0, 0, signed))
        total, count, best = total + signed, count + 1, min(best, signed)
        self._sums[number] = total, count, best
        means = self._means.setdefault(epoch, [])
        median = means[len(means) // 2] if len(means) >= MIN_MEDIAN_TRIALS else None
        bisect.insort(means, total / count)
        return median is None or best <= median


def make_rule(name: str, *, max_epochs: int, direction: Direction, seed: int) -> StoppingRule:
    """Make the stopping rule of one space.

    Args:
        name: one of SCHEDULERS; `pbt` has none.
        max_epochs: epochs of a trial that is not stopped.
        direction: which way the objective is better.
        seed: of draws, where the rule makes any.
    """
    rules: dict[str, StoppingRule] = {
        "asha": Asha(rung_epochs(max_epochs), direction),
        "hyperband": Hyperband(max_epochs, direction, seed=seed),
        "median": MedianRule(direction),
    }
    return rules.get(name, NoStopping())
