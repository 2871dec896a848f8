"""Whether a space's search has nothing more to find."""

import math
import warnings
from typing import TYPE_CHECKING

from galaxy_models.seeds import derive_seed
from search.samplers import grid_values

if TYPE_CHECKING:
    from search.account import Account
    from search.ledger import Converged
    from search.preflight import Plan

# Trials before the terminator's model is worth asking, and between two times it is asked: it takes seconds.
MIN_TRIALS = 20
ASK_EVERY = 5


def make_test(terminator: bool, sampler: str, plan: "Plan", *, seed: int) -> "Converged | None":
    """Make the test that a search ends its spaces by; None if there is none.

    Args:
        terminator: ask Optuna's terminator.
        sampler: the sampler's name: a grid has an end.
        plan: what is searched.
        seed: the run's.
    """
    if sampler == "grid":
        sizes = {
            name: math.prod(len(values) for values in grid_values(distributions, plan.fixed[name]).values())
            for name, distributions in plan.distributions.items()
        }
        return lambda account: (
            f"{account.name}: all {sizes[account.name]} points of the grid have had their trial"
            if account.started >= sizes[account.name]
            else ""
        )
    return _ask_now_and_then(seed) if terminator else None


def _ask_now_and_then(seed: int) -> "Converged":
    """Optuna's terminator, whose last word on a space stands until it is asked again."""
    said: dict[str, str] = {}

    def converged(account: "Account") -> str:
        complete = account.counts["complete"]
        if complete >= MIN_TRIALS and (account.name not in said or complete % ASK_EVERY == 0):
            said[account.name] = ask_terminator(account, seed=seed)
        return said.get(account.name, "")

    return converged


def ask_terminator(account: "Account", *, seed: int) -> str:
    """Why no better trial is to be expected; empty if one is.

    Optuna's terminator compares the improvement that a Gaussian process still expects with the one it expected
    early in the search.

    Source:
        Ishibashi et al. 2023, "A stopping criterion for Bayesian optimization by the gap of expected minimum simple
        regrets", AISTATS.
    """
    from optuna import terminator
    from optuna.exceptions import ExperimentalWarning

    complete = account.counts["complete"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)  # Optuna 5 still has it, and means to drop it
        improvement = terminator.EMMREvaluator(seed=derive_seed(seed, "terminator", account.name) % 2**32)
        error = terminator.MedianErrorEvaluator(paired_improvement_evaluator=improvement)
        judge = terminator.Terminator(improvement, error, min_n_trials=MIN_TRIALS)
        ends = judge.should_terminate(account.study)
    return f"{account.name} has converged, by Optuna's terminator, after {complete} complete trials" if ends else ""
