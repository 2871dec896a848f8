"""A whole search: check, tune, retrain and evaluate the best, report."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from galaxy_models.errors import GalaxyError
from search import opening
from search.cluster import ended_by_signals, running_ray
from search.errors import RunError, SearchFault
from search.experiment import TENSORBOARD, Ended, Job, more_of, opened_ledger, run_experiment, spent_before, waiter
from search.final import best_configs, plan_finals, retrain_finalists
from search.finalist import FinalJob, FinalSetting, is_done
from search.ledger import Ledger
from search.lock import RunLock
from search.nodes import Needs, check_nodes, places_on_cluster
from search.options import SearchOptions, plan_places
from search.output import LastingOutput
from search.preflight import Plan, make_plan
from search.remote_run import mirrored
from search.report import write_report
from search.report.write import FOLDER
from search.results import FinalRun
from search.run_dir import create_run_dir
from search.session import Session, gone_if_refused
from search.shards import Shards, share_shards
from search.signals import collected_signals
from search.storage import Storage
from search.tensorboard_boards import write_boards


def run_search(options: SearchOptions) -> int:
    """Run a search from its options to its report, or go on with one.

    Returns:
        0; 129, 130 or 143 when the end of its terminal, Ctrl-C or SIGTERM ended it early, the report of what there is
        being written all the same.

    Raises:
        GalaxyError: something the user can mend, found before the first trial or in one.
        SearchFault: no trial ended with a value, or a space or a final evaluation failed; the report is written first.
    """
    console = Console()
    with ended_by_signals(), LastingOutput.of(console), ExitStack() as stack:
        if options.resume is not None:
            stack.enter_context(RunLock(options.resume))
        plan = make_plan(options, console)
        run_dir = options.resume or create_run_dir(options, plan)
        if options.resume is None:
            stack.enter_context(gone_if_refused(run_dir))
            stack.enter_context(RunLock(run_dir))
        mirror = stack.enter_context(mirrored(options.storage, run_dir, lambda line: opening.say(console, [line])))
        session = stack.enter_context(
            Session.begin(run_dir, options, plan, console, saved=mirror.put if mirror is not None else None)
        )
        # Ray sets a handler of its own for SIGTERM when it starts, so ours come after it.
        remedy = f"go on with --resume {mirror.uri if mirror is not None else run_dir}"
        sizes = stack.enter_context(running_ray(options.address, remedy))
        received = stack.enter_context(collected_signals(console))
        if options.address is None:
            ((num_cpus, num_gpus),) = sizes
            places = plan_places(options, num_cpus=num_cpus, num_gpus=num_gpus)
        else:
            places = places_on_cluster(options, lambda line: opening.say(console, [line]), received)
        job = Job(options, plan, places, run_dir, _shards(options, plan), mirror, session.before_s)
        if options.address is not None:
            opening.say(console, check_nodes(_needs(job)))
        try:
            return _run(job, session, console, received)
        finally:
            # A search that ended without a result has a report, too.
            if mirror is not None:
                mirror.put_below(run_dir / FOLDER)
                mirror.put_below(run_dir / TENSORBOARD)


def _shards(options: SearchOptions, plan: Plan) -> Shards:
    """Where the survey lies for every machine; brought to the storage if a cluster has to fetch it there."""
    uri = plan.data_uri
    if options.address is not None and options.storage is not None and not uri:
        uri = share_shards(plan.data, plan.manifest, Storage(options.storage))
    return Shards(str(plan.data.resolve()), plan.manifest.digest, uri)


def _needs(job: Job) -> Needs:
    """What machines of a cluster must have of the search, beside its software."""
    weights_dir = job.options.weights_dir
    return Needs(
        run_dir="" if job.mirror is not None else str(job.run_dir.resolve()),
        shards="" if job.shards.uri else job.shards.path,
        digest=job.shards.digest,
        weights_dir=str(weights_dir.resolve()) if weights_dir is not None else "",
    )


def _run(job: Job, session: Session, console: Console, received: Sequence[int]) -> int:
    with opened_ledger(job, wait=waiter(console, received)) as ledger:
        spent = spent_before(job.options, ledger) if job.options.resume is not None else ""
        if spent and not _unfinished_finals(job, ledger):
            raise RunError(
                f"{job.run_dir}: {spent} are spent, expected some left, or a final training to finish: give more with "
                f"{more_of(spent)}"
            )
        session.describe(job, baseline_rmse=opening.mean_rmse(job.plan))
        opening.say(console, opening.lines(job, ledger))
        ended = (
            Ended(ledger, ledger.elapsed_s(), (), 0, spent, None)
            if spent
            else run_experiment(job, ledger, console=console, received=received)
        )
        finals = [] if received or ended.fault else _retrain(job, ledger, console, received)
        if received and not ended.cut_short:
            ended = replace(ended, cut_short="interrupted in the final evaluation")
        notes = _notes(ended, finals)
        fault = ended.fault or (None if received else _without_result(job, ended, finals, notes))
        code = _exit_code(fault, received)
        end = partial(session.end, elapsed_s=ended.elapsed_s, reason=ended.cut_short, notes=notes)
        end(exit_code=code)
    page = write_report(job.run_dir)
    if finals:
        write_boards(job.run_dir)
    opening.say(console, [*opening.closing(job, ended, finals), f"report: {page}"])
    # A signal may have come while the report was written.
    if (late := _exit_code(fault, received)) != code:
        end(exit_code=(code := late))
    if isinstance(fault, GalaxyError):
        fault.exit_code = code
    if fault is not None:
        raise fault
    return code


def _without_result(job: Job, ended: Ended, finals: list[FinalRun], notes: list[str]) -> SearchFault | None:
    """What to tell of a search that came to its end without all that was asked for."""
    if finals and not ended.ledger.given_up and not any(one.failure for one in finals):
        return None
    nothing = () if finals else ("No trial ended with a value: give it more time, or see the report.",)
    return SearchFault(f"{job.run_dir}: {' '.join((*nothing, *notes))}")


def _exit_code(fault: Exception | None, received: Sequence[int]) -> int:
    """The process's code in the end: a signal's comes before a fault's, but not before that of a bug's traceback."""
    if fault is not None and not isinstance(fault, GalaxyError):
        return 1
    if received:
        return 128 + received[0]
    return fault.exit_code if fault is not None else 0


def _final_jobs(job: Job, ledger: Ledger) -> list[FinalJob]:
    """What is to be trained again: the best configurations of each backbone."""
    finalists = {
        name: best_configs(account.study, job.options.final_configs)
        for name, account in ledger.accounts.items()
        if account.leader is not None
    }
    sizes = {name: account.micro_batch for name, account in ledger.accounts.items()}
    jobs = plan_finals(finalists, num_seeds=job.options.final_seeds, seed=job.options.seed)
    return [replace(one, micro_batch=sizes[one.backbone](one.config.image_px)) for one in jobs]


def _final_setting(job: Job) -> FinalSetting:
    constants = job.constants()
    return FinalSetting(
        run_dir=job.run_dir.resolve(),
        shards=job.shards,
        storage=job.storage,
        software=constants["software"],
        threads=constants["threads"],
        device=constants["device"],
        weights_dir=Path(constants["weights_dir"]) if constants["weights_dir"] else None,
        metric=job.plan.metric,
        direction=job.plan.direction,
        gpu_share=constants["gpu_share"],
        processes=constants["processes"],
        silence_s=constants["silence_s"],
        timeout_s=constants["timeout_s"],
    )


def _unfinished_finals(job: Job, ledger: Ledger) -> bool:
    setting = _final_setting(job)
    return any(not is_done(one, setting) for one in _final_jobs(job, ledger))


def _retrain(job: Job, ledger: Ledger, console: Console, received: Sequence[int]) -> list[FinalRun]:
    """Train the best configurations of each backbone again, and evaluate them: only here are test galaxies seen."""
    jobs = _final_jobs(job, ledger)
    if not jobs:
        return []
    names, num_seeds = dict.fromkeys(one.backbone for one in jobs), job.options.final_seeds
    seeds = f"{num_seeds} seed{'s' if num_seeds > 1 else ''}"
    opening.say(console, [f"final    training the best of {', '.join(names)} again, {seeds} each"])
    return retrain_finalists(
        jobs,
        setting=_final_setting(job),
        places=job.places,
        received=received,
        on_done=lambda result: opening.say(console, [opening.final_line(result, job.plan.metric)]),
        say=lambda words: opening.say(console, [f"final    {words}"]),
    )


def _notes(ended: Ended, finals: list[FinalRun]) -> list[str]:
    notes = [f"The search ended before its last trial: {ended.cut_short}."] if ended.cut_short else []
    notes += [f"{words}." for words in ended.ledger.given_up.values()]
    notes += [f"{words}." for words in ended.ledger.has_enough.values()]
    notes += [f"{words}." for words in ended.ledger.left_race.values()]
    if ended.restarts:
        notes.append(f"Workers died {ended.restarts} times; their trials went on from the last whole epoch.")
    notes += [
        f"The final training {one.seed_index + 1} of {one.backbone} failed: {one.failure}."
        for one in finals
        if one.failure
    ]
    return notes
