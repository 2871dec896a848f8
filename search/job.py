"""A whole search: check, tune, evaluate, report."""

from statistics import median

from rich.console import Console

from galaxy_models.data.shards import Split
from search.cluster import local_ray
from search.errors import SearchFault
from search.experiment import TENSORBOARD, Ended, Job, run_experiment
from search.final import evaluate_best
from search.options import SearchOptions, plan_places
from search.preflight import make_plan
from search.report import write_report
from search.report.collect import FinalEvaluation, RunInfo
from search.report.verdict import majority_class, ranked
from search.run_dir import create_run_dir, package_versions
from search.scheduler import rung_epochs
from search.signals import collected_signals


def run_search(options: SearchOptions) -> int:
    """Run a search from its options to its report.

    Returns:
        0; 130 or 143 when Ctrl-C or SIGTERM ended it early, the report of what there is being written all the same.

    Raises:
        GalaxyError: something the user can mend, found before the first trial or in one.
        SearchFault: no trial ended with a value, or a space or a final evaluation failed; the report is written first.
    """
    console = Console()
    plan = make_plan(options, console)
    # Ray sets a handler of its own for SIGTERM when it starts, so ours come after it.
    with local_ray() as (num_cpus, num_gpus), collected_signals(console) as received:
        places = plan_places(options, num_cpus=num_cpus, num_gpus=num_gpus)
        job = Job(options, plan, places, create_run_dir(options, plan))
        _say(console, _opening(job))
        ended = run_experiment(job, console=console, received=received)
        num_galaxies = sum(split.num_rows for split in plan.manifest.splits.values())
        _say(console, [f"evaluating the best trial of each backbone on {num_galaxies:,} galaxies"])
        finals, failures = evaluate_best(job, ended.ledger)
        notes = _notes(ended, failures)
        page = write_report(job.run_dir, list(ended.ledger.studies.values()), finals, _run_info(job, ended, notes))
    _say(console, [*_closing(job, ended, finals), f"report: {page}"])
    if ended.fault is not None:
        raise ended.fault
    if received:
        return 128 + received[0]
    if failures or ended.ledger.given_up or not finals:
        nothing = () if finals or failures else ("No trial ended with a value: give it more time, or see the report.",)
        raise SearchFault(f"{job.run_dir}: {' '.join((*nothing, *notes))}")
    return 0


def _notes(ended: Ended, failures: dict[str, str]) -> tuple[str, ...]:
    notes = [f"The search ended before its last trial: {ended.cut_short}."] if ended.cut_short else []
    notes += [f"{words}." for words in ended.ledger.given_up.values()]
    notes += [f"The final evaluation of {name} failed: {words}." for name, words in failures.items()]
    return tuple(notes)


def _say(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _opening(job: Job) -> list[str]:
    options, plan, places = job.options, job.plan, job.places
    manifest = plan.manifest
    sizes = ", ".join(f"{split.num_rows:,} {name}" for name, split in manifest.splits.items())
    sky = " SIMULATED SKY: these galaxies were drawn, not observed." if manifest.simulated else ""
    rungs = ", ".join(map(str, rung_epochs(options.max_epochs)))
    length = f"{options.num_trials} trials each, {options.max_epochs} epochs at most"
    budget = f", {options.time_budget_s:g} s in all" if options.time_budget_s else ""
    fixed = [
        f"fixed    {', '.join(f'{name}={value!r}' for name, value in values.items())} ({space})"
        for space, values in plan.fixed.items()
        if values
    ]
    gpus = f" and {places.gpus_per_trial:g} GPU" if places.gpus_per_trial else ""
    return [
        f"run      {job.run_dir}",
        f"survey   {manifest.survey}: {sizes} galaxies of {manifest.px} px.{sky}",
        f"task     {manifest.task.num_outputs} {manifest.task.kind}, optimising {job.objective} ({plan.direction})",
        f"spaces   {', '.join(plan.spaces)}: {length}{budget}",
        f"rungs    {f'after epoch {rungs} the best third goes on' if rungs else 'none: a trial is one epoch'}",
        *fixed,
        f"machine  {places.max_concurrent} trials at a time, each on {places.cpus_per_trial} CPU{gpus}",
        f"watch    tensorboard --logdir {job.run_dir / TENSORBOARD}",
    ]


def _closing(job: Job, ended: Ended, finals: dict[str, FinalEvaluation]) -> list[str]:
    lines = []
    metric = "accuracy" if job.plan.manifest.task.kind == "classes" else "rmse"
    info = _run_info(job, ended, ())
    for final in ranked(finals, info):
        entry = ended.ledger.best[final.backbone]
        lines.append(
            f"best     {final.backbone}: trial {final.trial}, {job.objective} {entry.best_value:.4f} "
            f"in epoch {entry.best_epoch}; test {metric} {final.metric('test', metric):.4f}"
        )
    baseline = majority_class(info)
    if info.baseline_rmse is not None:
        lines.append(f"baseline always answering the mean of the training galaxies: test rmse {info.baseline_rmse:.4f}")
    if baseline is not None:
        lines.append(f"baseline always answering {baseline[0]}: test accuracy {baseline[1]:.4f}")
    if ended.handovers_s:
        lines.append(
            f"workers  {median(ended.handovers_s):.3f} s from the end of a trial to the first step of the next "
            f"(median of {len(ended.handovers_s)})"
        )
    return lines


def _mean_rmse(job: Job) -> float:
    """Test RMSE of always answering the training galaxies' mean vote fractions."""
    train, test = (Split.open(job.plan.data, job.plan.manifest, split).targets for split in ("train", "test"))
    return float(((test - train.mean(axis=0)) ** 2).mean() ** 0.5)


def _run_info(job: Job, ended: Ended, notes: tuple[str, ...]) -> RunInfo:
    options, plan = job.options, job.plan
    manifest = plan.manifest
    return RunInfo(
        name=job.run_dir.name,
        survey=manifest.survey,
        simulated=manifest.simulated,
        survey_digest=manifest.digest,
        task=manifest.task,
        split_sizes={name: split.num_rows for name, split in manifest.splits.items()},
        class_counts={name: split.class_counts for name, split in manifest.splits.items()},
        objective=plan.metric,
        direction=plan.direction,
        max_epochs=options.max_epochs,
        rungs=rung_epochs(options.max_epochs),
        num_trials=options.num_trials,
        time_budget_s=options.time_budget_s,
        seed=options.seed,
        command=options.command,
        versions=package_versions(),
        elapsed_s=ended.elapsed_s,
        data=str(plan.data),
        baseline_rmse=_mean_rmse(job) if manifest.task.kind == "votes" else None,
        threads=job.places.cpus_per_trial,
        weights_dir=str(options.weights_dir) if options.weights_dir else None,
        notes=notes,
    )
