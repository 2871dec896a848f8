"""Whose turn it is: how spaces share the trials of a search. Pure functions of where the spaces stand."""

from collections.abc import Sequence
from dataclasses import dataclass

from galaxy_models.task import Direction
from search.entry import better


@dataclass(frozen=True)
class Standing:
    """Where a space stands.

    Attributes:
        name: the space's name.
        started: its trials so far.
        epochs: its epochs so far.
        best: its best value, NaN without one.
    """

    name: str
    started: int
    epochs: int
    best: float


def fewest(standings: Sequence[Standing], quotas: dict[str, int]) -> str | None:
    """The space with the fewest trials, of equals the one with the fewest epochs, that has not had its quota."""
    waiting = [one for one in standings if one.started < quotas[one.name]]
    return min(waiting, key=lambda one: (one.started, one.epochs)).name if waiting else None


def race_quotas(num_spaces: int, total_trials: int, *, at_least: int = 1) -> list[int]:
    """Trials that a space may have had at the end of each round of a race in which each round halves the field.

    Each round spends about the same number of trials, so the survivors of each have twice as many as those of the
    round before.

    Args:
        num_spaces: spaces at the start.
        total_trials: trials of all spaces together.
        at_least: trials that a space has before it may leave, also where that is more than its share.
    """
    fields = [num_spaces]
    while fields[-1] > 1:
        fields.append(-(-fields[-1] // 2))
    quotas: list[int] = []
    had = 0
    for field in fields:
        had += max(1 if quotas else at_least, total_trials // (len(fields) * field))
        quotas.append(had)
    return quotas


def race_round(num_spaces: int, num_racing: int) -> int:
    """The round of a race, from 0: how often the field was halved, rounded up, to leave so many spaces."""
    rounds = 0
    while num_spaces > max(1, num_racing):
        num_spaces, rounds = -(-num_spaces // 2), rounds + 1
    return rounds


def losers(standings: Sequence[Standing], direction: Direction) -> list[str]:
    """The worse half of a field, by best value, of equals the later; the best half, rounded up, stays."""
    order: list[Standing] = []
    for one in standings:
        place = next(
            (index for index, other in enumerate(order) if better(one.best, other.best, direction)), len(order)
        )
        order.insert(place, one)
    return [one.name for one in order[-(-len(order) // 2) :]]
