"""Export a trained network: `python -m search.export CHECKPOINT --format safetensors --out DIR [--check SHARDS]`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from galaxy_models.cli import run_command
from galaxy_models.data.plan import ConvertSettings
from galaxy_models.errors import MachineError, WeightsError
from galaxy_models.inference.place import check_new
from galaxy_models.task import METRICS
from search.results import RESULT_NAME, load_result

if TYPE_CHECKING:
    from torch import Tensor

    from galaxy_models.inference.card import Check
    from galaxy_models.inference.formats import Exported
    from galaxy_models.inference.network import Network

FORMAT_NAMES = ("safetensors", "onnx", "torch-export")
# What `galaxy_models.train` leaves beside its weights.
_HISTORY_NAME = "metrics.json"
_NUM_CHECKED = 64
# Formats sum in other orders; a larger difference than this is none of rounding.
_MAX_DIFFERENCE = 1e-3


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _export(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.export",
        description="Write a trained network for use without this project, with a model card that says how, "
        "and check that it answers like the original.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a weights.safetensors, or its folder")
    parser.add_argument(
        "--format",
        choices=FORMAT_NAMES,
        default="safetensors",
        help="safetensors: weights for timm and torch (default); onnx; torch-export: a program for torch alone",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the network and card")
    parser.add_argument(
        "--check", type=Path, metavar="DIR", help="shards whose training galaxies both answer for (default: noise)"
    )
    return parser


def _export(options: argparse.Namespace) -> int:
    check_new(options.out)

    from galaxy_models.data.staging import resolve_output, staged_folder
    from galaxy_models.inference.card import CARD_NAME, model_card
    from galaxy_models.inference.formats import check_packages, export_network
    from galaxy_models.inference.network import find_weights, load_network

    check_packages(options.format)
    found = find_weights(options.checkpoint)
    if len(found) > 1:
        raise WeightsError(f"{options.checkpoint}: found {len(found)} weights files, expected one: name one of them")
    network = load_network(found[0])
    images, words = _images_to_check(options.check, network)
    crop = ConvertSettings.crop if network.crop is None else network.crop
    with staged_folder(resolve_output(options.out), force=False) as folder:
        exported = export_network(network, options.format, folder)
        check = _check(network, exported, images, words)
        card = model_card(network, exported, check, crop=crop, metrics=known_metrics(network))
        (folder / CARD_NAME).write_text(card, encoding="utf-8")
    print(f"{check}\nwritten to {options.out}: {exported.file} and {CARD_NAME}, which says how to use it")
    return 0


def known_metrics(network: "Network") -> dict[str, dict[str, float]]:
    """What is recorded beside a network's weights, by split; empty if nothing is."""
    folder = network.path.parent
    try:
        if (folder / RESULT_NAME).is_file():
            result = load_result(folder / RESULT_NAME)
            return {**result.metrics, **{f"{split}, averaged": one for split, one in result.metrics_tta.items()}}
        history = json.loads((folder / _HISTORY_NAME).read_text(encoding="utf-8"))
        best = next(row for row in history["epochs"] if row["epoch"] == history["best_epoch"])
        return {"val": {name: best[f"val_{name}"] for name in METRICS[network.task.kind]}}
    except (OSError, ValueError, TypeError, KeyError, StopIteration):
        return {}


def _images_to_check(data: Path | None, network: "Network") -> tuple["Tensor", str]:
    """(B, 3, px, px) float32 in [0, 1], and what they are."""
    import numpy as np
    import torch

    from galaxy_models.data.augment import prepare
    from galaxy_models.data.batches import iterate_batches
    from galaxy_models.seeds import derive_seed
    from galaxy_models.training.survey import SurveyData

    if data is None:
        generator = torch.Generator().manual_seed(derive_seed(0, "export check"))
        shape = (_NUM_CHECKED, 3, network.px, network.px)
        return torch.rand(shape, generator=generator), "images of noise, since no galaxies were given with --check"
    survey = SurveyData(data)
    split = survey.split("train")
    rows = np.arange(min(_NUM_CHECKED, split.num_rows))
    batch = next(iterate_batches(split, rows, batch_size=_NUM_CHECKED))
    kind = "simulated galaxies" if survey.manifest.simulated else "galaxies"
    return prepare(batch.images, image_px=network.px).contiguous(), f"{kind} of {survey.manifest.survey}"


def _check(network: "Network", exported: "Exported", images: "Tensor", words: str) -> "Check":
    import torch

    from galaxy_models.inference.card import Check

    with torch.inference_mode():
        expected = network.model.outputs(network.model(images))
        difference = float((exported.answer(images) - expected).abs().max())
    check = Check(difference, len(images), words)
    if not difference <= _MAX_DIFFERENCE:
        raise MachineError(
            f"{exported.file}: {check}, expected at most {_MAX_DIFFERENCE:g}: nothing is written; try another format"
        )
    return check


if __name__ == "__main__":
    sys.exit(main())
