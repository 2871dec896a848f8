"""What is to be retrained for the final evaluation, and whether it has been."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galaxy_models.config import TrainConfig
from galaxy_models.errors import WeightsError
from galaxy_models.task import Direction
from search.results import FINAL, PREDICTIONS_NAME, RESULT_NAME, WEIGHTS_NAME, FinalRun, final_folder, load_result
from search.shards import Shards


@dataclass(frozen=True, kw_only=True)
class FinalJob:
    """One retraining to be done.

    Attributes:
        backbone: the space's name.
        trial: number of the trial whose configuration it is.
        rank: place of that trial among the backbone's, from 0.
        seed_index: which of the retrainings of this configuration, from 0.
        config: the configuration, with the seed of this retraining.
        micro_batch: most images at once that the search found room for; None = the whole batch.
    """

    backbone: str
    trial: int
    rank: int
    seed_index: int
    config: TrainConfig
    micro_batch: int | None = None

    def result(self, **measured: Any) -> FinalRun:
        """The record of this retraining, with what was measured."""
        return FinalRun(
            backbone=self.backbone,
            trial=self.trial,
            rank=self.rank,
            seed_index=self.seed_index,
            seed=self.config.seed,
            config=self.config.to_dict(),
            **measured,
        )


@dataclass(frozen=True, kw_only=True)
class FinalSetting:
    """What all retrainings of a run have in common.

    Attributes:
        run_dir: the run's folder.
        shards: where the survey lies for every machine.
        threads: processors that each process computes with.
        device: where each computes, in torch's words.
        weights_dir: a folder of initial weights, looked in first; None without one.
        metric: the validation metric that names the best epoch.
        direction: which way of it is better.
        storage: where the run's folder is kept for all machines; None without one.
        software: that of the driver, on a cluster; see `nodes.this_software`.
        gpu_share: of the card that it computes on, how much is each one's own.
        processes: that train each together.
        silence_s: after how long a worker without a sign of life is taken for lost; None = never.
        timeout_s: how long an epoch may take; None = as long as it likes.
    """

    run_dir: Path
    shards: Shards
    threads: int
    device: str
    weights_dir: Path | None
    metric: str
    direction: Direction
    storage: str | None = None
    software: dict[str, str] | None = None
    gpu_share: float = 1.0
    processes: int = 1
    silence_s: float | None = None
    timeout_s: float | None = None

    def folder_of(self, backbone: str) -> Path:
        """Where the retrainings of a backbone lie."""
        return self.run_dir / FINAL / backbone

    def folder(self, job: FinalJob) -> Path:
        """Where a retraining's files lie."""
        return final_folder(self.run_dir, job.backbone, rank=job.rank, seed_index=job.seed_index)


def is_done(job: FinalJob, setting: FinalSetting) -> bool:
    """Whether a job's folder holds the evaluation of this very configuration, seed and survey."""
    from galaxy_models.inference.network import read_description

    folder = setting.folder(job)
    try:
        found = load_result(folder / RESULT_NAME)
        digest = read_description(folder / WEIGHTS_NAME)["survey_digest"]
    except (OSError, ValueError, TypeError, KeyError, WeightsError):
        return False
    asked = job.result()
    same = (found.trial, found.config) == (asked.trial, asked.config)
    return same and not found.failure and digest == setting.shards.digest and (folder / PREDICTIONS_NAME).is_file()
