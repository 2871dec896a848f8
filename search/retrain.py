"""One retraining of a finalist on a worker: trained from scratch, then evaluated once on every split.

What is done is kept after every epoch, so that a worker that died, or a search that was stopped, goes on from there.
"""

import gc
import math
import platform
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from galaxy_models.cli import machine_fault
from galaxy_models.data.manifest import SPLIT_NAMES
from galaxy_models.errors import GalaxyError, WeightsError
from search.errors import PeerDiedError, StorageError
from search.files import ERRORS
from search.finalist import FinalJob, FinalSetting
from search.limit import limited
from search.nodes import check_software, this_software
from search.peers import trainers
from search.pulse import Pulse
from search.results import PREDICTIONS_NAME, RESULT_NAME, WEIGHTS_NAME, FinalRun, save_result
from search.run_files import RunFiles

if TYPE_CHECKING:
    from galaxy_models.training.loop import Trainer
    from galaxy_models.training.runtime import Runtime
    from galaxy_models.training.survey import SurveyData

STATE_NAME = "state.pt"
TEST = "test"


@dataclass
class _Progress:
    """How far a training is.

    Attributes:
        best_value: the best validation objective so far; NaN before the first.
        best_epoch: its epoch, from 1; 0 before the first.
        epochs: epochs done.
        seconds: time spent in them.
        energy_j: joules that they took; None where none could be measured.
    """

    best_value: float = math.nan
    best_epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    energy_j: float | None = None

    def note(self, metrics: dict[str, float], setting: FinalSetting) -> bool:
        """Take an epoch's metrics in; whether it is the best so far."""
        self.epochs = int(metrics["epoch"])
        self.seconds += metrics["epoch_s"]
        if "energy_j" in metrics:
            self.energy_j = (self.energy_j or 0.0) + metrics["energy_j"]
        value = metrics[f"val_{setting.metric}"]
        sign = 1.0 if setting.direction == "min" else -1.0
        is_best = math.isfinite(value) and not sign * value >= sign * self.best_value
        if is_best:
            self.best_value, self.best_epoch = value, self.epochs
        return is_best


class NoResultError(Exception):
    """A training that came to its end and left nothing to evaluate; its message says why.

    Args:
        words: why.
        progress: how far it came.
    """

    def __init__(self, words: str, progress: _Progress) -> None:
        super().__init__(words)
        self.progress = progress


def attempt(job: FinalJob, setting: FinalSetting, worker: str = "") -> FinalRun:
    """Retrain, and turn whatever goes wrong into a result that says so; one failure takes nothing from the others.

    Args:
        job: see `retrain`.
        setting: likewise.
        worker: the name by which the driver knows who does it, for its signs of life.

    Raises:
        PeerDiedError: one of its processes is gone; it can go on in others.
    """
    pulse = Pulse(worker, setting.silence_s)
    with pulse.working():
        try:
            files = RunFiles.of_worker(setting.run_dir, setting.storage, confirm=pulse.confirm, tell=pulse.tell)
            return _attempt(job, setting, files)
        finally:
            pulse.close()


def _attempt(job: FinalJob, setting: FinalSetting, files: RunFiles) -> FinalRun:
    setting = replace(setting, run_dir=files.root)
    try:
        return retrain(job, setting, files)
    except PeerDiedError:
        raise
    except Exception as error:
        files.until_done(files.confirm)
        fault = machine_fault(error, setting.run_dir) or error
        words = " ".join(str(fault).split())
        if not isinstance(fault, GalaxyError):
            words = f"{type(error).__name__}: {words:.300}"
            log = setting.run_dir / ERRORS / f"final-{job.backbone}-{job.rank}-{job.seed_index}.txt"
            with suppress(OSError, StorageError):
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(traceback.format_exc(), encoding="utf-8")
                files.keep(log)
        result = fail(job, setting, words)
        with suppress(OSError, StorageError):
            files.keep(setting.folder(job) / RESULT_NAME)
        return result
    finally:
        files.clear()


def fail(job: FinalJob, setting: FinalSetting, words: str) -> FinalRun:
    """Record that a retraining gave nothing, and why; its state is kept, so that a resumed search goes on from it."""
    result = job.result(failure=words)
    with suppress(OSError):
        save_result(setting.run_dir, result)
    return result


def retrain(job: FinalJob, setting: FinalSetting, files: RunFiles | None = None) -> FinalRun:
    """Train a configuration, evaluate the weights of its best epoch, and write all of it into the job's folder.

    `result.json` is written last. A training that diverges is a result, too.

    Args:
        job: what to train.
        setting: on what, where, and what counts as best.
        files: the run's, which have the job's folder; None = all that is in the run's folder.

    Returns:
        What was written.
    """
    from galaxy_models.training.runtime import Runtime
    from galaxy_models.training.survey import SurveyData

    files = files or RunFiles(setting.run_dir, None)
    folder = setting.folder(job)
    folder.mkdir(parents=True, exist_ok=True)
    # What a process that was killed had not finished writing.
    for path in folder.glob(".*"):
        path.unlink()
    if setting.software is not None:
        check_software(setting.software, this_software(), platform.node())
    survey = SurveyData(files.until_done(setting.shards.local))
    runtime = Runtime(
        device=setting.device,
        threads=setting.threads,
        weights_dir=setting.weights_dir,
        gpu_share=setting.gpu_share,
    )
    try:
        with trainers(setting.processes, setting.shards) as make:
            # Its other processes may have to fetch the survey.
            trainer = files.until_done(partial(make, job.config, survey, runtime=runtime, micro_batch=job.micro_batch))
            progress = _train(job, setting, files, survey, trainer)
        result = _evaluate(job, setting, files, survey, runtime, progress)
    except NoResultError as error:
        # No other command shall take them for a network that was evaluated.
        files.until_done(lambda: files.remove(folder / WEIGHTS_NAME))
        spent = {name: getattr(error.progress, name) for name in ("epochs", "seconds", "energy_j")}
        result = job.result(failure=str(error), **spent)
    _write(files, folder / RESULT_NAME, lambda _: save_result(setting.run_dir, result))
    files.until_done(lambda: files.remove(folder / STATE_NAME))
    return result


def _train(
    job: FinalJob, setting: FinalSetting, files: RunFiles, survey: "SurveyData", trainer: "Trainer"
) -> _Progress:
    """Train to the last epoch, from where an earlier attempt stopped; the best epoch's weights are then on disk."""
    from galaxy_models.training.checkpoint import save_state

    folder = setting.folder(job)
    identity = {"config": job.config.to_dict(), "survey_digest": survey.manifest.digest}
    files.until_done(lambda: files.fetch(folder / STATE_NAME))
    progress = _resume(trainer, folder / STATE_NAME, identity)
    if progress.epochs:
        files.until_done(lambda: files.fetch(folder / WEIGHTS_NAME))
    else:
        # Of another configuration or survey.
        files.until_done(lambda: files.remove(folder / WEIGHTS_NAME))
    hung = files.node_root / ERRORS / f"final-{job.backbone}-{job.rank}-{job.seed_index}-hung.txt"
    while trainer.epoch < job.config.epochs:
        with ExitStack() as stack:
            files.until_done(lambda: stack.enter_context(limited(hung, setting.timeout_s)))
            metrics = trainer.run_epoch()
        if metrics["diverged"]:
            words = f"training diverged in epoch {metrics['epoch']:.0f}: loss or answers are not finite"
            raise NoResultError(words, progress)
        if progress.note(metrics, setting):
            _write(files, folder / WEIGHTS_NAME, trainer.save_weights)
        # After the weights: an attempt that dies in between does this epoch again, and writes the same weights.
        state = {"trainer": trainer.state_dict(), "progress": vars(progress), **identity}
        _write(files, folder / STATE_NAME, partial(save_state, state=state))
    if not progress.best_epoch:
        raise NoResultError(f"val_{setting.metric} was never a finite number", progress)
    return progress


def _write(files: RunFiles, path: Path, write: Callable[[Path], object]) -> None:
    """Write a file and keep it, as soon as the disk has room and the storage answers."""

    def work() -> None:
        files.confirm()
        write(path)
        files.keep(path)

    files.until_done(work)


def _resume(trainer: "Trainer", state_file: Path, identity: dict[str, Any]) -> _Progress:
    """Bring a trainer to where an earlier attempt stopped, if there was one of this configuration and survey."""
    from galaxy_models.training.checkpoint import load_state

    try:
        state = load_state(state_file)
    except WeightsError:
        return _Progress()
    if any(state.get(name) != value for name, value in identity.items()):
        return _Progress()
    trainer.load_state_dict(state["trainer"])
    return _Progress(**state["progress"])


def _evaluate(
    job: FinalJob,
    setting: FinalSetting,
    files: RunFiles,
    survey: "SurveyData",
    runtime: "Runtime",
    progress: _Progress,
) -> FinalRun:
    """Answer for every galaxy with the weights on disk, and write the answers."""
    import torch

    from galaxy_models.inference.answers import answer_split, measure_answers
    from galaxy_models.inference.cost import count_flops, measure_memory_mb, measure_speed
    from galaxy_models.inference.network import load_network
    from galaxy_models.inference.predictions import Predicted, write_predictions
    from galaxy_models.training.runtime import resolve_precision

    gc.collect()
    folder = setting.folder(job)
    network = load_network(folder / WEIGHTS_NAME)
    precision = resolve_precision(job.config.precision, runtime.activate())
    model = network.model.to(precision.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    common: dict[str, Any] = {"image_px": network.px, "precision": precision}
    predicted = {}
    for name in SPLIT_NAMES:
        split = survey.split(name)
        answers = answer_split(model, split, survey.task, average=name == TEST, **common)
        predicted[name] = Predicted(split.ids, split.targets, answers)
    _write(files, folder / PREDICTIONS_NAME, lambda path: write_predictions(path, survey.task, predicted))
    targets = {name: torch.from_numpy(one.targets) for name, one in predicted.items()}
    averaged = predicted[TEST].answers.averaged
    assert averaged is not None
    return job.result(
        best_epoch=progress.best_epoch,
        epochs=progress.epochs,
        seconds=progress.seconds,
        energy_j=progress.energy_j,
        metrics={
            name: measure_answers(survey.task, one.answers.plain, targets[name]) for name, one in predicted.items()
        },
        metrics_tta={TEST: measure_answers(survey.task, averaged, targets[TEST])},
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        flops=count_flops(model, image_px=network.px),
        images_per_s=measure_speed(model, survey.split("train"), survey.task, **common),
        memory_mb=measure_memory_mb(model, **common),
    )
