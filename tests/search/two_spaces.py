"""A ledger over two tiny spaces, for tests that need no network and no Ray."""

from pathlib import Path
from typing import Any

from search.ledger import Ledger
from search.space import load_space
from search.study import create_studies

SPACE = (
    "from galaxy_models.config import TrainConfig\n"
    "named = [{'lr': 1e-3}]\n"
    "def space(trial):\n"
    "    return TrainConfig(backbone='vgg16', learning_rate=trial.suggest_float('lr', 1e-4, 1e-1, log=True))\n"
)


def make_ledger(folder: Path, *, direction: Any = "min", num_trials: int = 3, **fixed: Any) -> Ledger:
    """A ledger over the spaces `a` and `b`, nine epochs a trial."""
    spaces = {}
    for name in ("a", "b"):
        (folder / f"{name}.py").write_text(SPACE)
        spaces[name] = load_space(folder / f"{name}.py")
    studies = create_studies(
        folder, list(spaces.values()), direction=direction, seed=1, fixed=dict.fromkeys(spaces, fixed)
    )
    return Ledger(spaces, studies, num_trials, 9, "val_nll", direction, seed=1, overrides={"precision": "float32"})


def epoch(number: int, value: float) -> dict[str, float]:
    """What one epoch measured."""
    return {"epoch": number, "val_nll": value, "val_accuracy": 0.5, "epoch_s": 2.0}
