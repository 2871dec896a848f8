"""ASHA over epochs, with rungs of each backbone's own, in whole numbers."""

import math
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from galaxy_models.task import Direction

REDUCTION_FACTOR = 3


def rung_epochs(max_epochs: int) -> tuple[int, ...]:
    """The epochs after which trials are compared, in ascending order: 1, 3, 9, 27 ...

    Counted in whole numbers: a logarithm loses the rung at 81 of 243 epochs, since log(243)/log(3) = 4.999...

    Args:
        max_epochs: epochs of a trial that is never stopped; not a rung, since nothing is left to stop.
    """
    rungs = []
    epochs = 1
    while epochs < max_epochs:
        rungs.append(epochs)
        epochs *= REDUCTION_FACTOR
    return tuple(rungs)


class BackboneAsha(FIFOScheduler):
    """Tune's ASHA, once for each space: a VGG is compared with other VGGs, not with a small network.

    A trial whose objective is not finite never enters a rung.

    Args:
        max_epochs: epochs of a trial that is not stopped.
        direction: which way the objective is better.
    """

    def __init__(self, max_epochs: int, direction: Direction) -> None:
        super().__init__()
        self._max_epochs = max_epochs
        self._direction = direction
        self._by_space: dict[str, AsyncHyperBandScheduler] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take part in Tune's set-up; the objective is known already."""
        return True

    def _asha(self, trial: Trial) -> AsyncHyperBandScheduler:
        space = trial.config["space"]
        if space not in self._by_space:
            asha = AsyncHyperBandScheduler(
                time_attr="epoch",
                metric="objective",
                mode=self._direction,
                max_t=self._max_epochs,
                grace_period=1,
                reduction_factor=REDUCTION_FACTOR,
            )
            (bracket,) = asha._brackets
            bracket._rungs = [(epochs, {}) for epochs in reversed(rung_epochs(self._max_epochs))]
            self._by_space[space] = asha
        return self._by_space[space]

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Enter a trial in its space's bracket."""
        self._asha(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Take a failed trial out."""
        self._asha(trial).on_trial_remove(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Compare a trial at its rung; stop it where it is not among the best third."""
        if not math.isfinite(result["objective"]):
            return TrialScheduler.CONTINUE
        decision: str = self._asha(trial).on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Note a trial's end."""
        if math.isfinite(result.get("objective", math.nan)):
            self._asha(trial).on_trial_complete(tune_controller, trial, result)
        else:
            self._asha(trial).on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Take a trial out that never ran."""
        self._asha(trial).on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        """Where the rungs stand."""
        return "\n".join(f"{space}: {asha.debug_string()}" for space, asha in self._by_space.items())

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its scheduler; nothing reads that, since the study is the record."""
        return {}
