"""The final evaluation of each backbone: its best trial's weights on every split. Only here are test galaxies seen."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import ray

from search.experiment import Job
from search.ledger import Ledger
from search.report.collect import SPLITS, FinalEvaluation
from search.trial import weights_path


def evaluate_best(job: Job, ledger: Ledger) -> tuple[dict[str, FinalEvaluation], dict[str, str]]:
    """Evaluate each space's best trial, each on the resources of a trial, and write the result into its study.

    Args:
        job: the search.
        ledger: its trials, all ended.

    Returns:
        The evaluations by space; and for each space whose evaluation failed, why: one failure takes nothing from the
        others.
    """
    remote = ray.remote(num_cpus=job.places.cpus_per_trial, num_gpus=job.places.gpus_per_trial)(evaluate_trial)
    waiting = {
        name: remote.remote(name, entry.number, entry.best_epoch, job.constants())
        for name, entry in ledger.best.items()
    }
    finals, failures = {}, {}
    for name, reference in waiting.items():
        try:
            finals[name] = ray.get(reference)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            failures[name] = f"{type(cause).__name__}: {' '.join(str(cause).split()):.300}"
        else:
            ledger.studies[name].set_user_attr("final", asdict(finals[name]))
    return finals, failures


def evaluate_trial(space: str, number: int, epoch: int, constants: Mapping[str, str | int]) -> FinalEvaluation:
    """Evaluate a trial's best weights on the train, validation and test galaxies, none of them augmented.

    Args:
        space: the space's name.
        number: the trial's number in its study.
        epoch: its best epoch.
        constants: `Job.constants()`.
    """
    from galaxy_models.training.checkpoint import load_model
    from galaxy_models.training.loop import evaluate
    from galaxy_models.training.runtime import Runtime
    from galaxy_models.training.survey import SurveyData

    run_dir = Path(str(constants["run_dir"]))
    path = weights_path(run_dir, space, number, epoch)
    model, config, _ = load_model(path)
    runtime = Runtime(device=str(constants["device"]), threads=int(constants["threads"]), weights_dir=None)
    survey = SurveyData(Path(str(constants["data"])))
    metrics = {name: evaluate(model, survey, split, config=config, runtime=runtime) for name, split in SPLITS.items()}
    rates = {name: measured.pop("images_per_s") for name, measured in metrics.items()}
    return FinalEvaluation(
        backbone=space,
        trial=number,
        metrics=metrics,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        images_per_s=rates["train"],
        weights_file=path.relative_to(run_dir).as_posix(),
    )
