"""Trials that wait instead of computing: for measuring everything of a search but the arithmetic."""

import time
from typing import Any

from search.trial import GalaxyTrial

EPOCH_S = 2.0
# What a small network's checkpoint weighs.
STATE_BYTES = 4 * 2**20


class WaitingTrainer:
    """Does as a trainer does, but for training."""

    def __init__(self, seed: int) -> None:
        self.epoch = 0
        self._seed = seed

    def run_epoch(self) -> dict[str, float]:
        """Wait, and give what an epoch gives."""
        time.sleep(EPOCH_S)
        self.epoch += 1
        value = 1.0 / self.epoch + (self._seed % 97) / 100
        return {"epoch": self.epoch, "epoch_s": EPOCH_S, "diverged": 0.0, "val_nll": value, "val_accuracy": 0.5}

    def state_dict(self) -> dict[str, Any]:
        """As much as a network has."""
        import torch

        return {"epoch": self.epoch, "network": torch.zeros(STATE_BYTES // 4)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch = int(state["epoch"])

    def save_weights(self, path: Any) -> None:
        """Write as much as a network has."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(STATE_BYTES))


class WaitingTrial(GalaxyTrial):
    """A trial whose epochs are waits; its data, checkpoints and results take their usual ways."""

    def _make_trainer(self) -> Any:
        from search.shards import Shards

        Shards(**self.config["shards"]).local()
        trainer: Any = WaitingTrainer(self.config["train"]["seed"])
        self._go_on(trainer)
        self._note_first_step()
        return trainer
