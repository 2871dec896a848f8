"""A trial on a worker: Tune's Trainable around the training loop.

One worker process runs many trials. It keeps torch, the memory-mapped shards and its threads between them:
`reset_config` only makes a new network and optimiser.
"""

import contextlib
import math
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from galaxy_models.cli import machine_fault
from galaxy_models.config import TrainConfig
from galaxy_models.errors import GalaxyError

if TYPE_CHECKING:
    from galaxy_models.training.loop import Trainer
    from galaxy_models.training.runtime import Runtime
    from galaxy_models.training.survey import SurveyData


def weights_path(run_dir: Path, space: str, number: int, epoch: int) -> Path:
    """Where a trial's weights of an epoch lie. Only those of the best epochs are written."""
    return run_dir / "weights" / space / f"trial-{number:05d}-epoch-{epoch:04d}.safetensors"


class GalaxyTrial(tune.Trainable):
    """Trains one configuration, an epoch a step.

    Its configuration has `train` (a TrainConfig as a dictionary), `space`, `number`, `value_to_beat`, and for all
    trials alike `data` (the shards' folder), `run_dir`, `threads`, `device`, `weights_dir`, `metric` and `direction`.
    A result has the loop's metrics and `objective`, `done`, and after a trial's first epoch `handover_s`: the time
    from the end of the worker's previous trial to this one's first optimiser step. Where something went wrong the
    result says so in `fault`, and in `fault_exit_code` if the user can mend it; the worker lives on.
    """

    _trainer: "Trainer | None"

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare a fresh worker for its first trial."""
        self._runtime: Runtime | None = None
        self._survey: SurveyData | None = None
        self._idle_since: float | None = None
        self._begin()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare this process for its next trial."""
        # Freed before the next is made: a GPU need not hold two networks.
        self._trainer = None
        self._begin()
        return True

    def _begin(self) -> None:
        self._trainer = None
        self._handover_s: float | None = None
        self._best = math.nan

    def step(self) -> dict[str, Any]:
        """Train and validate one epoch."""
        try:
            result = self._epoch()
        except Exception as error:
            result = self._fault(error)
        self._idle_since = time.monotonic()
        return result

    def _fault(self, error: Exception) -> dict[str, Any]:
        self._trainer = None
        error = machine_fault(error, self.config["run_dir"]) or error
        words = " ".join(str(error).split())
        if isinstance(error, GalaxyError):
            return {"objective": math.nan, "done": True, "fault": words, "fault_exit_code": error.exit_code}
        log = Path(self.config["run_dir"]) / "errors" / f"{self.config['space']}-{self.config['number']:05d}.txt"
        with contextlib.suppress(OSError):
            log.parent.mkdir(exist_ok=True)
            log.write_text(traceback.format_exc(), encoding="utf-8")
        return {"objective": math.nan, "done": True, "fault": f"{type(error).__name__}: {words:.300}"}

    def _epoch(self) -> dict[str, Any]:
        if self._trainer is None:
            self._trainer = self._make_trainer()
        metrics = self._trainer.run_epoch()
        result: dict[str, Any] = dict(metrics)
        result["objective"] = metrics[f"val_{self.config['metric']}"]
        result["done"] = bool(metrics["diverged"])
        if self._handover_s is not None:
            result["handover_s"], self._handover_s = self._handover_s, None
        if not result["done"]:
            self._keep_best(self._trainer, result["objective"])
        return result

    def _make_trainer(self) -> "Trainer":
        from galaxy_models.training.loop import Trainer
        from galaxy_models.training.runtime import Runtime
        from galaxy_models.training.survey import SurveyData

        config = self.config
        if self._runtime is None or self._survey is None:
            weights_dir = Path(config["weights_dir"]) if config["weights_dir"] else None
            self._runtime = Runtime(device=config["device"], threads=config["threads"], weights_dir=weights_dir)
            self._survey = SurveyData(Path(config["data"]))
        train = TrainConfig.from_dict(config["train"])
        return Trainer(train, self._survey, runtime=self._runtime, on_first_step=self._note_first_step)

    def _note_first_step(self) -> None:
        if self._idle_since is not None:
            self._handover_s = time.monotonic() - self._idle_since

    def _keep_best(self, trainer: "Trainer", value: float) -> None:
        sign = 1.0 if self.config["direction"] == "min" else -1.0
        if not math.isnan(self._best) and sign * value >= sign * self._best:
            return
        self._best = value
        to_beat = self.config["value_to_beat"]
        if not math.isnan(to_beat) and sign * value >= sign * to_beat:
            return
        run_dir, number = Path(self.config["run_dir"]), self.config["number"]
        trainer.save_weights(weights_path(run_dir, self.config["space"], number, trainer.epoch))
