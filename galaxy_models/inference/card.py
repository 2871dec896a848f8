"""The model card of an exported network: what it is, how it was made, what it is good for, how to use it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from galaxy_models.inference.formats import Exported
from galaxy_models.inference.network import Network
from galaxy_models.inference.snippets import usage_snippet
from galaxy_models.models.backbones import pretrained_cfg, timm_name

CARD_NAME = "README.md"
_SETTINGS = (
    "batch_size", "optimizer", "learning_rate", "backbone_lr_scale", "weight_decay", "schedule", "warmup_epochs",
    "drop_rate", "drop_path_rate", "label_smoothing", "class_balance", "trainable_stages", "epochs", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """How the exported network compares with the original.

    Attributes:
        difference: largest difference of an answer.
        num_images: images answered by both.
        images: what they are, in words.
    """

    difference: float
    num_images: int
    images: str

    def __str__(self) -> str:
        return (
            f"largest difference of an answer from the original network {self.difference:.1e}, on {self.num_images} "
            f"{self.images}"
        )


def model_card(
    network: Network,
    exported: Exported,
    check: Check,
    *,
    crop: float,
    metrics: Mapping[str, Mapping[str, float]],
) -> str:
    """Write a model card, in Markdown.

    Args:
        network: what was exported.
        exported: as what.
        check: how the two compare.
        crop: share of each image's shorter side to keep, as assumed where the weights do not say.
        metrics: for each split, what is known of it; may be empty.
    """
    parts = [
        _heading(network, exported),
        _answers(network),
        _images(network, crop),
        f"## Use\n\nBeside `{exported.file}`, without Galaxy Search:\n\n"
        f"```python\n{usage_snippet(network, exported, crop=crop)}\n\n"
        'for name, value in zip(NAMES, answer(read("galaxy.jpg"))[0].tolist()):\n    print(name, round(value, 4))\n```',
        f"Checked when it was written, with torch {torch.__version__}: {check}.",
        exported.plain.remark if exported.plain else "",
        _training(network),
        _scores(metrics),
        _limits(network),
        _licence(network),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(network: Network, exported: Exported) -> str:
    task = network.task
    what, answers = "the 37 vote fractions of Galaxy Zoo 2", "vote fractions that obey the decision tree"
    if task.kind == "classes":
        what, answers = "the class", "a probability for each class"
    sky = "\n\n**Trained on a simulated sky:** on galaxies that were drawn, not observed." if network.simulated else ""
    survey = f" of the survey {network.survey}" if network.survey else ""
    num_parameters = sum(parameter.numel() for parameter in network.model.parameters())
    return (
        f"# {network.config.backbone}: {what} of a galaxy{survey}\n\n"
        f"`{exported.file}` holds a network of {num_parameters:,} parameters that answers for an image with {answers}. "
        f"It was found and trained with Galaxy Search.{sky}"
    )


def _answers(network: Network) -> str:
    task = network.task
    lines = [f"{index}. `{name}`" for index, name in enumerate(task.names)]
    pairs = ", ".join(f"{left} and {right}" for left, right in task.mirror_pairs)
    mirror = f"\n\nA mirror image exchanges {pairs}." if pairs else ""
    return f"## Answers\n\nIn this order, counted from 0:\n\n{chr(10).join(lines)}{mirror}"


def _images(network: Network, crop: float) -> str:
    mean, std = (
        ", ".join(f"{value:.4f}" for value in values.flatten().tolist())
        for values in (network.model.mean, network.model.std)
    )
    known = "" if network.crop is not None else " (assumed: the weights do not say what it was in training)"
    return (
        "## Images\n\n"
        f"RGB in [0, 1], {network.px} by {network.px} pixels: the central {crop:g} of each image's shorter side{known}"
        ", shrunk bilinearly with antialiasing. "
        + (f"The training survey stored {network.stored_px} pixels. " if network.stored_px != network.px else "")
        + f"Normalised by mean ({mean}) and standard deviation ({std}) of each colour."
    )


def _training(network: Network) -> str:
    config = network.config
    rows = [f"| {name} | {getattr(config, name)} |" for name in _SETTINGS]
    return (
        f"## Training\n\nOn the survey {network.survey or '(its name is not recorded)'}, of digest "
        f"`{network.survey_digest}`, from {_initial(network)}; the weights are those of the best epoch on the "
        "validation split.\n\n| setting | value |\n| --- | --- |\n" + "\n".join(rows)
    )


def _initial(network: Network) -> str:
    config = network.config
    if config.weights == "imagenet":
        return f"timm's ImageNet weights of {timm_name(config.backbone)}"
    return "random weights" if config.weights == "none" else f"the weights `{_file_name(config.weights)}`"


def _scores(metrics: Mapping[str, Mapping[str, float]]) -> str:
    if not metrics:
        return "## Scores\n\nNone are recorded beside the weights."
    names = list(dict.fromkeys(name for scores in metrics.values() for name in scores))
    head = f"| split | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}"
    rows = [
        f"| {split} | {' | '.join(f'{scores[name]:.4f}' if name in scores else '' for name in names)} |"
        for split, scores in metrics.items()
    ]
    return "## Scores\n\nOf this training run, one of several seeds if a search made it:\n\n" + "\n".join([head, *rows])


def _limits(network: Network) -> str:
    return (
        "## Intended use and limits\n\n"
        "To sort galaxies that were observed, cut out and processed like those it learned from. With another "
        "telescope, filter, depth, resolution or field of view its answers can be wrong and sure at once: evaluate it "
        "on labelled galaxies of the new survey first. It answers for everything, stars and artefacts too"
        + (
            ", and its probabilities follow the frequencies of the classes in training. "
            if network.task.kind == "classes"
            else ". "
        )
        + "Labels by volunteers and catalogues have errors and biases of their own, which it has learned."
    )


def _licence(network: Network) -> str:
    config = network.config
    if config.weights == "none":
        words = "The weights started from random numbers: no licence of others' weights binds them."
    elif config.weights == "imagenet":
        record = pretrained_cfg(config.backbone)
        words = (
            f"The weights started from timm's `{timm_name(config.backbone)}`"
            f"{', ' + record['hf_hub_id'] if record.get('hf_hub_id') else ''}, whose licence timm gives as "
            f"{record.get('license') or 'unknown'}. They were trained on ImageNet, whose images are for research that "
            "is not commercial; look into what that means for your use."
        )
    else:
        words = f"The weights started from `{_file_name(config.weights)}`: its licence binds these, too."
    return f"## Licence\n\n{words} The survey's owners may have terms for what is learned from their images."


def _file_name(weights: str) -> str:
    """Weights by name: where they lay on somebody's disk tells nobody else anything."""
    return weights if weights.startswith("hf-hub:") else Path(weights).name
