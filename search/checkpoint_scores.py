"""How good one trained network is on one split of a survey, and how sure that is."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from galaxy_models.data.manifest import Manifest
from galaxy_models.inference.answers import answer_split, measure_answers
from galaxy_models.inference.matching import targets_in_order
from galaxy_models.inference.network import Network
from galaxy_models.inference.predictions import Predicted
from galaxy_models.seeds import derive_seed
from galaxy_models.training.runtime import Runtime, resolve_precision
from galaxy_models.training.survey import SurveyData
from search.report.evidence.scores import calibration_error, class_columns, vote_columns
from search.statistics import percentile_interval, resampled_means

# Draws of the galaxies; the bounds of a 95 % interval then lie on 25 of them each.
NUM_DRAWS = 1000


@dataclass(frozen=True)
class Score:
    """A metric's value and the bounds of its 95 % interval over galaxies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CheckpointScores:
    """What an evaluation found.

    Attributes:
        predicted: the galaxies and the answers.
        plain: each metric of the task.
        averaged: the same of answers averaged over the eight symmetries; empty if they were not asked for.
        baseline: what an answer that looks at no image reaches: its words, the metric and the value.
    """

    predicted: Predicted
    plain: dict[str, Score]
    averaged: dict[str, Score]
    baseline: tuple[str, str, float]


def score_checkpoint(
    network: Network, survey: SurveyData, split: str, *, runtime: Runtime, average: bool
) -> CheckpointScores:
    """Answer for a split's galaxies and compare with what is true of them.

    Images are brought to the size that the network was trained on.

    Args:
        network: the network; it is moved to the runtime's device.
        survey: a survey with the same classes or vote fractions, in any order.
        split: `train`, `val` or `test`.
        runtime: where to compute.
        average: whether to average over the eight symmetries, too.

    Raises:
        DataError: another task or other classes, or a split without galaxies.
    """
    task, data = network.task, survey.split(split)
    targets = targets_in_order(data.targets, survey=survey.task, network=task, where=str(survey.directory))
    precision = resolve_precision(network.config.precision, runtime.activate())
    model = network.model.to(precision.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    answers = answer_split(model, data, task, image_px=network.px, precision=precision, average=average)
    seed = derive_seed(0, "bootstrap", survey.manifest.digest, split)

    def scores(outputs: torch.Tensor | None) -> dict[str, Score]:
        if outputs is None:
            return {}
        values = measure_answers(task, outputs, torch.from_numpy(targets))
        return with_intervals(values, targets, outputs.numpy(), seed=seed)

    return CheckpointScores(
        Predicted(data.ids, targets, answers), scores(answers.plain), scores(answers.averaged), _baseline(survey, split)
    )


def with_intervals(
    values: Mapping[str, float],
    targets: npt.NDArray[np.int64] | npt.NDArray[np.float32],
    answers: npt.NDArray[np.float32],
    *,
    seed: int,
) -> dict[str, Score]:
    """Give metrics their bootstrap intervals over `NUM_DRAWS` draws of the galaxies.

    The interval of the calibration error is that of the error freed of its bias: see `calibration_error`.

    Args:
        values: each metric's value.
        targets: (N,) class indices, or (N, A) vote fractions.
        answers: (N, A) probabilities or vote fractions.
        seed: of the draws.
    """
    if not np.isfinite(answers).all():
        return {name: Score(value, math.nan, math.nan) for name, value in values.items()}
    # By their dimension: indices are (N,), fractions (N, A).
    columns = class_columns(targets, answers) if targets.ndim == 1 else vote_columns(targets, answers)  # type: ignore[arg-type]
    means = resampled_means(columns.values, seed=seed, num_resamples=NUM_DRAWS)
    draws = columns.scores(means)
    found = {name: Score(value, *percentile_interval(draws[name])) for name, value in values.items()}
    calibration = calibration_error([columns], [means])
    if calibration is not None and "ece" in found:
        found["ece"] = Score(values["ece"], *calibration[1:3])
    return found


def notes_on(network: Network, manifest: Manifest, split: str) -> list[str]:
    """What a reader of the scores has to know of where the galaxies and the network come from."""
    notes = []
    if network.task.kind == "classes":
        notes.append(
            "On few galaxies ece is too large by chance; its interval is freed of that, and may lie below the value."
        )
    own = network.survey_digest == manifest.digest
    if own and split == "train":
        notes.append("The network was trained on these very galaxies: the scores flatter it.")
    if own and split == "val":
        notes.append("These galaxies chose the network's epoch and configuration: the scores flatter it.")
    if not own:
        trained = f"on {network.survey}" if network.survey else "on another survey"
        notes.append(
            f"The network was trained {trained}; whether some of its galaxies are among these cannot be told from here."
        )
    if manifest.simulated:
        notes.append("SIMULATED SKY: these galaxies were drawn, not observed.")
    if network.simulated and not manifest.simulated:
        notes.append("SIMULATED SKY: the network was trained on galaxies that were drawn, not observed.")
    if manifest.px != network.stored_px:
        notes.append(
            f"The survey's images of {manifest.px} px are resized; the network learned from {network.stored_px}."
        )
    crop = manifest.made_by.get("crop")
    if None not in (crop, network.crop) and crop != network.crop:
        notes.append(
            f"The survey keeps {crop:g} of each image's side, the network's survey kept {network.crop:g}: galaxies may "
            "look larger or smaller than those it learned from."
        )
    return notes


def _baseline(survey: SurveyData, split: str) -> tuple[str, str, float]:
    """The score of the best answer that the training galaxies alone suggest; of the split's own if there are none."""
    entries = survey.manifest.splits
    source = "train" if entries["train"].num_rows else split
    if survey.task.kind == "classes":
        top = int(np.argmax(entries[source].class_counts))
        share = entries[split].class_counts[top] / entries[split].num_rows
        return f"always answering {survey.task.names[top]}", "accuracy", share
    mean = survey.split(source).targets.mean(axis=0, dtype=np.float64)
    rmse = float(np.sqrt(((survey.split(split).targets - mean) ** 2).mean()))
    return "always answering the mean of the training galaxies", "rmse", rmse
