"""What a search says in the terminal before and after its trials."""

from statistics import fmean, median

from rich.console import Console

from galaxy_models.data.shards import Split
from search.entry import Entry
from search.experiment import TENSORBOARD, Ended, Job, more_of
from search.ledger import Ledger
from search.population import generation_epochs
from search.preflight import Plan
from search.results import FinalRun
from search.rungs import rung_epochs


def say(console: Console, lines: list[str]) -> None:
    """Print lines as they are."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def lines(job: Job, ledger: Ledger) -> list[str]:
    """What is about to be searched, how, and where to watch it."""
    options, plan, places = job.options, job.plan, job.places
    manifest = plan.manifest
    sizes = ", ".join(f"{split.num_rows:,} {name}" for name, split in manifest.splits.items())
    sky = " SIMULATED SKY: these galaxies were drawn, not observed." if manifest.simulated else ""
    length = f"{options.num_trials} trials each, {options.max_epochs} epochs at most"
    budget = f", {options.time_budget_s:g} s in all" if options.time_budget_s else ""
    fixed = [
        f"fixed    {', '.join(f'{name}={value!r}' for name, value in values.items())} ({space})"
        for space, values in plan.fixed.items()
        if values
    ]
    at_a_time = f"{places.max_concurrent} trial{'s' if places.max_concurrent > 1 else ''} at a time"
    gpus = f" and {places.gpus_per_trial:g} GPU" if places.gpus_per_trial else ""
    together = f" in {places.processes} processes" if places.processes > 1 else ""
    return [
        f"run      {job.run_dir}",
        *_so_far(ledger),
        f"survey   {manifest.survey}: {sizes} galaxies of {manifest.px} px.{sky}",
        f"task     {manifest.task.num_outputs} {manifest.task.kind}, optimising {job.objective} ({plan.direction})",
        f"spaces   {', '.join(plan.spaces)}: {length}{budget}",
        f"sampler  {_sampler(options.sampler, options.scheduler)}",
        f"stopping {_stopping(options.scheduler, options.max_epochs)}",
        *fixed,
        f"machine  {at_a_time}, each on {places.cpus_per_trial} CPU{gpus}{together}",
        f"watch    tensorboard --logdir {job.run_dir / TENSORBOARD}",
    ]


def _so_far(ledger: Ledger) -> list[str]:
    left = sum(len(account.going_on) for account in ledger.accounts.values())
    if not ledger.num_ended and not left:
        return []
    return [f"goes on  {ledger.num_ended} trials have ended, {left} go on, {ledger.spent_epochs} epochs were trained"]


def _sampler(sampler: str, scheduler: str) -> str:
    if scheduler == "pbt" and sampler in ("tpe", "gp", "cmaes"):
        return f"{sampler}, which learns nothing here: all trials of a population are drawn before one has ended"
    if sampler == "gp" and scheduler != "none":
        return "gp, which learns from trials run in full only: where many are stopped it draws at random for long"
    return sampler


def _stopping(scheduler: str, max_epochs: int) -> str:
    rungs = ", ".join(map(str, rung_epochs(max_epochs)))
    if max_epochs == 1:
        return "none: a trial is one epoch"
    if scheduler == "asha":
        return f"asha: after epoch {rungs} the best third goes on"
    if scheduler == "pbt":
        num = generation_epochs(max_epochs)
        each = "each epoch" if num == 1 else f"every {num} epochs"
        return f"pbt: after {each} new trials go on from the best quarter in place of the worst quarter"
    return scheduler


def final_line(result: FinalRun, metric: str) -> str:
    """One retraining in a line."""
    where = f"{result.backbone} trial {result.trial}, seed {result.seed_index + 1}"
    if result.failure:
        return f"final    {where}: failed: {result.failure}"
    return f"final    {where}: validation {metric} {result.metric('val', metric):.4f} in epoch {result.best_epoch}"


def closing(job: Job, ended: Ended, finals: list[FinalRun]) -> list[str]:
    """What was found, beside what always giving the same answer would reach."""
    found = []
    metric = "accuracy" if job.plan.manifest.task.kind == "classes" else "rmse"
    for name, entry in _ranked(ended.ledger, finals, job.plan.metric):
        scores = [one.metric("test", metric) for one in finals if one.backbone == name and not one.failure]
        test = f"; test {metric} {fmean(scores):.4f} (mean of {len(scores)} trained again)" if scores else ""
        found.append(
            f"best     {name}: trial {entry.number}, {job.objective} {entry.best_value:.4f} "
            f"in epoch {entry.best_epoch}{test}"
        )
    found += _baseline(job)
    if ended.cut_short:
        more = more_of(ended.cut_short)
        words = f" and more {more}" if more else ""
        found.append(f"ended    {ended.cut_short}; go on with python -m search.run --resume {job.run_dir}{words}")
    found += [f"ended    {words}" for words in ended.ledger.has_enough.values()]
    if ended.handovers_s:
        found.append(
            f"workers  {median(ended.handovers_s):.3f} s from the end of a trial to the first step of the next "
            f"(median of {len(ended.handovers_s)})"
        )
    return found


def _ranked(ledger: Ledger, finals: list[FinalRun], metric: str) -> list[tuple[str, Entry]]:
    leaders = {name: account.leader for name, account in ledger.accounts.items() if account.leader is not None}
    sign = 1.0 if ledger.direction == "min" else -1.0

    def key(name: str) -> float:
        scores = [one.metric("val", metric) for one in finals if one.backbone == name and not one.failure]
        return sign * (fmean(scores) if scores else leaders[name].best_value)

    return [(name, leaders[name]) for name in sorted(leaders, key=key)]


def _baseline(job: Job) -> list[str]:
    manifest = job.plan.manifest
    rmse = mean_rmse(job.plan)
    if rmse is not None:
        return [f"baseline always answering the mean of the training galaxies: test rmse {rmse:.4f}"]
    train, test = (manifest.splits[name].class_counts for name in ("train", "test"))
    top = max(range(len(train)), key=lambda index: train[index])
    share = test[top] / sum(test)
    return [f"baseline always answering {manifest.task.names[top]}: test accuracy {share:.4f}"]


def mean_rmse(plan: Plan) -> float | None:
    """Test RMSE of always answering the training galaxies' mean vote fractions; None for classes."""
    if plan.manifest.task.kind != "votes":
        return None
    train, test = (Split.open(plan.data, plan.manifest, split).targets for split in ("train", "test"))
    return float(((test - train.mean(axis=0)) ** 2).mean() ** 0.5)
