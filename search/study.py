"""The studies of a run: one a space, all in one journal on disk, the one record of the search."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import TrialState

from galaxy_models.task import Direction
from search.entry import DUPLICATE_OF, PARENT
from search.errors import RunError
from search.journal import JOURNAL, reading_backend
from search.proposals import QUEUE
from search.space import Space


def queue_item(params: dict[str, Any], **attrs: Any) -> dict[str, Any]:
    """A configuration to run before the sampler's own: what is left out of it is drawn.

    Args:
        params: parameter names and values.
        attrs: what the trial records of where it came from, such as `named=True`.
    """
    return {"params": params, "attrs": attrs}


def open_study(
    storage: BaseStorage, space: Space, *, direction: Direction, queue: Sequence[dict[str, Any]]
) -> optuna.Study:
    """Open a space's study, or create it.

    Args:
        storage: the run's storage.
        space: the space.
        direction: which way the objective is better.
        queue: configurations to run first, as of `queue_item`; only a new study takes them up.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=space.name,
        storage=storage,
        sampler=optuna.samplers.RandomSampler(seed=0),  # replaced before each trial
        direction="minimize" if direction == "min" else "maximize",
        load_if_exists=True,
    )
    if "backbone" not in study.user_attrs:
        study.set_user_attr("backbone", space.name)
        study.set_user_attr(QUEUE, list(queue))
    return study


def best_params(study: optuna.Study, count: int) -> list[tuple[int, dict[str, Any]]]:
    """Numbers and parameters of a study's best trials by the best epoch each had, best first.

    Failed ones do not count, nor those that go on from others of their population, whose parameters did not make them
    alone; of several with the same parameters, the best stands for all.
    """
    sign = 1.0 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1.0
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    found = [
        (min(sign * value for value in trial.intermediate_values.values()), trial.number, dict(trial.params))
        for trial in ended
        if trial.intermediate_values and trial.user_attrs.keys().isdisjoint((DUPLICATE_OF, PARENT))
    ]
    distinct: dict[str, tuple[int, dict[str, Any]]] = {}
    for _, number, params in sorted(found, key=lambda one: one[:2]):
        distinct.setdefault(json.dumps(params, sort_keys=True), (number, params))
    return list(distinct.values())[:count]


def check_compatible(
    study: optuna.Study, space: Space, distributions: Mapping[str, optuna.distributions.BaseDistribution]
) -> None:
    """Check that a study can take up trials of a space that was changed.

    Args:
        study: of the space as it was.
        space: as it is now.
        distributions: where its parameters are drawn from now.

    Raises:
        RunError: a parameter is of another kind than it was.
    """
    for trial in study.get_trials(deepcopy=False):
        for name, old in trial.distributions.items():
            new = distributions.get(name, old)
            try:
                optuna.distributions.check_distribution_compatibility(old, new)
            except ValueError:
                raise RunError(
                    f"{space.path}: {name} was {old} when the run began and is {new} now, expected only its range to "
                    "change: put it back, or add the file under another name as a further space"
                ) from None


def load_studies(run_dir: Path) -> dict[str, optuna.Study]:
    """Load a run's studies for reading, by space name; a search may be writing them.

    Raises:
        RunError: the run has no journal, or a damaged one.
    """
    path = run_dir / JOURNAL
    backend = reading_backend(path)
    try:
        storage = JournalStorage(backend)
        names = optuna.get_all_study_names(storage)
        return {name: optuna.load_study(study_name=name, storage=storage) for name in names}
    except (ValueError, KeyError, AssertionError) as error:
        raise RunError(f"{path}: {error}, expected the journal of a run: copy the run's folder again, whole") from error
