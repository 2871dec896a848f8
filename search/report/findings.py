"""All that a report says of one run: what was asked, every trial, and what the final evaluation showed."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from search.report.collect import Trials
from search.report.evidence.pairs import Pair
from search.report.evidence.standing import Evidence, Standing
from search.report.run_info import RunInfo

if TYPE_CHECKING:
    import pandas as pd

LABELS = {
    "nll": "NLL", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "precision": "Precision",
    "recall": "Recall", "f1": "F1", "auroc": "AUROC", "ece": "ECE", "rmse": "RMSE",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Findings:
    """One run.

    Attributes:
        run_dir: its folder.
        info: what was asked.
        trials: every trial.
        evidence: what the final evaluation gave.
        pairs: which backbones differ.
    """

    run_dir: Path
    info: RunInfo
    trials: Trials
    evidence: Evidence
    pairs: tuple[Pair, ...] = ()

    @property
    def standings(self) -> dict[str, Standing]:
        """How each backbone stands, best validation objective first."""
        return self.evidence.standings

    @cached_property
    def order(self) -> tuple[str, ...]:
        """All backbones: best validation objective first, those without a final evaluation last."""
        return (*self.standings, *(name for name in self.trials.backbones if name not in self.standings))

    def color(self, backbone: str) -> int:
        """The backbone's place among the studies, which gives it its colour everywhere."""
        return self.trials.backbones.index(backbone) if backbone in self.trials.backbones else 0

    def chosen_trial(self, backbone: str) -> int | None:
        """The finally evaluated trial, else the best complete one, else the best that got a value, else None."""
        if backbone in self.standings:
            return self.standings[backbone].trial
        table = self.trials.table
        rows = table[(table["backbone"] == backbone) & (table["state"] != "FAIL") & table["value"].notna()]
        complete = rows[rows["state"] == "COMPLETE"]
        rows = rows if complete.empty else complete
        if rows.empty:
            return None
        best = rows["value"].max() if self.info.direction == "max" else rows["value"].min()
        return int(rows["trial"][rows["value"] == best].min())

    @property
    def own_trials(self) -> "pd.DataFrame":
        """The table's rows of trials that trained, not those that took another's recorded result."""
        return self.trials.table[self.trials.table["duplicate_of"].isna()]

    @property
    def objective(self) -> str:
        """The optimised metric's name, for readers."""
        return LABELS.get(self.info.objective, self.info.objective)

    @cached_property
    def majority(self) -> tuple[str, float] | None:
        """The most frequent class among the training galaxies, and its share of the test galaxies."""
        counts = self.info.class_counts
        train, test = counts.get("train", ()), counts.get("test", ())
        if not sum(train) or not sum(test):
            return None
        top = max(range(len(train)), key=lambda index: train[index])
        return self.info.task.names[top], test[top] / sum(test)
