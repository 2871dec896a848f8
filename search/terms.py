"""What every space of a search is given alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from galaxy_models.task import Direction


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What every space of a search is given alike.

    Attributes:
        max_epochs: epochs of a trial that is not stopped.
        objective: the result's key that is optimised, such as `val_nll`.
        direction: which way is better.
        seed: the run's seed.
        scheduler: the stopping rule, one of `rungs.SCHEDULERS`; `pbt` trains a population, see `search.population`.
        population: trials that train side by side, for `pbt`.
        repeats: how often the same configuration may be run; further times its recorded result is used.
        overrides: fields of TrainConfig that the command line sets for every trial.
        survey_digest: of the survey that trials learn from; empty = there is none.
    """

    max_epochs: int
    objective: str
    direction: Direction
    seed: int
    scheduler: str = "asha"
    population: int = 0
    repeats: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)
    survey_digest: str = ""
