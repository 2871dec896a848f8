"""A network that was trained on one survey meets the galaxies of another."""

from typing import Any

import numpy as np
import numpy.typing as npt

from galaxy_models.errors import DataError
from galaxy_models.task import Task


def targets_in_order(targets: npt.NDArray[Any], *, survey: Task, network: Task, where: str) -> npt.NDArray[Any]:
    """Bring a survey's targets into the order of a network's answers.

    Args:
        targets: (N,) int64 class indices, or (N, A) vote fractions, in the survey's order.
        survey: what the survey says of its galaxies.
        network: what the network answers.
        where: names the survey, for messages.

    Raises:
        DataError: the two are not about the same classes or vote fractions.
    """
    if survey.kind != network.kind:
        raise DataError(
            f"{where}: its galaxies have {_words(survey)}, the network answers with {_words(network)}: "
            "convert the survey for the same task"
        )
    if set(survey.names) != set(network.names):
        unknown = [name for name in survey.names if name not in network.names]
        absent = [name for name in network.names if name not in survey.names]
        parts = [f"found {', '.join(map(repr, unknown))}"] if unknown else []
        parts += [f"{'but ' if unknown else ''}not {', '.join(map(repr, absent))}"] if absent else []
        raise DataError(
            f"{where}: {' '.join(parts)} among its {survey.kind}, expected those that the network was trained on "
            f"({', '.join(network.names)}): give its classes the same names and leave others out"
        )
    if survey.kind == "classes":
        return np.array([network.names.index(name) for name in survey.names], np.int64)[targets]
    return targets[:, [survey.names.index(name) for name in network.names]]


def _words(task: Task) -> str:
    return f"{task.num_outputs} classes" if task.kind == "classes" else f"{task.num_outputs} vote fractions"
