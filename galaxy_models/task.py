"""What a survey asks of a network: one class per galaxy, or the 37 vote fractions of Galaxy Zoo 2."""

from dataclasses import dataclass
from typing import Literal

from galaxy_models.errors import ConfigError

Direction = Literal["min", "max"]
TaskKind = Literal["classes", "votes"]

# What is measured on each split after every epoch, and which way is better. The first of each is the
# default objective. `loss` is the training loss and no objective: label smoothing and class weights,
# which are searched over, change it.
METRICS: dict[TaskKind, dict[str, Direction]] = {
    "classes": {
        "nll": "min",
        "accuracy": "max",
        "balanced_accuracy": "max",
        "precision": "max",
        "recall": "max",
        "f1": "max",
        "auroc": "max",
        "ece": "min",
    },
    "votes": {"rmse": "min"},
}


@dataclass(frozen=True)
class Task:
    """The answers a network gives for one survey.

    Attributes:
        kind: `classes` (one of `names`) or `votes` (a fraction for each of `names`).
        names: class names, or the names of the vote-fraction columns, in the order of the outputs.
        mirror_pairs: pairs of class names that a mirror image exchanges, such as spirals of either sense.
    """

    kind: TaskKind
    names: tuple[str, ...]
    mirror_pairs: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in METRICS:
            raise ConfigError(f"task: got kind {self.kind!r}, expected one of {sorted(METRICS)}")
        if len(self.names) < 2 or len(set(self.names)) != len(self.names):
            raise ConfigError(f"task: got names {list(self.names)}, expected at least two, each once")
        if any(len(pair) != 2 for pair in self.mirror_pairs):
            raise ConfigError(f"mirror pairs: got {list(self.mirror_pairs)}, expected two classes in each")
        paired = [name for pair in self.mirror_pairs for name in pair]
        unknown = [name for name in paired if name not in self.names]
        if unknown:
            raise ConfigError(
                f"mirror pairs: got {unknown[0]!r}, expected class names out of {list(self.names)}: check the spelling"
            )
        if len(set(paired)) != len(paired):
            raise ConfigError(f"mirror pairs: got {list(self.mirror_pairs)}, expected each class at most once")

    @property
    def num_outputs(self) -> int:
        """Number of outputs of a head for this task."""
        return len(self.names)

    @property
    def mirror_order(self) -> tuple[int, ...]:
        """For each output, the output that takes its place in a mirror image (itself where none is paired)."""
        order = list(range(len(self.names)))
        for left, right in self.mirror_pairs:
            i, j = self.names.index(left), self.names.index(right)
            order[i], order[j] = j, i
        return tuple(order)


def objective_direction(kind: TaskKind, objective: str | None) -> tuple[str, Direction]:
    """Name the validation metric that a search optimises, and which way is better.

    Args:
        kind: the survey's task.
        objective: a metric's name, or None for the task's default.

    Raises:
        ConfigError: the metric does not exist for this task.
    """
    metrics = METRICS[kind]
    name = objective if objective is not None else next(iter(metrics))
    if name not in metrics:
        raise ConfigError(f"--objective: got {name!r}, expected one of {', '.join(metrics)} for a survey of {kind}")
    return name, metrics[name]
