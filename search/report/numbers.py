"""The numbers behind the page, as tables to be read by machine."""

from typing import TYPE_CHECKING

import numpy as np

from search.report.evidence.classes import confusion
from search.report.figures.results import cost_of
from search.report.findings import Findings

if TYPE_CHECKING:
    import pandas as pd


def score_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone, split and score; those of a class or vote fraction are named like `recall:<class>`."""
    import pandas as pd

    names = findings.info.task.names
    rows = []
    for backbone, standing in findings.standings.items():
        for row, scores in standing.scores.items():
            for score, found in scores.items():
                kind, _, index = score.partition(":")
                label = f"{kind}:{names[int(index)]}" if index else score
                rows.append(
                    (backbone, standing.trial, row, label, found.value, found.spread, found.low, found.high,
                     len(standing.runs))
                )  # fmt: skip
    columns = ["backbone", "trial", "split", "score", "value", "spread_over_seeds", "low", "high", "num_seeds"]
    return pd.DataFrame(rows, columns=columns)


def cost_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone: what its network costs."""
    import pandas as pd

    keys = ("num_parameters", "flops", "images_per_s", "memory_mb")
    rows = [(name, *(cost_of(one, key) for key in keys)) for name, one in findings.standings.items()]
    return pd.DataFrame(rows, columns=["backbone", "num_parameters", "gflops", "images_per_s", "memory_mb"])


def pair_table(findings: Findings) -> "pd.DataFrame":
    """A row a pair of backbones."""
    import pandas as pd

    columns = [
        "first", "second", "difference", "low", "high", "first_better", "second_better", "p_bootstrap", "p_mcnemar",
        "p_adjusted", "seed_error", "differs",
    ]  # fmt: skip
    rows = [tuple(getattr(pair, name) for name in columns) for pair in findings.pairs]
    return pd.DataFrame(rows, columns=columns)


def confusion_table(findings: Findings) -> "pd.DataFrame":
    """A row a backbone, true class and answer; empty for votes."""
    import pandas as pd

    names, rows = findings.info.task.names, []
    classes = findings.info.task.kind == "classes"
    for backbone, standing in findings.standings.items():
        if classes and standing.answers:
            counts = confusion(standing)
            rows += [(backbone, names[i], names[j], counts[i, j]) for i, j in np.ndindex(*counts.shape)]
    return pd.DataFrame(rows, columns=["backbone", "true", "answered", "mean_galaxies"])
