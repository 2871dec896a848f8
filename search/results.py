"""What the final evaluation leaves in a run's folder: one folder for each retraining, read by the report.

`runs/<name>/final/<backbone>/config-<rank>-seed-<index>/` holds `result.json` (a FinalRun), `weights.safetensors`
and `predictions.parquet`. A folder without `result.json` is unfinished.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from search.errors import RunError

FINAL = "final"
RESULT_NAME = "result.json"
WEIGHTS_NAME = "weights.safetensors"
# Columns: `split` (train, val, test), `id`, `target` (int, the class's index) or `target_<name>` for each vote
# fraction, `p_<name>` for each class or vote fraction (float32), and `tta_<name>` likewise, the mean over the eight
# symmetries (on the test split only; NaN elsewhere).
PREDICTIONS_NAME = "predictions.parquet"


@dataclass(frozen=True, kw_only=True)
class FinalRun:
    """One retraining of a backbone's configuration from scratch, evaluated once.

    Attributes:
        backbone: the space's name.
        trial: number of the trial whose configuration this is.
        rank: place of that trial among the backbone's, from 0.
        seed_index: which of the retrainings of this configuration, from 0.
        seed: of this training.
        config: `TrainConfig.to_dict()` of it.
        best_epoch: the epoch, from 1, with the best validation objective; its weights are evaluated.
        epochs: epochs trained.
        seconds: time spent training and validating.
        energy_j: joules that it took; None where none could be measured.
        metrics: for each of `train`, `val` and `test`, each metric of the task, without test-time averaging.
        metrics_tta: the same on `test`, with answers averaged over the eight symmetries.
        num_parameters: parameters of the network.
        flops: floating-point operations to answer for one image; None where they could not be counted.
        images_per_s: training galaxies answered in a second, without averaging; other trainings may run beside it.
        memory_mb: peak memory while answering; None = unknown.
        failure: why there are no metrics; empty if all went well.
    """

    backbone: str
    trial: int
    rank: int
    seed_index: int
    seed: int
    config: dict[str, object]
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    energy_j: float | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    metrics_tta: dict[str, dict[str, float]] = field(default_factory=dict)
    num_parameters: int = 0
    flops: float | None = None
    images_per_s: float = math.nan
    memory_mb: float | None = None
    failure: str = ""

    def folder(self, run_dir: Path) -> Path:
        """Where this retraining's files lie."""
        return final_folder(run_dir, self.backbone, rank=self.rank, seed_index=self.seed_index)

    def metric(self, split: str, name: str, *, tta: bool = False) -> float:
        """The value of a metric on a split; NaN where there is none."""
        return (self.metrics_tta if tta else self.metrics).get(split, {}).get(name, math.nan)


def final_folder(run_dir: Path, backbone: str, *, rank: int, seed_index: int) -> Path:
    """Where one retraining's files lie."""
    return run_dir / FINAL / backbone / f"config-{rank}-seed-{seed_index}"


def save_result(run_dir: Path, result: FinalRun) -> None:
    """Write a result in one step; what is not finite becomes null."""
    folder = result.folder(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{RESULT_NAME}.partial"
    partial.write_text(json.dumps(_plain(asdict(result)), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(folder / RESULT_NAME)


def load_results(run_dir: Path) -> list[FinalRun]:
    """Read all finished retrainings of a run, ordered by backbone, rank and seed.

    Raises:
        RunError: one is damaged.
    """
    found = []
    for path in sorted((run_dir / FINAL).glob(f"*/*/{RESULT_NAME}")):
        try:
            found.append(load_result(path))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path}: damaged ({type(error).__name__}: {error}), expected the result of a final training: remove "
                "its folder and --resume the run, which trains it again"
            ) from None
    return sorted(found, key=lambda one: (one.backbone, one.rank, one.seed_index))


def load_result(path: Path) -> FinalRun:
    """Read one `result.json`."""
    values = json.loads(path.read_text(encoding="utf-8"))
    for name in ("metrics", "metrics_tta"):
        values[name] = {
            split: {metric: math.nan if value is None else value for metric, value in measured.items()}
            for split, measured in values[name].items()
        }
    if values["images_per_s"] is None:
        values["images_per_s"] = math.nan
    return FinalRun(**values)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
