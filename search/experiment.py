"""Puts searcher, scheduler, trials and callbacks into one Tune experiment over one or more spaces."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console

from galaxy_models.cli import machine_fault
from galaxy_models.training.runtime import pass_over_objects
from search.account import Account
from search.cluster import confirm_ray
from search.convergence import make_test
from search.entry import epoch_metrics
from search.errors import RunError
from search.files import state_path
from search.journal import JOURNAL, RunJournal
from search.lean import LeanGenerator, LeanRecords, pack_alike
from search.ledger import Ledger, Limits
from search.live import LiveFile
from search.mirror import Mirror
from search.monitor import Monitor
from search.nodes import node_sizes, this_software
from search.oom import count_oom_kills
from search.options import Places, SearchOptions, plan_cluster
from search.peers import STRATEGY, bundles
from search.preflight import Plan
from search.recorder import Recorder
from search.samplers import SamplerPlan
from search.scheduler import LedgerScheduler
from search.searcher import StudySearcher
from search.shards import Shards
from search.stopper import SearchStopper
from search.study import open_study
from search.tensorboard import TensorBoard
from search.terms import Terms
from search.trial import GalaxyTrial
from search.watch import SILENCE_S, START_S, StartWatch, Watch

TENSORBOARD = "tensorboard"
# How long the driver waits on a full disk before it tries again.
WAIT_S = 2.0
# How often the machines of a cluster are counted, and how many trials may wait for one.
_COUNT_INTERVAL_S = 5.0
_MOST_PENDING = 10_000


@dataclass(frozen=True)
class Job:
    """A search that is about to run.

    Attributes:
        options: what the user asked for.
        plan: what was checked.
        places: how trials share the machine.
        run_dir: where everything is kept.
        shards: where the survey lies for every machine.
        mirror: the way to the run's storage; None without one.
        before_s: seconds that earlier sessions searched, as far as their ends or last signs of life are known.
    """

    options: SearchOptions
    plan: Plan
    places: Places
    run_dir: Path
    shards: Shards
    mirror: Mirror | None = None
    before_s: float = 0.0

    @property
    def saved(self) -> Callable[[Path], None]:
        """To be told of each file of the run's folder that was written."""
        return self.mirror.put if self.mirror is not None else lambda path: None

    @property
    def storage(self) -> str | None:
        """Where the run's folder is kept for all machines; None = it is this machine's, or shared by all."""
        return self.mirror.uri if self.mirror is not None else None

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
            "shards": vars(self.shards),
            "run_dir": str(self.run_dir.resolve()),
            "storage": self.storage,
            "software": this_software() if self.options.address else None,
            "threads": self.places.threads,
            "processes": self.places.processes,
            "device": self.device,
            "gpu_share": self.places.gpu_share,
            "weights_dir": str(weights_dir.resolve()) if weights_dir else None,
            "metric": self.plan.metric,
            "direction": self.plan.direction,
            "timeout_s": self.options.trial_timeout_s,
            "silence_s": SILENCE_S,
        }


@dataclass(frozen=True)
class Ended:
    """How an experiment went.

    Attributes:
        ledger: all its trials.
        elapsed_s: how long it took, earlier sessions included.
        handovers_s: for each trial that followed another in its worker, the time between them.
        restarts: workers that died and were started again.
        cut_short: why it ended before its last trial; empty if it did not.
        fault: what went wrong, if that is why.
    """

    ledger: Ledger
    elapsed_s: float
    handovers_s: Sequence[float]
    restarts: int
    cut_short: str
    fault: Exception | None


@contextmanager
def opened_ledger(job: Job, *, wait: Callable[[OSError], None] | None = None) -> Iterator[Ledger]:
    """Open the run's studies, as an earlier session left them, and close the journal in the end.

    Args:
        job: the search.
        wait: see `RunJournal`.

    Raises:
        RunError: the journal is damaged, or a trial that goes on has no state.
    """
    mirrored = {"on_write": job.mirror.committed} if job.mirror is not None else {}
    journal = RunJournal(job.run_dir / JOURNAL, wait=wait, **mirrored)
    try:
        ledger = make_ledger(job, _read(journal, job.run_dir / JOURNAL), journal.commit)
        if job.mirror is None:
            _check_states(job.run_dir, ledger)
        journal.commit(durable=True)
        yield ledger
    finally:
        journal.close()


def _check_states(run_dir: Path, ledger: Ledger) -> None:
    """Check that trials need not begin again: a worker leaves a state before it tells of an epoch."""
    for entry in (one for account in ledger.accounts.values() for one in account.going_on):
        path = state_path(run_dir, entry.space, entry.number)
        # One that has yet to begin where another stands needs the state of that one, which is among these.
        if entry.own_epochs and not path.is_file():
            raise RunError(
                f"{path}: no such file, expected the state of a trial that goes on after epoch {entry.epochs}: copy "
                "the run's folder again, whole"
            )


def _read(journal: RunJournal, path: Path) -> JournalStorage:
    try:
        return JournalStorage(journal)
    except (ValueError, KeyError, AssertionError) as error:
        raise RunError(
            f"{path}: {error!r}, expected the journal of a run: copy the run's folder again, whole"
        ) from error


def make_ledger(job: Job, storage: Any, commit: Callable[..., None]) -> Ledger:
    """Make the ledger over a storage that may have trials in it.

    Args:
        job: the search.
        storage: Optuna's.
        commit: see `Ledger`.
    """
    options, plan = job.options, job.plan
    terms = Terms(
        max_epochs=options.max_epochs,
        objective=job.objective,
        direction=plan.direction,
        seed=options.seed,
        scheduler=options.scheduler,
        population=options.num_trials if options.scheduler == "pbt" else 0,
        repeats=options.repeats,
        overrides={"precision": options.precision} if options.precision else {},
        survey_digest=job.shards.digest,
    )
    limits = Limits(
        num_trials=options.num_trials,
        epochs=options.epoch_budget,
        gpu_hours=options.gpu_hours,
        gpus_per_trial=job.places.gpus_per_trial,
        share=options.share,
        num_finalists=options.num_finalists,
        min_complete=options.min_complete,
        patience=options.patience,
    )
    accounts = {}
    for name, space in plan.spaces.items():
        study = open_study(storage, space, direction=plan.direction, queue=plan.queues[name])
        sampler = SamplerPlan(
            name=options.sampler,
            space=name,
            seed=options.seed,
            fixed=plan.fixed[name],
            distributions=plan.distributions[name],
        )
        accounts[name] = Account(space, study, sampler, terms)
    # Of a session that was killed nobody took down its end: it counts up to its last epoch at least.
    before_s, start = max(job.before_s, _last_epoch_s(accounts)), time.monotonic()
    return Ledger(
        accounts,
        limits,
        commit=commit,
        elapsed_s=lambda: before_s + time.monotonic() - start,
        converged=make_test(options.terminator, options.sampler, plan, seed=options.seed),
    )


def _last_epoch_s(accounts: dict[str, Account]) -> float:
    """Seconds that the search had run at its last recorded epoch."""
    return max(
        (
            metrics.get("elapsed_s", 0.0)
            for account in accounts.values()
            for trial in account.study.get_trials(deepcopy=False)
            for metrics in epoch_metrics(trial).values()
        ),
        default=0.0,
    )


def run_experiment(job: Job, ledger: Ledger, *, console: Console, received: Sequence[int]) -> Ended:
    """Run all trials, on the Ray that is running.

    Args:
        job: the search.
        ledger: of its trials.
        console: where to show how it goes.
        received: signals that came; the first ends the experiment.
    """
    budget_s = job.options.time_budget_s
    budget_s = None if budget_s is None else budget_s - ledger.elapsed_s()
    room = room_for(job)
    searcher = StudySearcher(ledger, room, keep_top=job.options.keep_top)
    scheduler = LedgerScheduler(ledger)
    recorder = Recorder(
        ledger,
        job.run_dir,
        keep_top=job.options.keep_top,
        say=lambda words: monitor.say(words),  # noqa: PLW0108 (made below)
        max_restarts=job.options.max_restarts,
        confirm_ray=confirm_ray if job.options.address is None else lambda: None,
        # Of a cluster's machines only the driver's own could be asked.
        oom_kills=count_oom_kills if job.options.address is None else lambda: 0,
        mirror=job.mirror,
    )
    boards = TensorBoard(ledger, recorder, job.run_dir / TENSORBOARD, list(job.plan.parameters))
    live = LiveFile(ledger, recorder, job.run_dir, job.places, room=room, saved=job.saved)
    watches: list[tune.Callback] = [Watch(recorder, place_of=live.place_of, silence_s=SILENCE_S)]
    if job.options.address is None:
        watches.append(StartWatch(START_S))
    monitor = Monitor(ledger, recorder, room, budget_s, console, nodes=lambda: live.nodes)

    def fault() -> Exception | None:
        return searcher.fault or scheduler.fault or recorder.fault

    stopper = SearchStopper(budget_s=budget_s, received=received, fault=fault, spent=ledger.spent)
    pass_over_objects()
    with monitor:
        _tuner(job, searcher, scheduler, stopper, [recorder, live, *watches, boards, monitor, LeanRecords()]).fit()
        recorder.close()
        live.close()
    boards.close()
    return Ended(ledger, ledger.elapsed_s(), recorder.handovers_s, recorder.restarts, stopper.reason, fault())


def room_for(job: Job) -> Callable[[], int]:
    """How many trials may run at the same time: of a cluster, as many as its machines have room for at the moment."""
    if job.options.address is None or job.options.max_concurrent is not None:
        return lambda: job.places.max_concurrent
    counted_at, room = time.monotonic(), job.places.max_concurrent

    def count() -> int:
        nonlocal counted_at, room
        if time.monotonic() - counted_at > _COUNT_INTERVAL_S:
            counted_at = time.monotonic()
            # One without a machine at the moment waits for one.
            with contextlib.suppress(RunError):
                room = plan_cluster(job.options, node_sizes()).max_concurrent
        return room

    return count


def spent_before(options: SearchOptions, ledger: Ledger) -> str:
    """Which bound was reached by earlier sessions; empty if none was."""
    budget_s = options.time_budget_s
    if budget_s is not None and ledger.elapsed_s() >= budget_s:
        return f"time budget: {ledger.elapsed_s():.0f} of {budget_s:.0f} s"
    return ledger.spent()


def more_of(reason: str) -> str:
    """The option that gives more of what a search ran out of; empty if it ended otherwise."""
    options = {"time budget": "--time-budget", "epoch budget": "--epoch-budget", "GPU budget": "--gpu-hours"}
    return next((option for words, option in options.items() if reason.startswith(words)), "")


def waiter(console: Console, received: Sequence[int]) -> Callable[[OSError], None]:
    """What the journal does on a full disk: say so once, and wait for room until a signal comes."""
    told: list[float] = []

    def wait(error: OSError) -> None:
        if received:
            raise machine_fault(error, "the run's folder") or error
        if not told or time.monotonic() - told[-1] > 60:
            console.print(f"{error.filename or 'the disk'} is full: the search waits for room", highlight=False)
            told.append(time.monotonic())
        time.sleep(WAIT_S)

    return wait


def _name(trial: Trial) -> str:
    """What Tune calls a trial. It pickles this for each, and of a function in a module only the name."""
    return trial.trial_id


def _tuner(
    job: Job,
    searcher: StudySearcher,
    scheduler: LedgerScheduler,
    stopper: SearchStopper,
    callbacks: list[tune.Callback],
) -> tune.Tuner:
    # Workers start side by side, not one after the other.
    most = job.places.max_concurrent if job.options.address is None else _MOST_PENDING
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(most)
    places = job.places
    resources: Any = {"CPU": places.cpus_per_trial, "GPU": places.gpus_per_trial}
    if places.processes > 1:
        resources = tune.PlacementGroupFactory(bundles(places), strategy=STRATEGY)
    return tune.Tuner(
        tune.with_resources(GalaxyTrial, resources),
        param_space=pack_alike(job.constants()),
        tune_config=tune.TuneConfig(
            search_alg=LeanGenerator(searcher),
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_name,
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(job.run_dir.resolve()),
            callbacks=callbacks,
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=job.options.max_restarts),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )
