"""How well the vote fractions of each question of the Galaxy Zoo 2 tree are predicted."""

import numpy as np

from galaxy_models.morphology.tree import GZ2
from search.report.evidence.standing import Estimate, Standing, bootstrap_seed, mean_of, spread_of
from search.report.run_info import RunInfo
from search.statistics import percentile_interval, resampled_together


def question_estimates(standing: Standing, info: RunInfo) -> dict[str, Estimate]:
    """Test RMSE over the answers of each question, by the question's name; empty for other surveys and without answers.

    Args:
        standing: a backbone's.
        info: the run.
    """
    if info.task.names != GZ2.columns or not standing.answers:
        return {}
    # (N, Q) for each seed: mean squared error over the answers of each question.
    errors = [(one.outputs.astype(np.float64) - one.targets) ** 2 for one in standing.answers]
    each = [np.stack([one[:, question.columns].mean(axis=1) for question in GZ2.questions], axis=1) for one in errors]
    draws = np.mean([np.sqrt(one) for one in resampled_together(each, seed=bootstrap_seed(info))], axis=0)
    values = np.sqrt([one.mean(axis=0) for one in each])
    return {
        question.name: Estimate(mean_of(own), spread_of(own), *percentile_interval(draws[:, index]))
        for index, question in enumerate(GZ2.questions)
        for own in [values[:, index].tolist()]
    }
