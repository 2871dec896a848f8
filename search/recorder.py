"""Writes what Tune sees into the ledger, and keeps the weights of each backbone's best trial."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from galaxy_models.cli import machine_fault
from galaxy_models.errors import GalaxyError
from search.ledger import Ledger
from search.trial import weights_path

# What Tune adds to a result, and what the study need not keep.
_METRIC_PREFIXES = ("train_", "val_")
_MEASURED = ("epoch", "epoch_s", "learning_rate", "data_wait_share", "images_per_s", "handover_s")
# `weights_path`, or the hidden file that becomes one.
_WEIGHTS_FILE = re.compile(r"(?P<partial>\.?)trial-(?P<number>\d+)-epoch-(?P<epoch>\d+)\.safetensors.*")

# One failed trial is bad luck; this many without an epoch between them are a bug that the next trial meets too.
MAX_FAULTS_IN_A_ROW = 3


class Recorder(Callback):
    """Tells the ledger of every epoch and every end.

    Args:
        ledger: the run's ledger.
        run_dir: the run's folder.

    Attributes:
        handovers_s: for each trial that followed another in its worker, the time between them.
        fault: what must end the search: something the user can mend, or a disk that takes no more.
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
        with self._disk():
            entry = self._ledger.record(trial.trial_id, metrics)
            self._faults_in_a_row[entry.space] = 0
            if entry.best_epoch == entry.epochs:
                self._sweep(entry.space)
        if "handover_s" in result:
            self.handovers_s.append(result["handover_s"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Close a trial that ASHA stopped, that ran to its end, that diverged or met a fault."""
        last = trial.last_result
        with self._disk():
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
        with self._disk():
            self._close_fault(trial.trial_id, "the worker process died: killed, or out of memory", None)
            self._sweep(self._ledger.entries[trial.trial_id].space)

    def close(self, reason: str) -> None:
        """Close the trials that the search's end cut short."""
        with self._disk():
            for key in list(self._ledger.live):
                self._ledger.finish(key, "stopped", reason)
            for space in self._ledger.spaces:
                self._sweep(space)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn a disk that takes no more into the search's fault: raised here, Tune would bury it under its own."""
        try:
            yield
        except OSError as error:
            fault = machine_fault(error, self._run_dir)
            if fault is None:
                raise
            self.fault = self.fault or fault

    def _close_fault(self, key: str, words: str, exit_code: int | None) -> None:
        entry = self._ledger.finish(key, "failed", words)
        where = f"{entry.space}, trial {entry.number}"
        self._faults_in_a_row[entry.space] += 1
        if exit_code is not None:
            fault = GalaxyError(f"{where}: {words}")
            fault.exit_code = exit_code
            self.fault = self.fault or fault
        elif self._faults_in_a_row[entry.space] >= MAX_FAULTS_IN_A_ROW:
            self._ledger.given_up[entry.space] = (
                f"{where}: {words}: the last {MAX_FAULTS_IN_A_ROW} trials of this space failed one after the other, "
                f"so it gets no more: see {self._run_dir / 'errors'}"
            )

    def _sweep(self, space: str) -> None:
        """Delete weights that can no longer be a best trial's: of ended trials, and of epochs that were beaten."""
        folder = weights_path(self._run_dir, space, 0, 0).parent
        if not folder.is_dir():
            return
        live = {entry.number: entry for entry in self._ledger.live.values() if entry.space == space}
        best = self._ledger.best.get(space)
        wanted = {weights_path(self._run_dir, space, best.number, best.best_epoch).name} if best else set()
        for path in folder.iterdir():
            found = _WEIGHTS_FILE.fullmatch(path.name)
            running = live.get(int(found["number"])) if found else None
            # A running trial may have written an epoch that is not reported yet.
            newest = running is not None and found is not None and int(found["epoch"]) >= running.best_epoch
            partial = found is not None and bool(found["partial"])
            if path.name not in wanted and not newest and (running is None or not partial):
                path.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}
