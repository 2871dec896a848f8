"""Whether a space's search has nothing more to find."""

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from galaxy_models.seeds import derive_seed
from search.entry import end_time
from search.samplers import grid_values

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

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
    """Optuna's terminator, whose word on a space's first 20, 25, ... complete trials stands until there are five more.

    It follows from the study alone, so that a resumed search gets the same one.
    """
    said: dict[str, tuple[int, str]] = {}

    def converged(account: "Account") -> str:
        numbers = _complete(account)
        count = len(numbers) - len(numbers) % ASK_EVERY
        if count < MIN_TRIALS:
            return ""
        if said.get(account.name, (0, ""))[0] != count:
            trials = account.study.get_trials(deepcopy=False)
            ended = sorted((trials[number] for number in numbers), key=end_time)
            said[account.name] = count, ask_terminator(account, ended[:count], seed=seed)
        return said[account.name][1]

    return converged


def _complete(account: "Account") -> list[int]:
    """The numbers of a space's complete trials, without those that run or report a configuration again."""
    return sorted(one.number for one in account.ranking if one.outcome == "complete" and not one.is_extra)


def ask_terminator(account: "Account", complete: "Sequence[FrozenTrial]", *, seed: int) -> str:
    """Why no better trial is to be expected; empty if one is.

    Optuna's terminator compares the improvement that a Gaussian process still expects with the one it expected
    early in the search.

    Args:
        account: the space's.
        complete: the trials to go by, in the order in which they ended.
        seed: the run's.

    Source:
        Ishibashi et al. 2023, "A stopping criterion for Bayesian optimization by the gap of expected minimum simple
        regrets", AISTATS.
    """
    import optuna
    from optuna import terminator
    from optuna.exceptions import ExperimentalWarning

    study = optuna.create_study(direction=account.study.direction)
    study.add_trials(complete)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)  # Optuna 5 still has it, and means to drop it
        improvement = terminator.EMMREvaluator(seed=derive_seed(seed, "terminator", account.name) % 2**32)
        error = terminator.MedianErrorEvaluator(paired_improvement_evaluator=improvement)
        judge = terminator.Terminator(improvement, error, min_n_trials=MIN_TRIALS)
        ends = judge.should_terminate(study)
    words = f"{account.name} has converged, by Optuna's terminator, after {len(complete)} complete trials"
    return words if ends else ""
