"""Train one configuration: `python -m galaxy_models.train CONFIG.json --data DIR --out DIR`."""

import argparse
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galaxy_models.cli import run_command
from galaxy_models.config import TrainConfig
from galaxy_models.errors import ConfigError, DataError, GalaxyError
from galaxy_models.task import METRICS, objective_direction

if TYPE_CHECKING:
    from galaxy_models.training.loop import Trainer
    from galaxy_models.training.survey import SurveyData

WEIGHTS_NAME = "weights.safetensors"
METRICS_NAME = "metrics.json"


class DivergedError(GalaxyError):
    """The loss or the answers of a network became infinite or undefined."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _train(options))


def read_config(path: Path, *, backbone: str | None = None) -> TrainConfig:
    """Read a configuration from a file of its own, or one of the best configurations of a search.

    Args:
        path: JSON of `TrainConfig.to_dict`, or a search's `best_configs.json`.
        backbone: which of the latter; may be None if it has only one.

    Raises:
        ConfigError: the file cannot be read, or has no such configuration.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}, expected a configuration as JSON: check the path") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: got a {type(values).__name__}, expected a configuration or a best_configs.json")
    if "backbone" in values:
        config = TrainConfig.from_dict(values)
        if backbone not in (None, config.backbone):
            raise ConfigError(f"--backbone: got {backbone!r}, but {path} is a configuration of {config.backbone!r}")
        return config
    found = {name: entry["config"] for name, entry in values.items() if isinstance(entry, dict) and "config" in entry}
    if backbone is None and len(found) == 1:
        backbone = next(iter(found))
    if backbone not in found:
        raise ConfigError(
            f"--backbone: got {backbone!r}, expected one of those in {path}: {', '.join(found) or 'it has none'}"
        )
    return TrainConfig.from_dict(found[backbone])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m galaxy_models.train",
        description=f"Train one configuration. Writes {WEIGHTS_NAME}, the weights of the best epoch, and "
        f"{METRICS_NAME}. Test galaxies are not looked at.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.json", help="a configuration, or a best_configs.json")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder of shards")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the results")
    parser.add_argument("--backbone", metavar="NAME", help="which configuration of a best_configs.json")
    parser.add_argument("--epochs", type=int, metavar="N", help="length of training (default: the configuration's)")
    parser.add_argument("--seed", type=int, metavar="N", help="another seed (default: the configuration's)")
    parser.add_argument("--threads", type=int, metavar="N", help="processors to use (default: as many as torch sees)")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    parser.add_argument(
        "--objective", metavar="METRIC", help="what names the best epoch (default: nll, or rmse for votes)"
    )
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="a folder of initial weights, looked in first")
    return parser


def _train(options: argparse.Namespace) -> int:
    config = read_config(options.config, backbone=options.backbone)
    changes = {name: getattr(options, name) for name in ("epochs", "seed") if getattr(options, name) is not None}
    config = replace(config, **changes)
    if options.out.exists():
        raise DataError(f"--out {options.out}: it exists, expected a new folder: choose another, or remove it")

    from galaxy_models.training.loop import Trainer
    from galaxy_models.training.survey import SurveyData

    survey = SurveyData(options.data)
    objective_direction(survey.task.kind, options.objective)
    trainer = Trainer(config, survey, runtime=_runtime(options))
    _print_start(config, survey)
    survey.manifest.verify(options.data, splits=("train", "val"))
    options.out.mkdir(parents=True)
    return _run(trainer, config, survey, out=options.out, objective=options.objective)


def _runtime(options: argparse.Namespace) -> Any:
    import torch

    from galaxy_models.training.runtime import Runtime

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads() if options.threads is None else options.threads
    return Runtime(device=device, threads=threads, weights_dir=options.weights_dir)


def _print_start(config: TrainConfig, survey: "SurveyData") -> None:
    manifest = survey.manifest
    counts = manifest.splits["val"].class_counts
    print(
        f"{config.backbone} on {manifest.survey}{' (simulated)' if manifest.simulated else ''}: "
        f"{survey.split('train').num_rows:,} galaxies to train on, {survey.split('val').num_rows:,} to validate on"
        + (f"; always answering the commonest class has accuracy {max(counts) / sum(counts):.4f}" if counts else ""),
        flush=True,
    )


def _run(trainer: "Trainer", config: TrainConfig, survey: "SurveyData", *, out: Path, objective: str | None) -> int:
    objective, direction = objective_direction(survey.task.kind, objective)
    sign = 1.0 if direction == "min" else -1.0
    history: list[dict[str, float]] = []
    best: dict[str, float] | None = None
    while trainer.epoch < config.epochs:
        metrics = trainer.run_epoch()
        history.append(metrics)
        if metrics["diverged"]:
            break
        is_best = best is None or sign * metrics[f"val_{objective}"] < sign * best[f"val_{objective}"]
        if is_best:
            best = metrics
            trainer.save_weights(out / WEIGHTS_NAME)
        _write_metrics(out / METRICS_NAME, config, survey, history=history, best=best)
        print(_epoch_line(metrics, config, METRICS[survey.task.kind]) + (" *" if is_best else ""), flush=True)
    if history[-1]["diverged"]:
        _write_metrics(out / METRICS_NAME, config, survey, history=history, best=best)
        kept = f"the weights of epoch {best['epoch']:.0f} are kept" if best else "no weights are kept"
        raise DivergedError(
            f"training diverged in epoch {history[-1]['epoch']:.0f}: the loss is not finite; {kept} in {out}: "
            "lower the learning rate, or clip the gradient"
        )
    assert best is not None
    print(f"best {objective} {best[f'val_{objective}']:.4f} in epoch {best['epoch']:.0f}: {out / WEIGHTS_NAME}")
    return 0


def _epoch_line(metrics: dict[str, float], config: TrainConfig, names: Any) -> str:
    parts = [f"epoch {metrics['epoch']:.0f}/{config.epochs}", f"train_loss {metrics['train_loss']:.4f}"]
    parts += [f"val_{name} {metrics[f'val_{name}']:.4f}" for name in names]
    parts.append(f"{metrics['epoch_s']:.1f} s")
    return "  ".join(parts)


def _write_metrics(
    path: Path,
    config: TrainConfig,
    survey: "SurveyData",
    *,
    history: list[dict[str, float]],
    best: dict[str, float] | None,
) -> None:
    """Write what is known after each epoch, whole; a number that is not finite becomes null."""
    epochs = [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in history]
    content = {
        "config": config.to_dict(),
        "task": asdict(survey.task),
        "survey": survey.manifest.survey,
        "survey_digest": survey.manifest.digest,
        "simulated": survey.manifest.simulated,
        "best_epoch": None if best is None else best["epoch"],
        "epochs": epochs,
    }
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
