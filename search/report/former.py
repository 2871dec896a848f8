"""The report as `search.job` still asks for it, from evaluations in memory."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.report.collect import FinalEvaluation, collect
from search.report.evidence.pairs import compare
from search.report.evidence.standing import gather
from search.report.findings import Findings
from search.report.run_info import RunInfo
from search.results import FinalRun, load_results

if TYPE_CHECKING:
    import optuna


def findings_of(
    run_dir: Path, studies: "Sequence[optuna.Study]", finals: dict[str, FinalEvaluation], info: RunInfo
) -> Findings:
    """What was found, where there may be no results in the folder."""
    results = load_results(run_dir) or [
        FinalRun(
            backbone=final.backbone, trial=final.trial, rank=0, seed_index=0, seed=0, config={},
            metrics={{"validation": "val"}.get(split, split): values for split, values in final.metrics.items()},
            num_parameters=final.num_parameters, images_per_s=final.images_per_s,
        )
        for final in finals.values()
    ]  # fmt: skip
    evidence = gather(run_dir, results, info)
    pairs = compare(evidence.standings, info)
    return Findings(run_dir=run_dir, info=info, trials=collect(studies), evidence=evidence, pairs=pairs)


def majority_class(info: RunInfo) -> tuple[str, float] | None:
    """The most frequent class among the training galaxies, and its share of the test galaxies."""
    train, test = info.class_counts.get("train", ()), info.class_counts.get("test", ())
    if not sum(train) or not sum(test):
        return None
    top = max(range(len(train)), key=lambda index: train[index])
    return info.task.names[top], test[top] / sum(test)


def ranked(finals: dict[str, FinalEvaluation], info: RunInfo) -> list[FinalEvaluation]:
    """Final evaluations, best validation objective first; those without one last."""
    sign = -1.0 if info.direction == "max" else 1.0

    def key(final: FinalEvaluation) -> tuple[bool, float]:
        value = final.metric("validation", info.objective)
        return (not math.isfinite(value), sign * value if math.isfinite(value) else 0.0)

    return sorted(finals.values(), key=key)
