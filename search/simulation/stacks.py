"""What decides in a simulated search: the objects of a real one, or those that Tune's documentation shows."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
from ray.tune.search.optuna import OptunaSearch

from galaxy_models.task import Direction
from search.account import Account
from search.journal import RunJournal
from search.lean import unpack
from search.ledger import Ledger, Limits
from search.recorder import Recorder
from search.samplers import SamplerPlan
from search.scheduler import LedgerScheduler
from search.searcher import StudySearcher
from search.simulation.curves import Curves
from search.simulation.engine import METRIC, OBJECTIVE, Bounds, Stack
from search.simulation.table import TableSpace
from search.space import Space
from search.study import open_study, queue_item
from search.terms import Terms

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


@dataclass(frozen=True)
class Record:
    """Where a simulated search keeps its study, and what it begins with.

    Attributes:
        storage: of Optuna.
        commit: brings what was written to the disk, if there is one; see `Ledger.commit`.
        first: parameters of the trials that run before the sampler's own.
    """

    storage: BaseStorage = field(default_factory=InMemoryStorage)
    commit: Callable[..., None] = lambda durable=False: None
    first: Sequence[dict[str, Any]] = ()

    @classmethod
    @contextmanager
    def on_disk(cls, path: Path) -> Iterator["Record"]:
        """A journal as a real search writes it, closed in the end."""
        journal = RunJournal(path)
        try:
            yield cls(JournalStorage(journal), journal.commit)
        finally:
            journal.close()


def make_stack(
    setting: Setting, curves: Curves, space: TableSpace, *, bounds: Bounds, seed: int, record: Record | None = None
) -> Stack:
    """Make fresh objects for one simulated search.

    Args:
        setting: which.
        curves: what the search runs on.
        space: the space of the curves' configurations.
        bounds: when the search ends.
        seed: of the sampler.
        record: where the study is kept; None = in memory.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    make = _ours if setting.stack == OURS else _stock
    return make(setting, space.fresh(), curves.direction, bounds, seed, record or Record())


def _ours(
    setting: Setting, space: TableSpace, direction: Direction, bounds: Bounds, seed: int, record: Record
) -> Stack:
    # Of a space file nothing is read but its name and the configurations that it gives.
    table = cast(Space, space)
    plan = SamplerPlan(name=setting.sampler, space=space.name, seed=seed, fixed={}, distributions=space.distributions)
    terms = Terms(
        max_epochs=bounds.max_epochs, objective=METRIC, direction=direction, seed=seed, scheduler=setting.scheduler
    )
    queue = [queue_item(params) for params in record.first]
    study = open_study(record.storage, table, direction=direction, queue=queue)
    ledger = Ledger(
        accounts={space.name: Account(table, study, plan, terms)},
        limits=Limits(num_trials=bounds.num_trials),
        commit=record.commit,
    )
    searcher, scheduler = StudySearcher(ledger, lambda: setting.num_workers), LedgerScheduler(ledger)
    recorder = Recorder(ledger, NO_RUN_DIR, keep_top=1, say=lambda words: None)
    return Stack(
        searcher,
        scheduler,
        row_of=lambda config: int(unpack(config)["train"][ROW]),
        max_pending=setting.num_workers,
        callbacks=[recorder],
        give_up=lambda trial_id: ledger.finish(trial_id, "stopped", "its recorded curve ended"),
        fault=lambda: searcher.fault or scheduler.fault or recorder.fault,
    )


def _stock(
    setting: Setting, space: TableSpace, direction: Direction, bounds: Bounds, seed: int, record: Record
) -> Stack:
    def suggest(trial: Any) -> dict[str, int]:
        return {ROW: space.nearest(space.suggest(trial))}

    # Without a sampler OptunaSearch takes TPE with Optuna's defaults.
    sampler = optuna.samplers.RandomSampler(seed=seed % 2**32) if setting.sampler == "random" else None
    searcher = OptunaSearch(
        suggest,
        metric=OBJECTIVE,
        mode=direction,
        sampler=sampler,
        seed=None if sampler else seed % 2**32,
        storage=record.storage,
        points_to_evaluate=list(record.first) or None,
    )
    scheduler = FIFOScheduler()
    if setting.scheduler == "asha":
        scheduler = AsyncHyperBandScheduler(
            metric=OBJECTIVE, mode=direction, max_t=bounds.max_epochs, grace_period=1, reduction_factor=3
        )
    return Stack(
        searcher, scheduler, row_of=lambda config: int(config[ROW]), max_pending=1, num_samples=bounds.num_trials
    )
