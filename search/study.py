"""Opens the studies of a run: one a space, all in one journal on disk, the one record of the search."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from galaxy_models.seeds import derive_seed
from galaxy_models.task import Direction
from search.space import Space, fixed_sampler

JOURNAL = "study.journal"
# Random configurations before the sampler begins to learn, the named ones included.
NUM_STARTUP_TRIALS = 10


def make_sampler(seed: int, space: str, fixed: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    """Make a space's sampler: TPE over groups of parameters that occur together, aware of running trials.

    Args:
        seed: the run's seed.
        space: the space's name; each space draws from a generator of its own.
        fixed: parameters that keep a value the user gave.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=derive_seed(seed, "sampler", space) % 2**32,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=NUM_STARTUP_TRIALS,
        )
    return fixed_sampler(sampler, fixed)


def create_studies(
    run_dir: Path, spaces: Sequence[Space], *, direction: Direction, seed: int, fixed: Mapping[str, Mapping[str, Any]]
) -> dict[str, optuna.Study]:
    """Create a study for each space in the run's journal, its named configurations enqueued.

    Args:
        run_dir: the run's folder.
        spaces: the spaces.
        direction: which way the objective is better.
        seed: the run's seed.
        fixed: for each space, the parameters that keep a value the user gave.

    Returns:
        The studies by space name, in the order of the spaces.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(run_dir)
    studies = {}
    for space in spaces:
        study = optuna.create_study(
            study_name=space.name,
            storage=storage,
            sampler=make_sampler(seed, space.name, fixed[space.name]),
            direction="minimize" if direction == "min" else "maximize",
        )
        study.set_user_attr("backbone", space.name)
        for item in space.named:
            study.enqueue_trial({**item, **fixed[space.name]}, user_attrs={"named": True})
        studies[space.name] = study
    return studies


def open_storage(run_dir: Path) -> JournalStorage:
    """Open the run's journal."""
    return JournalStorage(JournalFileBackend(str(run_dir / JOURNAL)))


def load_studies(run_dir: Path) -> dict[str, optuna.Study]:
    """Load a run's studies for reading, by space name."""
    storage = open_storage(run_dir)
    names = optuna.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage) for name in names}
