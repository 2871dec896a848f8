"""When a search can be expected to end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from search.entry import Entry
from search.options import SearchOptions


@dataclass(frozen=True)
class Forecast:
    """The expected end of a search's trials.

    Attributes:
        seconds: until then; None if nothing can be said yet.
        assumption: under which it holds, or why nothing can be said.
    """

    seconds: float | None
    assumption: str


def forecast(
    entries: Mapping[str, Sequence[Entry]],
    options: SearchOptions,
    *,
    num_places: int,
    gpus_per_trial: float,
    elapsed_s: float,
) -> Forecast:
    """Expect the end where the first of a search's bounds is reached.

    Args:
        entries: the trials of each space.
        options: what was asked for.
        num_places: trials that run at the same time.
        gpus_per_trial: GPUs of each.
        elapsed_s: seconds the search has run.
    """
    by_trials = _by_population if options.scheduler == "pbt" else _by_trials
    bounds = [by_trials(entries, options, num_places), *_by_pace(entries, options, num_places)]
    if options.gpu_hours is not None and gpus_per_trial:
        spent_s = sum(one.seconds for each in entries.values() for one in each)
        left_s = options.gpu_hours * 3600 / gpus_per_trial - spent_s
        bounds.append(Forecast(left_s / num_places, "when the GPU-hours are spent, if no GPU has to wait"))
    if options.time_budget_s is not None:
        bounds.append(Forecast(options.time_budget_s - elapsed_s, "when the time budget is spent"))
    known = [(max(0.0, one.seconds), one.assumption) for one in bounds if one.seconds is not None]
    return Forecast(*min(known)) if known else bounds[0]


def _by_population(entries: Mapping[str, Sequence[Entry]], options: SearchOptions, num_places: int) -> Forecast:
    """The epochs still due, as every place of a population is trained to the end, at the mean time of those so far."""
    trials = [one for each in entries.values() for one in each]
    num_epochs = sum(one.own_epochs for one in trials)
    if not num_epochs:
        return Forecast(None, "not known before the first epoch has ended")
    to_come = max(0, len(entries) * options.num_trials * options.max_epochs - num_epochs)
    mean_s = sum(one.seconds for one in trials) / num_epochs
    return Forecast(to_come * mean_s / num_places, f"if the {to_come:,} epochs to come take as long as those so far")


def _by_trials(entries: Mapping[str, Sequence[Entry]], options: SearchOptions, num_places: int) -> Forecast:
    """The trials still due at the mean time of those that have ended, their own space's where there are any."""
    ended = {name: [one.seconds for one in each if one.outcome is not None] for name, each in entries.items()}
    of_all = [seconds for each in ended.values() for seconds in each]
    if not any(of_all):
        return Forecast(None, "not known before the first trial has ended")
    left_s, num_left = 0.0, 0
    for name, each in entries.items():
        mean_s = fmean(ended[name] or of_all)
        running = [one for one in each if one.outcome is None]
        num_due = max(0, options.num_trials - sum(not one.is_extra for one in each))
        left_s += num_due * mean_s + sum(max(0.0, mean_s - one.seconds) for one in running)
        num_left += num_due + len(running)
    return Forecast(
        left_s / num_places, f"if the {num_left:,} trials to end take as long as the {len(of_all):,} that have ended"
    )


def _by_pace(entries: Mapping[str, Sequence[Entry]], options: SearchOptions, num_places: int) -> list[Forecast]:
    num_epochs = sum(one.own_epochs for each in entries.values() for one in each)
    if options.epoch_budget is None or not num_epochs:
        return []
    mean_s = sum(one.seconds for each in entries.values() for one in each) / num_epochs
    left_s = (options.epoch_budget - num_epochs) * mean_s / num_places
    return [Forecast(left_s, "when the epoch budget is spent, if epochs take as long as so far")]
