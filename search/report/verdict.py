"""What a search found, in sentences no stronger than its numbers."""

import math
from collections.abc import Sequence

from search.report.blocks import counted, duration, listed, percent
from search.report.evidence.pairs import Pair
from search.report.evidence.standing import Standing
from search.report.findings import Findings
from search.report.tables.scores import share_words

# Optuna's TPE draws its first 10 trials at random: below 20, chance chose at least half of them.
FEW_TRIALS = 20
# With fewer galaxies in a split, a single one moves its accuracy by more than two per cent.
FEW_GALAXIES = 50


def answer(findings: Findings) -> tuple[str, ...]:
    """The search in one to three sentences: which backbone, how good beside the baseline, from how much work."""
    effort = _effort(findings)
    if not findings.standings:
        return (_no_evaluation(findings), effort)
    return (which(findings), *(_baseline(findings) if _tested(findings) else ()), effort)


def _tested(findings: Findings) -> list[Standing]:
    score = "rmse" if _votes(findings) else "accuracy"
    return [one for one in findings.standings.values() if math.isfinite(one.value("test", score))]


def which(findings: Findings) -> str:
    """Who leads on validation, and whether test galaxies bear it out; there is at least one standing."""
    tested = _tested(findings)
    if not tested:
        return f"No backbone has a finite {_word(findings)} on the test split."
    leader, others = tested[0], tested[1:]
    galaxies = f"{findings.info.split_sizes.get('test', 0):,} test galaxies"
    good = _how_good(findings, leader)
    if not others:
        return f"{leader.backbone} {_does(findings)} {good} {_of(findings, galaxies)}."
    unpaired = [one.backbone for one in others if _pair(findings, leader, one) is None]
    differing = [pair for one in others if (pair := _pair(findings, leader, one)) is not None and pair.differs]
    ahead = [pair.second for pair in differing if pair.better != leader.backbone]
    undecided = [one for one in others if one.backbone not in unpaired and not _differs(findings, leader, one)]
    if ahead:
        better = listed(tuple(f"{name} ({_short(findings, name)})" for name in ahead))
        return (
            f"No backbone can be named the best: {leader.backbone} leads on the validation split and {_does(findings)} "
            f"{good} {_of(findings, galaxies)}, but on those {better} did better, {_beyond(differing)}."
        )
    if unpaired:
        rest = listed(tuple(f"{name} ({_short(findings, name)})" for name in unpaired))
        return (
            f"{leader.backbone} leads on the validation split and {_does(findings)} {good} {_of(findings, galaxies)}; "
            f"whether it beats {rest} beyond chance cannot be said, since answers for single galaxies are missing."
        )
    if undecided:
        names = listed(tuple(f"{one.backbone} ({_short(findings, one.backbone)})" for one in undecided))
        worse = [pair.second for pair in differing]
        behind = f"; {listed(tuple(worse))} {'does' if len(worse) == 1 else 'do'} worse" if worse else ""
        return (
            f"{leader.backbone} ({_short(findings, leader.backbone)}) leads on the validation split, but on {galaxies} "
            f"{names} cannot be told from it by {_word(findings)}{behind}."
        )
    first = min(differing, key=lambda pair: pair.difference)
    return (
        f"{leader.backbone} does best: it {_does(findings)} {good} {_of(findings, galaxies)}, ahead of "
        f"{'all others, the next being ' if len(others) > 1 else ''}{first.second} ({_short(findings, first.second)}), "
        f"{_beyond(differing)}."
    )


def _beyond(pairs: Sequence[Pair]) -> str:
    """Beyond what chance a difference is."""
    if all(pair.seeds_known for pair in pairs):
        return "beyond chance"
    return "beyond chance among galaxies; what another seed would change is not known"


def _pair(findings: Findings, first: Standing, second: Standing) -> Pair | None:
    wanted = {first.backbone, second.backbone}
    return next((pair for pair in findings.pairs if {pair.first, pair.second} == wanted), None)


def _differs(findings: Findings, first: Standing, second: Standing) -> bool:
    pair = _pair(findings, first, second)
    return pair is not None and pair.differs


def _votes(findings: Findings) -> bool:
    return findings.info.task.kind == "votes"


def _word(findings: Findings) -> str:
    return "RMSE" if _votes(findings) else "accuracy"


def _does(findings: Findings) -> str:
    return "predicts vote fractions with" if _votes(findings) else "classifies"


def _of(findings: Findings, galaxies: str) -> str:
    return f"on {galaxies}" if _votes(findings) else f"of the {galaxies} correctly"


def _how_good(findings: Findings, standing: Standing) -> str:
    """The score with its interval, such as `85.0 % (95 % interval 81.2 to 88.3 %)`."""
    found = standing.estimate("test", "rmse" if _votes(findings) else "accuracy")
    known = math.isfinite(found.low) and math.isfinite(found.high)
    if _votes(findings):
        bounds = f" (95 % interval {found.low:.4f} to {found.high:.4f})" if known else ""
        return f"an RMSE of {found.value:.4f}{bounds}"
    return share_words(found.value, found.low, found.high).replace("(", "(95 % interval ")


def _short(findings: Findings, name: str) -> str:
    standing = findings.standings[name]
    return f"{standing.value('test', 'rmse'):.4f}" if _votes(findings) else percent(standing.value("test", "accuracy"))


def _baseline(findings: Findings) -> tuple[str, ...]:
    if findings.info.baseline_rmse is not None:
        rmse = f"{findings.info.baseline_rmse:.4f}"
        return (f"Always answering the mean of the training galaxies would give {rmse}.",)
    if findings.majority is None:
        return ()
    name, share = findings.majority
    return (f"Always answering the most frequent class, {name}, would give {percent(share)}.",)


def _no_evaluation(findings: Findings) -> str:
    table = findings.trials.table
    if table.empty:
        return "No trial was run, so there is nothing to compare."
    if not table["value"].notna().any():
        return "No trial got as far as a validation value, so there is nothing to compare."
    return "No backbone has been evaluated on the test split yet, so there is nothing to compare."


def _effort(findings: Findings) -> str:
    trials, info = findings.trials, findings.info
    num_trials, num_epochs = len(findings.own_trials), int(trials.table["epochs"].sum())
    sky = "the simulated survey" if info.simulated else "the survey"
    left = tuple(trials.dropped)
    race = f", of which {listed(left)} left a race early," if left else ""
    lasted = f" in {duration(info.elapsed_s)}" if math.isfinite(info.elapsed_s) else ""
    return (
        f"The search ran {counted(num_trials, 'trial')} ({counted(num_epochs, 'epoch')}) over "
        f"{counted(len(trials.backbones), 'backbone')}{race}{lasted} on {sky} {info.survey}, "
        f"{sum(info.split_sizes.values()):,} galaxies."
    )


def cautions(findings: Findings) -> tuple[str, ...]:
    """What weakens the answer, a sentence or two each."""
    found = []
    if findings.info.simulated:
        found.append("The sky is simulated: these numbers rank networks on drawn galaxies and say little of real ones.")
    found += _unfinished(findings)
    found += _too_few(findings)
    found += _small_splits(findings)
    found += _repeated_names(findings)
    found += _race(findings)
    found += _missing(findings)
    found += _seeds(findings)
    found += _near_baseline(findings)
    # Those of a race are told above, also while the search runs.
    notes = [note for note in findings.info.notes if note.rstrip(".") not in findings.trials.dropped.values()]
    return (*found, *findings.evidence.problems, *notes)


def _race(findings: Findings) -> list[str]:
    dropped = findings.trials.dropped
    if not dropped:
        return []
    return [
        f"The backbones shared the trials in a race, by rounds in which the worse half drops out: "
        f"{'; '.join(dropped.values())}. They were tuned less than those that stayed, so that they did worse with "
        "the trials they had, not that they are worse."
    ]


def _missing(findings: Findings) -> list[str]:
    """Backbones that have no final evaluation, and which of them have nothing to evaluate."""
    table = findings.trials.table
    missing: list[str] = []
    failed: list[str] = []
    for name in findings.trials.backbones:
        states = table["state"][table["backbone"] == name]
        if name not in findings.standings:
            (failed if len(states) and (states == "FAIL").all() else missing).append(name)
    found = [f"Every trial of {listed(tuple(failed))} failed; the reasons are below."] if failed else []
    if missing:
        found.append(f"No final evaluation of {listed(tuple(missing))}: the tables show a dash there.")
    return found


def _unfinished(findings: Findings) -> list[str]:
    running = int((findings.trials.table["state"] == "RUNNING").sum())
    if not running:
        return []
    verb = "had" if running > 1 else "has"
    return [f"This search is not finished: {counted(running, 'trial')} {verb} not ended when this page was written."]


def _small_splits(findings: Findings) -> list[str]:
    info, found = findings.info, []
    for split, use in (("val", "chose the trials"), ("test", "gave the final scores")):
        num_galaxies, counts = info.split_sizes.get(split, 0), info.class_counts.get(split, ())
        if 0 < num_galaxies < FEW_GALAXIES:
            found.append(f"Only {num_galaxies} of the galaxies {use}: each of them moves the scores.")
        absent = tuple(name for name, count in zip(info.task.names, counts, strict=False) if not count)
        if absent:
            found.append(
                f"No {listed(absent)} is among the galaxies that {use}: balanced accuracy and AUROC leave it out; "
                "precision, recall and F1 count it as 0 where it is answered."
            )
    return found


def _repeated_names(findings: Findings) -> list[str]:
    count = findings.info.num_repeated_names
    if not count:
        return []
    names, verb = counted(count, "file name"), "occur" if count > 1 else "occurs"
    return [
        f"{names} {verb} in more than one of the survey's own splits, with another image in each: if a name stands for "
        "one galaxy, some of the galaxies that judge a network were trained on, and the scores are flattered."
    ]


def _too_few(findings: Findings) -> list[str]:
    # A trial of a population that goes on from another is no configuration of its own.
    table = findings.own_trials[findings.own_trials["branched_from"].isna()]
    ended = table[table["state"].isin(["COMPLETE", "PRUNED"])]["backbone"].value_counts()
    few = [f"{name} ({ended.get(name, 0)})" for name in findings.trials.backbones if ended.get(name, 0) < FEW_TRIALS]
    if not few:
        return []
    why = "at least half are the hand-picked start or random draws"
    if findings.info.scheduler == "pbt":
        why = "a population begins with few of a space's configurations"
    return [
        f"Too few trials to call the tuning done: {listed(tuple(few))}. Below {FEW_TRIALS}, {why}, and a backbone with "
        "more parameters to tune is held back more."
    ]


def _seeds(findings: Findings) -> list[str]:
    single = tuple(name for name, one in findings.standings.items() if len(one.runs) == 1)
    if not single:
        return []
    names = "Each backbone" if len(single) == len(findings.standings) else listed(single)
    verb = "were" if len(single) > 1 and names == listed(single) else "was"
    return [f"{names} {verb} trained again with a single seed, and another seed alone can move its score."]


def _near_baseline(findings: Findings) -> list[str]:
    worst = findings.info.baseline_rmse
    if worst is not None:
        near = [
            backbone for backbone, one in findings.standings.items() if not one.estimate("test", "rmse").high < worst
        ]
        mean = "the mean of the training galaxies"
        return [f"Not clearly better than always answering {mean}: {listed(tuple(near))}."] if near else []
    if findings.majority is None:
        return []
    name, share = findings.majority
    near = [
        backbone
        for backbone, standing in findings.standings.items()
        for found in [standing.estimate("test", "accuracy")]
        if found.value <= share or found.low <= share
    ]
    return [f"Not clearly better than always answering {name}: {listed(tuple(near))}."] if near else []
