"""Writes what Tune sees into the ledger, and keeps the weights of each backbone's best trial."""

from collections import Counter
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from galaxy_models.errors import GalaxyError
from search.errors import SearchFault
from search.ledger import Ledger
from search.trial import weights_path

# What Tune adds to a result, and what the study need not keep.
_METRIC_PREFIXES = ("train_", "val_")
_MEASURED = ("epoch", "epoch_s", "learning_rate", "data_wait_share", "images_per_s", "handover_s")

# One failed trial is bad luck; this many without an epoch between them are a bug that the next trial meets too.
MAX_FAULTS_IN_A_ROW = 3


class Recorder(Callback):
    """Tells the ledger of every epoch and every end.

    Args:
        ledger: the run's ledger.
        run_dir: the run's folder.

    Attributes:
        handovers_s: for each trial that followed another in its worker, the time between them.
        fault: what must end the search: a fault that the user can mend, or one that comes again and again.
    """

    def __init__(self, ledger: Ledger, run_dir: Path) -> None:
        self._ledger = ledger
        self._run_dir = run_dir
        self._faults_in_a_row: Counter[str] = Counter()
        self.handovers_s: list[float] = []
        self.fault: GalaxyError | None = None

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Write one epoch."""
        if "fault" in result or result["diverged"]:
            return
        metrics = {key: value for key, value in result.items() if key in _MEASURED or key.startswith(_METRIC_PREFIXES)}
        entry = self._ledger.record(trial.trial_id, metrics)
        self._faults_in_a_row[entry.space] = 0
        if "handover_s" in result:
            self.handovers_s.append(result["handover_s"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Close a trial that ASHA stopped, that ran to its end, that diverged or met a fault."""
        last = trial.last_result
        if "fault" in last:
            self._close_fault(trial.trial_id, last["fault"], last.get("fault_exit_code"))
        elif last.get("diverged"):
            epoch = int(last["epoch"])
            self._ledger.finish(trial.trial_id, "failed", f"diverged in epoch {epoch}: the loss was not finite")
        else:
            self._ledger.finished(trial.trial_id)
        self._sweep(self._ledger.entries[trial.trial_id].space)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Close a trial whose worker died."""
        self._close_fault(trial.trial_id, "the worker process died: killed, or out of memory", None)
        self._sweep(self._ledger.entries[trial.trial_id].space)

    def close(self, reason: str) -> None:
        """Close the trials that the search's end cut short."""
        for key in list(self._ledger.live):
            self._ledger.finish(key, "stopped", reason)
        for space in self._ledger.spaces:
            self._sweep(space)

    def _close_fault(self, key: str, words: str, exit_code: int | None) -> None:
        entry = self._ledger.finish(key, "failed", words)
        where = f"{entry.space}, trial {entry.number}"
        self._faults_in_a_row[entry.space] += 1
        if exit_code is not None:
            self.fault = self.fault or GalaxyError(f"{where}: {words}")
            self.fault.exit_code = exit_code
        elif self._faults_in_a_row[entry.space] >= MAX_FAULTS_IN_A_ROW:
            self.fault = self.fault or SearchFault(
                f"{where}: {words}: the last {MAX_FAULTS_IN_A_ROW} trials of this space all failed, so the search "
                f"ends: see {self._run_dir / 'errors'}"
            )

    def _sweep(self, space: str) -> None:
        """Delete the weights of trials that ended and are not the best."""
        kept = {entry.number for entry in self._ledger.live.values() if entry.space == space}
        if space in self._ledger.best:
            kept.add(self._ledger.best[space].number)
        wanted = {weights_path(self._run_dir, space, number).name for number in kept}
        folder = weights_path(self._run_dir, space, 0).parent
        for path in folder.glob("trial-*.safetensors") if folder.is_dir() else ():
            if path.name not in wanted:
                path.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}
