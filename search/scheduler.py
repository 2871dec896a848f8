"""Tune's view of the ledger's decisions: writes each epoch down and says whether the trial goes on."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from galaxy_models.cli import machine_fault
from galaxy_models.errors import GalaxyError
from search.ledger import Ledger

# What Tune adds to a result, and what the study need not keep.
_METRIC_PREFIXES = ("train_", "val_")
_MEASURED = (
    "epoch", "epoch_s", "learning_rate", "data_wait_share", "images_per_s", "handover_s", "micro_batch", "energy_j",
    "cpu_energy_j", "gpu_energy_j",
)  # fmt: skip


class LedgerScheduler(FIFOScheduler):
    """Hands each epoch to the ledger, whose rules stop weak trials, each space's own.

    The epoch and the decision become one event in the journal: no kill comes between them.

    Args:
        ledger: the run's ledger.

    Attributes:
        fault: a journal that could not be written, which must end the search.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self.fault: Exception | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take part in Tune's set-up; the objective is known already."""
        return True

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Write an epoch down; stop the trial where the ledger says so."""
        if "waiting" in result or self.fault is not None:
            return TrialScheduler.CONTINUE
        metrics = {key: value for key, value in result.items() if key in _MEASURED or key.startswith(_METRIC_PREFIXES)}
        try:
            goes_on = self._ledger.report(trial.trial_id, metrics)
        except (OSError, GalaxyError) as error:
            # Kept for the driver: raised here, Tune would bury it under its own.
            self.fault = machine_fault(error, "the run's folder") or error
            return TrialScheduler.CONTINUE
        return TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """None: Tune starts what is pending by itself, and to look for it here would take longer with every trial."""
        return None

    def debug_string(self) -> str:
        """Tune's name for what decides."""
        return "LedgerScheduler"

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its scheduler; nothing reads that, since the study is the record."""
        return {}
