"""What a search found, in sentences no stronger than its numbers."""

import math

from search.report.blocks import counted, duration, listed, percent
from search.report.collect import FinalEvaluation, RunInfo, Trials

# Optuna's TPE draws its first 10 trials at random: below 20, chance chose at least half of them.
FEW_TRIALS = 20
# With fewer galaxies in a split, a single one moves its accuracy by more than two per cent.
FEW_GALAXIES = 50
# A lead of fewer standard errors than this is not called one.
CLEAR_LEAD = 2.0


def standard_error(share: float, num_galaxies: int) -> float:
    """Binomial standard error sqrt(p (1 - p) / N) of a share p of N galaxies; NaN for none.

    Where all or none of the galaxies are right the formula would claim certainty: p is then taken one galaxy of N + 2
    away, as in Laplace's rule of succession.
    """
    if not num_galaxies or not 0 <= share <= 1:
        return math.nan
    if share in (0, 1):
        share = 1 / (num_galaxies + 2)
    return math.sqrt(share * (1 - share) / num_galaxies)


def lead(first: float, second: float, num_galaxies: int) -> float:
    """By how many standard errors one accuracy exceeds another, each measured on `num_galaxies`.

    The two are taken as independent, though they share their galaxies: where networks err alike, this
    understates the lead.
    """
    error = math.hypot(standard_error(first, num_galaxies), standard_error(second, num_galaxies))
    return (first - second) / error


def majority_class(info: RunInfo) -> tuple[str, float] | None:
    """The most frequent class among the training galaxies, and its share of the test galaxies."""
    train, test = info.class_counts.get("train", ()), info.class_counts.get("test", ())
    if not sum(train) or not sum(test):
        return None
    top = max(range(len(train)), key=lambda index: train[index])
    return info.task.names[top], test[top] / sum(test)


def ranked(finals: dict[str, FinalEvaluation], info: RunInfo) -> list[FinalEvaluation]:
    """Final evaluations, best validation objective first; those without one last.

    Validation ranks, never test: the test split is there to judge the choice, not to make it.
    """
    sign = -1.0 if info.direction == "max" else 1.0

    def key(final: FinalEvaluation) -> tuple[bool, float]:
        value = final.metric("validation", info.objective)
        return (not math.isfinite(value), sign * value if math.isfinite(value) else 0.0)

    return sorted(finals.values(), key=key)


def answer(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> tuple[str, ...]:
    """The search in one to three sentences: which backbone, how good beside the baseline, from how much work."""
    order = ranked(finals, info)
    if not order:
        return (_no_evaluation(trials), _effort(trials, info))
    if info.task.kind == "votes":
        baseline_words = (
            ()
            if info.baseline_rmse is None
            else (f"Always answering the mean of the training galaxies would give {info.baseline_rmse:.4f}.",)
        )
        return (_votes(order), *baseline_words, _effort(trials, info))
    tested = [final for final in order if math.isfinite(final.metric("test", "accuracy"))]
    if not tested:
        return ("No backbone has a finite accuracy on the test split.", _effort(trials, info))
    sentences = [_classes(tested, info.split_sizes.get("test", 0))]
    baseline = majority_class(info)
    if baseline is not None:
        sentences.append(f"Always answering the most frequent class, {baseline[0]}, would give {percent(baseline[1])}.")
    return (*sentences, _effort(trials, info))


def _classes(tested: list[FinalEvaluation], num_test: int) -> str:
    leader, others = tested[0], tested[1:]
    accuracy = leader.metric("test", "accuracy")
    error = f"{percent(accuracy)} (standard error {percent(standard_error(accuracy, num_test))})"
    galaxies = f"{num_test:,} test galaxies"
    if not others:
        return f"{leader.backbone} classifies {error} of the {galaxies} correctly."
    leads = {final.backbone: lead(accuracy, final.metric("test", "accuracy"), num_test) for final in others}
    scores = {final.backbone: percent(final.metric("test", "accuracy")) for final in tested}
    ahead = [name for name, by in leads.items() if by <= -CLEAR_LEAD]
    if ahead:
        better = listed(tuple(f"{name} ({scores[name]})" for name in ahead))
        return (
            f"No backbone can be named the best: {leader.backbone} leads on the validation split and classifies "
            f"{error} of the {galaxies} correctly, but on those {better} did better."
        )
    close = [name for name, by in leads.items() if not by >= CLEAR_LEAD]  # NaN, without test galaxies, is no lead
    if close:
        names = listed(tuple(f"{name} ({scores[name]})" for name in (leader.backbone, *close)))
        return (
            f"{names} cannot be told apart by accuracy on {galaxies}: their differences are within "
            f"{CLEAR_LEAD:g} standard errors ({leader.backbone} leads on the validation split)."
        )
    runner_up = min(leads, key=lambda name: leads[name])
    by = leads[runner_up]
    margin = f" by {by:.1f} standard errors" if math.isfinite(by) else ""
    return (
        f"{leader.backbone} does best: it classifies {error} of the {galaxies} correctly, "
        f"ahead of {runner_up} ({scores[runner_up]}){margin}."
    )


def _small_splits(info: RunInfo) -> list[str]:
    found = []
    for split, use in (("val", "chose the trials"), ("test", "gave the final scores")):
        num_galaxies, counts = info.split_sizes.get(split, 0), info.class_counts.get(split, ())
        if 0 < num_galaxies < FEW_GALAXIES:
            found.append(f"Only {num_galaxies} of the galaxies {use}: each of them moves the scores.")
        absent = tuple(name for name, count in zip(info.task.names, counts, strict=False) if not count)
        if absent:
            found.append(f"No {listed(absent)} is among the galaxies that {use}: means over classes leave it out.")
    return found


def _votes(order: list[FinalEvaluation]) -> str:
    scores = [f"{final.backbone} {final.metric('test', 'rmse'):.4f}" for final in order]
    if len(order) == 1:
        return f"{order[0].backbone} predicts the vote fractions with a test RMSE of {scores[0].rsplit(' ', 1)[1]}."
    return (
        f"{order[0].backbone} leads on the validation split; test RMSE of the vote fractions: {listed(tuple(scores))}. "
        "RMSE has no error estimate here, so no winner is called."
    )


def _no_evaluation(trials: Trials) -> str:
    if trials.table.empty:
        return "No trial was run, so there is nothing to compare."
    if not trials.table["value"].notna().any():
        return "No trial got as far as a validation value, so there is nothing to compare."
    return "No backbone has been evaluated on the test split, so there is nothing to compare."


def _effort(trials: Trials, info: RunInfo) -> str:
    num_trials, num_epochs = len(trials.table), int(trials.table["epochs"].sum())
    sky = "the simulated survey" if info.simulated else "the survey"
    return (
        f"The search ran {counted(num_trials, 'trial')} ({counted(num_epochs, 'epoch')}) over "
        f"{counted(len(trials.backbones), 'backbone')} in {duration(info.elapsed_s)} on {sky} {info.survey}, "
        f"{sum(info.split_sizes.values()):,} galaxies."
    )


def cautions(trials: Trials, finals: dict[str, FinalEvaluation], info: RunInfo) -> tuple[str, ...]:
    """What weakens the answer, a sentence or two each."""
    found = []
    if info.simulated:
        found.append("The sky is simulated: these numbers rank networks on drawn galaxies and say little of real ones.")
    found += _too_few(trials)
    found += _small_splits(info)
    missing = [name for name in trials.backbones if name not in finals]
    if missing:
        found.append(f"No final evaluation of {listed(tuple(missing))}: the tables show a dash there.")
    if finals:
        found.append("Each backbone was trained with a single seed, and another seed alone can move its score.")
        if info.task.kind == "classes":
            clear = f"Differences below about {CLEAR_LEAD:g} standard errors of the test split are not called a win."
            found[-1] += f" {clear}"
        found += _near_baseline(finals, info)
    return (*found, *info.notes)


def _too_few(trials: Trials) -> list[str]:
    ended = trials.table[trials.table["state"].isin(["COMPLETE", "PRUNED"])]["backbone"].value_counts()
    few = [f"{name} ({ended.get(name, 0)})" for name in trials.backbones if ended.get(name, 0) < FEW_TRIALS]
    if not few:
        return []
    return [
        f"Too few trials to call the tuning done: {listed(tuple(few))}. Below {FEW_TRIALS}, at least half are "
        "the hand-picked start or random draws, and a backbone with more parameters to tune is held back more."
    ]


def _near_baseline(finals: dict[str, FinalEvaluation], info: RunInfo) -> list[str]:
    baseline, num_test = majority_class(info), info.split_sizes.get("test", 0)
    if baseline is None:
        return []
    scores = {name: final.metric("test", "accuracy") for name, final in finals.items()}
    near = [
        name
        for name, score in scores.items()
        if score - baseline[1] < CLEAR_LEAD * standard_error(score, num_test) or score <= baseline[1]
    ]
    if not near:
        return []
    return [f"Not clearly better than always answering {baseline[0]}: {listed(tuple(near))}."]
