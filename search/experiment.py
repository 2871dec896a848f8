"""Puts searcher, scheduler, trials and callbacks into one Tune experiment over one or more spaces."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console

from search.ledger import Ledger
from search.monitor import Monitor
from search.options import Places, SearchOptions
from search.preflight import Plan
from search.recorder import Recorder
from search.scheduler import BackboneAsha
from search.searcher import StudySearcher
from search.stopper import SearchStopper
from search.study import create_studies
from search.tensorboard import TensorBoard
from search.trial import GalaxyTrial

TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class Job:
    """A search that is about to run.

    Attributes:
        options: what the user asked for.
        plan: what was checked.
        places: how trials share the machine.
        run_dir: where everything is kept.
    """

    options: SearchOptions
    plan: Plan
    places: Places
    run_dir: Path

    @property
    def device(self) -> str:
        """Where trials compute, in torch's words."""
        return "cuda" if self.places.gpus_per_trial else "cpu"

    @property
    def objective(self) -> str:
        """The key of the optimised value among an epoch's metrics."""
        return f"val_{self.plan.metric}"

    def constants(self) -> dict[str, Any]:
        """What all trials are told alike; see `GalaxyTrial`."""
        weights_dir = self.options.weights_dir
        return {
            "data": str(self.plan.data.resolve()),
            "run_dir": str(self.run_dir.resolve()),
            "threads": self.places.cpus_per_trial,
            "device": self.device,
            "weights_dir": str(weights_dir.resolve()) if weights_dir else None,
            "metric": self.plan.metric,
            "direction": self.plan.direction,
        }


@dataclass(frozen=True)
class Ended:
    """How an experiment went.

    Attributes:
        ledger: all its trials.
        elapsed_s: how long it took.
        handovers_s: for each trial that followed another in its worker, the time between them.
        cut_short: why it ended before its last trial; empty if it did not.
        fault: what went wrong, if that is why.
    """

    ledger: Ledger
    elapsed_s: float
    handovers_s: Sequence[float]
    cut_short: str
    fault: Exception | None


def make_ledger(job: Job) -> Ledger:
    """Open the run's studies."""
    options, plan = job.options, job.plan
    spaces = list(plan.spaces.values())
    return Ledger(
        spaces=plan.spaces,
        studies=create_studies(job.run_dir, spaces, direction=plan.direction, seed=options.seed, fixed=plan.fixed),
        num_trials=options.num_trials,
        max_epochs=options.max_epochs,
        objective=job.objective,
        direction=plan.direction,
        seed=options.seed,
        overrides={"precision": options.precision} if options.precision else {},
    )


def run_experiment(job: Job, *, console: Console, received: Sequence[int]) -> Ended:
    """Run all trials, on the Ray that is running.

    Args:
        job: the search.
        console: where to show how it goes.
        received: signals that came; the first ends the experiment.
    """
    ledger = make_ledger(job)
    searcher = StudySearcher(ledger, job.places.max_concurrent)
    recorder = Recorder(ledger, job.run_dir)
    boards = TensorBoard(ledger, job.run_dir / TENSORBOARD, list(job.plan.parameters))
    stopper = SearchStopper(
        budget_s=job.options.time_budget_s, received=received, fault=lambda: searcher.fault or recorder.fault
    )
    with Monitor(ledger, job.places.max_concurrent, job.options.time_budget_s, console) as monitor:
        _tuner(job, searcher, stopper, [recorder, boards, monitor]).fit()
        recorder.close(stopper.reason or "the search ended")
        elapsed_s = monitor.elapsed_s
    boards.close()
    return Ended(ledger, elapsed_s, recorder.handovers_s, stopper.reason, searcher.fault or recorder.fault)


def _tuner(job: Job, searcher: StudySearcher, stopper: SearchStopper, callbacks: list[tune.Callback]) -> tune.Tuner:
    # Workers start side by side, not one after the other.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(job.places.max_concurrent)
    resources = {"CPU": job.places.cpus_per_trial, "GPU": job.places.gpus_per_trial}
    return tune.Tuner(
        tune.with_resources(GalaxyTrial, resources),
        param_space=job.constants(),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=BackboneAsha(job.options.max_epochs, job.plan.direction),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(job.run_dir.resolve()),
            callbacks=callbacks,
            stop=stopper,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )
