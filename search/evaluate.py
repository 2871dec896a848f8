"""Evaluate a trained network: `python -m search.evaluate CHECKPOINT --data DIR [--split test] [--tta] [--out DIR]`."""

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galaxy_models.cli import run_command
from galaxy_models.data.manifest import SPLIT_NAMES
from galaxy_models.errors import WeightsError
from galaxy_models.inference.machine import add_machine_options, make_runtime
from galaxy_models.inference.place import check_new
from search.results import PREDICTIONS_NAME

if TYPE_CHECKING:
    from galaxy_models.inference.network import Network
    from galaxy_models.training.survey import SurveyData
    from search.checkpoint_scores import CheckpointScores, Score

METRICS_NAME = "metrics.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _evaluate(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.evaluate",
        description="Evaluate a trained network on a split of any survey with the same classes or vote fractions. "
        "Intervals are of 95 %, from a bootstrap over the galaxies; they leave out the spread over training seeds.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a weights.safetensors, or its folder")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a folder of shards")
    parser.add_argument("--split", choices=SPLIT_NAMES, default="test", help="which galaxies (default: test)")
    parser.add_argument("--tta", action="store_true", help="also average the answers over the eight symmetries")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"a new folder for {METRICS_NAME} and {PREDICTIONS_NAME}"
    )
    add_machine_options(parser)
    return parser


def _evaluate(options: argparse.Namespace) -> int:
    if options.out is not None:
        check_new(options.out)

    from galaxy_models.inference.network import find_weights, load_network
    from galaxy_models.training.survey import SurveyData
    from search.checkpoint_scores import notes_on, score_checkpoint

    found = find_weights(options.checkpoint)
    if len(found) > 1:
        raise WeightsError(f"{options.checkpoint}: found {len(found)} weights files, expected one: name one of them")
    network = load_network(found[0])
    survey = SurveyData(options.data)
    # The baseline is what the training galaxies suggest: of vote fractions, their mean.
    read = {options.split, "train"} if survey.task.kind == "votes" else {options.split}
    survey.manifest.verify(options.data, splits=sorted(read))
    runtime = make_runtime(options.device, options.threads)
    scores = score_checkpoint(network, survey, options.split, runtime=runtime, average=options.tta)
    notes = notes_on(network, survey.manifest, options.split)
    print("\n".join(_lines(network, survey, options.split, scores, notes)))
    if options.out is not None:
        _write(options.out, network, survey, options.split, scores, notes)
        print(f"written to {options.out}")
    return 0


def _lines(
    network: "Network", survey: "SurveyData", split: str, scores: "CheckpointScores", notes: list[str]
) -> list[str]:
    words, metric, value = scores.baseline
    header = ["metric", "value", "95 % interval"]
    if scores.averaged:
        header += ["averaged", "95 % interval"]
    rows = [header]
    for name, score in scores.plain.items():
        rows.append([name, *_cells(score), *(_cells(scores.averaged[name]) if scores.averaged else ())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"network  {network.config.backbone}, trained on {network.survey or network.survey_digest}: {network.path}",
        f"survey   {survey.manifest.survey}, {split}: {len(scores.predicted.ids):,} galaxies",
        *(f"note     {note}" for note in notes),
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
        "",
        f"baseline {words}: {metric} {value:.4f}",
    ]


def _cells(score: "Score") -> tuple[str, str]:
    return f"{score.value:.4f}", f"{score.low:.4f} to {score.high:.4f}"


def _write(
    out: Path,
    network: "Network",
    survey: "SurveyData",
    split: str,
    scores: "CheckpointScores",
    notes: list[str],
) -> None:
    from galaxy_models.data.staging import resolve_output, staged_folder
    from galaxy_models.inference.predictions import write_predictions
    from search.checkpoint_scores import NUM_DRAWS

    words, metric, value = scores.baseline
    content = {
        "checkpoint": str(network.path),
        "backbone": network.config.backbone,
        "trained_on": {"survey": network.survey, "digest": network.survey_digest},
        "survey": survey.manifest.survey,
        "survey_digest": survey.manifest.digest,
        "simulated": survey.manifest.simulated,
        "split": split,
        "num_galaxies": len(scores.predicted.ids),
        "classes" if network.task.kind == "classes" else "vote_fractions": list(network.task.names),
        "metrics": {name: _plain(score) for name, score in scores.plain.items()},
        "averaged": {name: _plain(score) for name, score in scores.averaged.items()},
        "interval": {"level": 0.95, "method": "bootstrap over galaxies", "num_draws": NUM_DRAWS},
        "baseline": {"answer": words, metric: value},
        "notes": notes,
    }
    with staged_folder(resolve_output(out), force=False) as folder:
        write_predictions(folder / PREDICTIONS_NAME, network.task, {split: scores.predicted})
        text = json.dumps(content, indent=2, allow_nan=False)
        (folder / METRICS_NAME).write_text(text + "\n", encoding="utf-8")


def _plain(score: "Score") -> dict[str, Any]:
    return {name: value if math.isfinite(value) else None for name, value in asdict(score).items()}


if __name__ == "__main__":
    sys.exit(main())
