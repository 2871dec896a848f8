"""Hand-made searches for the tests of the report."""

import math
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from galaxy_models.task import Task
from search.journal import JOURNAL, RunJournal
from search.report.collect import collect
from search.report.findings import Findings
from search.report.run_info import RunInfo
from search.report.source import found_in

CLASSES = ("round", "spiral_cw", "edge_on")
SPACE = {
    "learning_rate": FloatDistribution(1e-5, 1.0, log=True),
    "depth": IntDistribution(1, 7),
    "trainable_stages": CategoricalDistribution([0, 2, None]),
    "symmetries": CategoricalDistribution([True, False]),
}


def make_study(backbone: str | None, trials: list[FrozenTrial], *, direction: str = "minimize") -> optuna.Study:
    study = optuna.create_study(direction=direction, study_name=f"space of {backbone}")
    if backbone is not None:
        study.set_user_attr("backbone", backbone)
    with warnings.catch_warnings():
        # Optuna warns that a choice of None is stored as text in a database; the study here is in memory.
        warnings.simplefilter("ignore", UserWarning)
        study.add_trials(trials)
    return study


def write_journal(run_dir: Path, *studies: optuna.Study) -> Path:
    """Write studies into a run's journal, as a search leaves them."""
    run_dir.mkdir(parents=True, exist_ok=True)
    journal = RunJournal(run_dir / JOURNAL)
    storage = optuna.storages.JournalStorage(journal)
    for study in studies:
        name = str(study.user_attrs["backbone"])
        copy = optuna.create_study(storage=storage, study_name=name, direction=study.direction)
        copy.set_user_attr("backbone", name)
        copy.add_trials(study.get_trials(deepcopy=False))
    journal.close()
    return run_dir


def make_trial(
    curve: list[float], *, state: TrialState = TrialState.COMPLETE, params: dict[str, Any] | None = None, **attrs: Any
) -> FrozenTrial:
    """A trial with one objective value an epoch; it lasts ten seconds an epoch."""
    params = {"learning_rate": 0.01, "depth": 3} if params is None else params
    epochs = {f"epoch:{n}": {"epoch": n, "val_nll": value, "epoch_s": 10.0} for n, value in enumerate(curve, start=1)}
    finite = [value for value in curve if math.isfinite(value)]
    attrs = {"seconds": 10.0 * len(curve), "config": {"backbone": "cnn", **params}, **epochs, **attrs}
    return create_trial(
        state=state,
        value=min(finite) if state == TrialState.COMPLETE else None,
        params=params,
        distributions={name: SPACE[name] for name in params},
        intermediate_values=dict(enumerate(curve, start=1)),
        user_attrs={name: value for name, value in attrs.items() if value is not None},
    )


def make_info(**changes: Any) -> RunInfo:
    values: dict[str, Any] = {
        "name": "evening",
        "survey": "gz1",
        "simulated": False,
        "survey_digest": "sha256:" + "ab" * 32,
        "task": Task("classes", CLASSES),
        "split_sizes": {"train": 800, "val": 100, "test": 400},
        "class_counts": {"train": (500, 200, 100), "val": (60, 30, 10), "test": (240, 120, 40)},
        "objective": "nll",
        "direction": "min",
        "max_epochs": 9,
        "rungs": (1, 3),
        "num_trials": 30,
        "time_budget_s": 600.0,
        "seed": 7,
        "command": "python -m search.run --space spaces/cnn.py --data shards/gz1",
        "versions": {"galaxy-search": "0.1.0", "torch": "2.9.1"},
        "elapsed_s": 245.0,
        "data": "shards/gz1",
    }
    return RunInfo(**{**values, **changes})


def make_findings(run_dir: Path, studies: list[optuna.Study], **changes: Any) -> Findings:
    """What a report says of studies, and of the final evaluation that lies in the folder."""
    return found_in(run_dir, make_info(**changes), collect(studies))


def random_search(backbone: str, *, num_trials: int, level: float, seed: int, max_epochs: int = 9) -> optuna.Study:
    """A search as ASHA leaves it: most trials stopped at a rung, some failed, falling learning curves."""
    rng = np.random.default_rng(seed)
    trials = []
    for _ in range(num_trials):
        floor, fate = level + rng.gamma(1.5, 0.12), rng.random()
        length = 1 if fate < 0.55 else 3 if fate < 0.78 else max_epochs
        curve = [floor + 0.6 * 0.55**epoch + rng.normal(0, 0.01) for epoch in range(1, length + 1)]
        state, reason = TrialState.COMPLETE, None
        if length < max_epochs:
            state, reason = TrialState.PRUNED, f"stopped at rung {length}"
        if fate > 0.96:
            curve, state, reason = [*curve[:1], math.nan], TrialState.FAIL, "diverged in epoch 2"
        params = {
            "learning_rate": float(10 ** rng.uniform(-5, 0)),
            "depth": int(rng.integers(1, 8)),
            "trainable_stages": [0, 2, None][rng.integers(3)],
            "symmetries": bool(rng.integers(2)),
        }
        trials.append(make_trial(curve, state=state, params=params, reason=reason))
    return make_study(backbone, trials)


def parse_svg(text: str) -> ElementTree.Element:
    """The root of a picture; fails where it is not well-formed."""
    return ElementTree.fromstring(text)  # noqa: S314 (our own drawing)
