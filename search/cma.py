"""CMA-ES whose state is told anew from the study, where Optuna's would be unpickled from it."""

from typing import TYPE_CHECKING, Any

from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

from search.entry import end_time

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution


class RetoldCmaEsSampler(CmaEsSampler):
    """Optuna's CMA-ES, without its pickles: a run's folder may come from somebody else.

    The distribution follows from the solutions that it was told, generation after generation, and those are in the
    study. It is one over the numbers that all complete trials have. Where a complete trial of another branch of the
    space leaves fewer of them, it is told anew over these, as a resumed search would.

    Args:
        kept: where the state is kept between the trials of a session, with the parameters that it is one over; empty
            at the session's start.
        options: as Optuna's sampler takes them.
    """

    def __init__(self, kept: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self._kept = kept
        self._told: list[FrozenTrial] = []
        self._over: dict[str, BaseDistribution] = {}

    def sample_relative(
        self, study: "optuna.Study", trial: FrozenTrial, search_space: "dict[str, BaseDistribution]"
    ) -> dict[str, Any]:
        """Draw the numbers that all complete trials have."""
        self._over = search_space
        if self._kept.get("over") != search_space:
            self._kept.clear()
            self._kept["over"] = search_space
        return super().sample_relative(study, trial, search_space)

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> Any:
        self._told = completed_trials
        optimizer = self._kept.get("optimizer")
        if optimizer is not None:
            # As making it anew draws: the next draw must not depend on what a session remembers.
            self._cma_rng.rng.randint(1, 2**31 - 2)
        return optimizer

    def _get_solution_trials(self, trials: list[FrozenTrial], generation: int) -> list[FrozenTrial]:
        found = super()._get_solution_trials(trials, generation)
        # A trial that was stopped may lack a number that all complete ones have, or have had another range for it.
        whole = [one for one in found if self._over.items() <= one.distributions.items()]
        # In the order of their ends: the first of a generation stay the first, whatever ends after they were told.
        return sorted(whole, key=end_time)

    def _init_optimizer(self, trans: Any, direction: Any) -> Any:
        optimizer = super()._init_optimizer(trans, direction)
        sign = 1.0 if direction.name == "MINIMIZE" else -1.0
        size = optimizer.population_size
        while len(solutions := self._get_solution_trials(self._told, optimizer.generation)) >= size:
            optimizer.tell([(trans.transform(one.params), sign * float(one.value or 0.0)) for one in solutions[:size]])
        self._kept["optimizer"] = optimizer
        return optimizer

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        return {}
