"""How each backbone stands after the final evaluation: scores, intervals, and their spread over seeds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from galaxy_models.errors import DataError
from galaxy_models.seeds import derive_seed
from galaxy_models.task import METRICS
from search.report.evidence.answers import Answers, read_answers
from search.report.evidence.scores import Columns, calibration_error, columns_of
from search.report.run_info import RunInfo
from search.results import FinalRun
from search.statistics import percentile_interval, resampled_together, wilson_interval

# What is measured on: a split, each with its name among a FinalRun's metrics, and the test split with answers averaged.
SPLITS = {"train": "train", "validation": "val", "test": "test"}
AVERAGED = "averaged"
# The calibration error freed of its bias, and that which calibrated networks would show on as many galaxies.
UNBIASED_ECE, CHANCE_ECE = "ece_unbiased", "ece_by_chance"
# Predictions that give another accuracy, or RMSE, than was measured belong to other weights.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Estimate:
    """A score and how far it can be trusted.

    Attributes:
        value: mean over seeds; NaN where it is unknown.
        spread: standard deviation over seeds; NaN with fewer than two.
        low: lower bound of the 95 % interval over galaxies; NaN where it is unknown.
        high: upper bound.
    """

    value: float = math.nan
    spread: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One backbone's configuration that was chosen by validation among those that were trained again.

    Attributes:
        backbone: the space's name.
        trial: number of the trial whose configuration it is.
        runs: its retrainings that went well, by seed.
        answers: what they answered for the test galaxies; fewer than `runs` where some cannot be read.
        scores: for each of `train`, `validation`, `test` and `averaged`, an estimate of each score.
    """

    backbone: str
    trial: int
    runs: tuple[FinalRun, ...]
    answers: tuple[Answers, ...]
    scores: dict[str, dict[str, Estimate]]

    def estimate(self, row: str, name: str) -> Estimate:
        """An estimate; of NaNs where there is none."""
        return self.scores.get(row, {}).get(name, Estimate())

    def value(self, row: str, name: str) -> float:
        """A mean over seeds; NaN where there is none."""
        return self.estimate(row, name).value

    @property
    def complete(self) -> bool:
        """Whether there are answers of every retraining."""
        return bool(self.runs) and len(self.answers) == len(self.runs)


@dataclass(frozen=True)
class Evidence:
    """Everything that the final evaluation gave.

    Attributes:
        standings: by backbone, best validation objective first.
        problems: what could not be used, and why, a sentence each.
        failed: retrainings that failed.
        seconds: time that all retrainings of each backbone took, failed ones included.
        energy_j: joules that they took, for backbones of which some could be measured.
    """

    standings: dict[str, Standing]
    problems: tuple[str, ...] = ()
    failed: tuple[FinalRun, ...] = ()
    seconds: dict[str, float] | None = None
    energy_j: dict[str, float] | None = None


def gather(run_dir: Path, results: Sequence[FinalRun], info: RunInfo) -> Evidence:
    """Read the answers of every backbone's chosen configuration and estimate its scores.

    Args:
        run_dir: the run's folder.
        results: what `search.results.load_results` gave.
        info: the run.
    """
    chosen = choose(results, info)
    problems = [
        f"The retraining of {one.backbone}, seed {one.seed_index + 1}, has no finite validation "
        f"{info.objective}: it is left out."
        for one in results
        if not one.failure and not math.isfinite(one.metric("val", info.objective))
    ]
    answers = _same_galaxies({name: _read(run_dir, runs, info, problems) for name, runs in chosen.items()}, problems)
    intervals = _intervals(answers, info)
    standings = []
    for name, runs in chosen.items():
        scores = _point_scores(runs, info)
        for row, found in intervals.get(name, {}).items():
            known = scores.setdefault(row, {})
            for score, (value, spread, low, high) in found.items():
                point = known.get(score, Estimate(value, spread))
                # An interval of some of the seeds is not that of the mean of all.
                whole = len(answers[name]) == len(runs)
                known[score] = Estimate(point.value, point.spread, *((low, high) if whole else ()))
        standings.append(
            Standing(backbone=name, trial=runs[0].trial, runs=runs, answers=answers.get(name, ()), scores=scores)
        )
    seconds: dict[str, float] = {}
    energy_j: dict[str, float] = {}
    for result in results:
        seconds[result.backbone] = seconds.get(result.backbone, 0.0) + result.seconds
        if result.energy_j is not None:
            energy_j[result.backbone] = energy_j.get(result.backbone, 0.0) + result.energy_j
    failed = tuple(result for result in results if result.failure)
    by_name = {one.backbone: one for one in ranked(standings, info)}
    return Evidence(by_name, tuple(problems), failed, seconds, energy_j)


def choose(results: Sequence[FinalRun], info: RunInfo) -> dict[str, tuple[FinalRun, ...]]:
    """The retrainings of each backbone's best configuration.

    That is the one with the best mean validation objective, among those with the most seeds: test is not looked at,
    and a configuration that is still being trained does not win by its luckiest seed.
    """
    groups: dict[str, dict[int, list[FinalRun]]] = {}
    for result in results:
        if not result.failure and math.isfinite(result.metric("val", info.objective)):
            groups.setdefault(result.backbone, {}).setdefault(result.rank, []).append(result)
    sign = -1.0 if info.direction == "max" else 1.0

    def key(item: tuple[int, list[FinalRun]]) -> tuple[int, float, int]:
        rank, runs = item
        return -len(runs), sign * mean_of(run.metric("val", info.objective) for run in runs), rank

    return {name: tuple(min(ranks.items(), key=key)[1]) for name, ranks in groups.items()}


def ranked(standings: Iterable[Standing], info: RunInfo) -> list[Standing]:
    """Best validation objective first. Validation ranks, never test: test is there to judge the choice."""
    sign = -1.0 if info.direction == "max" else 1.0
    return sorted(standings, key=lambda one: (sign * one.value("validation", info.objective), one.backbone))


def _read(run_dir: Path, runs: tuple[FinalRun, ...], info: RunInfo, problems: list[str]) -> tuple[Answers, ...]:
    found, score = [], "accuracy" if info.task.kind == "classes" else "rmse"
    for run in runs:
        try:
            answers = read_answers(run.folder(run_dir), info.task)
        except DataError as error:
            problems.append(f"The answers of {run.backbone}, seed {run.seed_index + 1}, cannot be used: {error}.")
            continue
        columns = columns_of(answers, info.task, averaged=False)
        assert columns is not None
        given, measured = columns.observed()[score], run.metric("test", score)
        if not abs(given - measured) < _TOLERANCE:
            problems.append(
                f"The answers of {run.backbone}, seed {run.seed_index + 1}, give a test {score} of {given:.4f}, "
                f"but {measured:.4f} was measured: they are left out."
            )
            continue
        found.append(answers)
    return tuple(found)


def _same_galaxies(answers: dict[str, tuple[Answers, ...]], problems: list[str]) -> dict[str, tuple[Answers, ...]]:
    """Leave out answers for other galaxies than the first backbone's: they cannot be paired."""
    reference = next((found[0] for found in answers.values() if found), None)
    if reference is None:
        return answers
    kept = {name: tuple(one for one in found if one.same_galaxies(reference)) for name, found in answers.items()}
    for name, found in answers.items():
        if len(kept[name]) < len(found):
            problems.append(f"Answers of {name} are for other test galaxies than the first backbone's: left out.")
    return kept


def _point_scores(runs: tuple[FinalRun, ...], info: RunInfo) -> dict[str, dict[str, Estimate]]:
    rows = {row: [(run.metrics.get(split) or {}) for run in runs] for row, split in SPLITS.items()}
    rows[AVERAGED] = [(run.metrics_tta.get("test") or {}) for run in runs]
    return {
        row: {
            name: Estimate(mean_of(values), spread_of(values))
            for name in METRICS[info.task.kind]
            for values in [[one.get(name, math.nan) for one in measured]]
        }
        for row, measured in rows.items()
    }


Bounds = dict[str, tuple[float, float, float, float]]


def _intervals(answers: dict[str, tuple[Answers, ...]], info: RunInfo) -> dict[str, dict[str, Bounds]]:
    """For each backbone, `test` and `averaged`, each score's mean and spread over seeds and its interval.

    Recall and precision of a class have Wilson's interval, which holds for few galaxies; all else the bootstrap's.
    What a class without galaxies, or never answered, does not have is NaN. The interval of the calibration error is
    that of the error freed of its bias, which is a score of its own, as is what chance alone would make.
    """
    sets: list[tuple[str, str, list[Columns]]] = []
    for name, found in answers.items():
        for row in ("test", AVERAGED) if found else ():
            made = [columns_of(one, info.task, averaged=row == AVERAGED) for one in found]
            present = [one for one in made if one is not None]
            if len(present) == len(found):
                sets.append((name, row, present))
    # One draw of the galaxies for all: intervals are those of means over seeds.
    columns = [one.values for _, _, present in sets for one in present]
    draws = iter(resampled_together(columns, seed=bootstrap_seed(info)) if columns else [])
    result: dict[str, dict[str, Bounds]] = {}
    for name, row, present in sets:
        means = [next(draws) for _ in present]
        replicates = [one.scores(drawn) for one, drawn in zip(present, means, strict=True)]
        observed = [one.observed() for one in present]
        bounds = result.setdefault(name, {}).setdefault(row, {})
        for score in observed[0]:
            values = [one[score] for one in observed]
            value, spread = mean_of(values), spread_of(values)
            kind, _, index = score.partition(":")
            if info.task.kind == "classes" and index:
                galaxies, given = _class_sizes(answers[name], int(index), averaged=row == AVERAGED)
                size = {"recall": galaxies, "precision": given}.get(kind, galaxies + given)
                if not size:
                    bounds[score] = (math.nan, math.nan, math.nan, math.nan)
                    continue
                if kind != "f1":
                    bounds[score] = (value, spread, *wilson_interval(value, size))
                    continue
            mean = np.mean([one[score] for one in replicates], axis=0)
            bounds[score] = (value, spread, *percentile_interval(mean))
        if (calibration := calibration_error(present, means)) is not None:
            unbiased, low, high, by_chance = calibration
            bounds["ece"] = (*bounds["ece"][:2], low, high)
            bounds[UNBIASED_ECE] = (unbiased, math.nan, low, high)
            bounds[CHANCE_ECE] = (by_chance, math.nan, math.nan, math.nan)
    return result


def _class_sizes(answers: tuple[Answers, ...], index: int, *, averaged: bool) -> tuple[int, float]:
    """Test galaxies of a class, and how many are given it, mean over seeds."""
    outputs = [one.averaged if averaged else one.outputs for one in answers]
    given = [int((one.argmax(axis=1) == index).sum()) for one in outputs if one is not None]
    return int((answers[0].targets == index).sum()), mean_of(given)


def bootstrap_seed(info: RunInfo) -> int:
    """The seed of all draws of galaxies of a run."""
    return derive_seed(info.seed, "bootstrap", info.survey_digest)


def mean_of(values: Iterable[float]) -> float:
    """Mean over seeds; NaN of none."""
    known = list(values)
    return math.fsum(known) / len(known) if known else math.nan


def spread_of(values: Sequence[float]) -> float:
    """Standard deviation over seeds; NaN with fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
