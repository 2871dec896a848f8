"""What decides in a simulated search: the objects of a real one, or those that Tune's documentation shows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from galaxy_models.task import Direction
from search.ledger import Ledger
from search.recorder import Recorder
from search.scheduler import BackboneAsha
from search.searcher import StudySearcher
from search.simulation.curves import Curves
from search.simulation.engine import METRIC, OBJECTIVE, Limits, Stack
from search.simulation.table import TableSpace
from search.space import Space
from search.study import make_sampler

OURS, STOCK = "ours", "stock"
STOCK_SAMPLERS = ("tpe", "random")
STOCK_SCHEDULERS = ("asha", "none")
ROW = "row"
# Nothing is written there: simulated trials have no weights.
NO_RUN_DIR = Path("no-run")


@dataclass(frozen=True)
class Setting:
    """One way to search, which a simulation tries out.

    Attributes:
        stack: "ours", or "stock": Tune's OptunaSearch and AsyncHyperBandScheduler as its documentation shows them.
        sampler: the name of the sampler.
        scheduler: the name of the scheduler; "none" stops nothing.
        num_workers: trials that run side by side.
    """

    stack: str
    sampler: str
    scheduler: str
    num_workers: int

    @property
    def label(self) -> str:
        """The setting in words, without its workers."""
        return f"{self.stack} {self.sampler} {self.scheduler}"


def make_stack(
    setting: Setting,
    curves: Curves,
    space: TableSpace,
    *,
    limits: Limits,
    seed: int,
    storage: BaseStorage | None = None,
) -> Stack:
    """Make fresh objects for one simulated search.

    Args:
        setting: which.
        curves: what the search runs on.
        space: the space of the curves' configurations.
        limits: when the search ends.
        seed: of the sampler.
        storage: where the study is kept; None = in memory.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make = _ours if setting.stack == OURS else _stock
    return make(setting, space, curves.direction, limits, seed, storage or InMemoryStorage())


def _ours(
    setting: Setting, space: TableSpace, direction: Direction, limits: Limits, seed: int, storage: BaseStorage
) -> Stack:
    study = optuna.create_study(
        study_name=space.name,
        storage=storage,
        sampler=make_sampler(seed, space.name, {}),
        direction="minimize" if direction == "min" else "maximize",
    )
    ledger = Ledger(
        # Of a space file a ledger reads nothing but the configurations that it gives.
        spaces={space.name: cast(Space, space)},
        studies={space.name: study},
        num_trials=limits.num_trials,
        max_epochs=limits.max_epochs,
        objective=METRIC,
        direction=direction,
        seed=seed,
    )
    schedulers: dict[str, TrialScheduler] = {
        "asha": BackboneAsha(limits.max_epochs, direction),
        "none": FIFOScheduler(),
    }
    return Stack(
        searcher=StudySearcher(ledger, setting.num_workers),
        scheduler=schedulers[setting.scheduler],
        row_of=lambda config: int(config["train"]["row"]),
        max_pending=setting.num_workers,
        callbacks=[Recorder(ledger, NO_RUN_DIR)],
    )


def _stock(
    setting: Setting, space: TableSpace, direction: Direction, limits: Limits, seed: int, storage: BaseStorage
) -> Stack:
    def suggest(trial: Any) -> dict[str, int]:
        return {ROW: space.nearest(space.suggest(trial))}

    samplers: dict[str, optuna.samplers.BaseSampler | None] = {
        "tpe": None,  # what OptunaSearch takes by itself
        "random": optuna.samplers.RandomSampler(seed=seed % 2**32),
    }
    searcher = OptunaSearch(
        suggest,
        metric=OBJECTIVE,
        mode=direction,
        sampler=samplers[setting.sampler],
        seed=None if samplers[setting.sampler] else seed % 2**32,
        storage=storage,
    )
    scheduler = FIFOScheduler()
    if setting.scheduler == "asha":
        scheduler = AsyncHyperBandScheduler(
            metric=OBJECTIVE, mode=direction, max_t=limits.max_epochs, grace_period=1, reduction_factor=3
        )
    return Stack(searcher, scheduler, row_of=lambda config: int(config[ROW]), max_pending=1)
