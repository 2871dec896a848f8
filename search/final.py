"""The final evaluation of each backbone: its best trial's weights on every split. Only here are test galaxies seen."""

from collections.abc import Mapping
from pathlib import Path

import ray

from galaxy_models.errors import GalaxyError
from search.experiment import Job
from search.ledger import Entry
from search.report.collect import SPLITS, FinalEvaluation
from search.trial import weights_path


def evaluate_best(job: Job, best: Mapping[str, Entry]) -> dict[str, FinalEvaluation]:
    """Evaluate each space's best trial, each on the resources of a trial.

    Args:
        job: the search.
        best: the best trial of each space that has one.

    Raises:
        GalaxyError: the survey or the weights cannot be read any more.
    """
    remote = ray.remote(num_cpus=job.places.cpus_per_trial, num_gpus=job.places.gpus_per_trial)(evaluate_trial)
    waiting = {name: remote.remote(name, entry.number, job.constants()) for name, entry in best.items()}
    try:
        return {name: ray.get(reference) for name, reference in waiting.items()}
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, GalaxyError):
            raise error.cause from error
        raise


def evaluate_trial(space: str, number: int, constants: Mapping[str, str | int]) -> FinalEvaluation:
    """Evaluate a trial's best weights on the train, validation and test galaxies, none of them augmented.

    Args:
        space: the space's name.
        number: the trial's number in its study.
        constants: `Job.constants()`.
    """
    from galaxy_models.training.checkpoint import load_model
    from galaxy_models.training.loop import evaluate
    from galaxy_models.training.runtime import Runtime
    from galaxy_models.training.survey import SurveyData

    run_dir = Path(str(constants["run_dir"]))
    path = weights_path(run_dir, space, number)
    model, config, _ = load_model(path)
    runtime = Runtime(device=str(constants["device"]), threads=int(constants["threads"]), weights_dir=None)
    survey = SurveyData(Path(str(constants["data"])))
    metrics: dict[str, dict[str, float]] = {}
    images_per_s = 0.0
    for name, split in SPLITS.items():
        measured = evaluate(model, survey, split, config=config, runtime=runtime)
        images_per_s = measured.pop("images_per_s")
        metrics[name] = measured
    return FinalEvaluation(
        backbone=space,
        trial=number,
        metrics=metrics,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        images_per_s=images_per_s,
        weights_file=path.relative_to(run_dir).as_posix(),
    )
