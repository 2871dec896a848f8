"""A ledger over two tiny spaces, for tests that need no network and no Ray."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage

from search.account import Account
from search.journal import JOURNAL, RunJournal
from search.ledger import Ledger, Limits
from search.samplers import SamplerPlan
from search.space import Space, load_space, probe_space
from search.study import open_study, queue_item
from search.terms import Terms

SPACE = """
from galaxy_models.config import TrainConfig

named = [{"lr": 1e-3, "beta": 0.9}]


def space(trial):
    return TrainConfig(
        backbone="vgg16",
        learning_rate=trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        momentum=trial.suggest_float("beta", 0.5, 0.95),
    )
"""
# Four configurations in all: the fifth trial cannot but repeat one.
FOUR = """
from galaxy_models.config import TrainConfig


def space(trial):
    return TrainConfig(
        backbone="vgg16",
        learning_rate=trial.suggest_categorical("lr", [1e-3, 1e-2]),
        batch_size=trial.suggest_int("batch", 16, 32, step=16),
    )
"""
# Two branches, each with numbers of its own beside those that both have.
CONDITIONAL = """
from galaxy_models.config import TrainConfig

named = [{"optimizer": "adamw"}]


def space(trial):
    common = {
        "backbone": "vgg16",
        "drop_rate": trial.suggest_float("drop", 0.0, 0.5),
        "label_smoothing": trial.suggest_float("smoothing", 0.0, 0.1),
    }
    if trial.suggest_categorical("optimizer", ["adamw", "sgd"]) == "adamw":
        return TrainConfig(
            optimizer="adamw",
            learning_rate=trial.suggest_float("lr", 1e-4, 1e-2, log=True),
            weight_decay=trial.suggest_float("decay", 1e-3, 1e-1, log=True),
            **common,
        )
    return TrainConfig(optimizer="sgd", learning_rate=trial.suggest_float("sgd_lr", 1e-3, 1e-1, log=True), **common)
"""
TERMS = Terms(max_epochs=9, objective="val_nll", direction="min", seed=1, overrides={"precision": "float32"})


def write_space(folder: Path, name: str, text: str = SPACE) -> Space:
    path = folder / f"{name}.py"
    path.write_text(text)
    return load_space(path)


def make_account(storage: Any, space: Space, terms: Terms = TERMS, *, sampler: str = "tpe", **fixed: Any) -> Account:
    """A space's account, as its study is in the storage."""
    queue = [] if sampler == "grid" else [queue_item(item, named=True) for item in space.named_with(fixed)]
    study = open_study(storage, space, direction=terms.direction, queue=queue)
    distributions = probe_space(space, seed=0, fixed={}).distributions if sampler == "grid" else {}
    plan = SamplerPlan(name=sampler, space=space.name, seed=terms.seed, fixed=fixed, distributions=distributions)
    return Account(space, study, plan, terms)


def make_ledger(folder: Path, *, names: str = "ab", text: str = SPACE, sampler: str = "tpe", **options: Any) -> Ledger:
    """A ledger over the spaces `a` and `b`, nine epochs a trial, as the journal in the folder has it.

    Args:
        folder: of the run.
        names: a letter for each space.
        text: of each space file.
        sampler: the sampler's name.
        options: fields of `Terms` and of `Limits`; three trials of each space unless told otherwise.
    """
    of_terms = {key: options.pop(key) for key in list(options) if key in Terms.__dataclass_fields__}
    journal = RunJournal(folder / JOURNAL)
    storage = JournalStorage(journal)
    terms = replace(TERMS, **of_terms)
    accounts = {name: make_account(storage, write_space(folder, name, text), terms, sampler=sampler) for name in names}
    journal.commit()
    return Ledger(accounts, Limits(**{"num_trials": 3, **options}), commit=journal.commit, elapsed_s=lambda: 0.0)


def epoch(number: int, value: float, **more: float) -> dict[str, float]:
    """What one epoch measured."""
    return {"epoch": number, "val_nll": value, "val_accuracy": 0.5, "epoch_s": 2.0, **more}
