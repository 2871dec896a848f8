"""How a run stands, read from its folder while a search may be writing there."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from search.entry import Entry, better, epoch_metrics, read_entry
from search.errors import RunError
from search.forecast import Forecast, forecast
from search.live_file import Live, load_live
from search.lock import Holder, read_holder
from search.options import SearchOptions
from search.results import load_results
from search.run_dir import load_record
from search.study import load_studies

if TYPE_CHECKING:
    import optuna

# A driver that was silent for longer may be dead; it writes several times in this time.
SILENCE_S = 60.0
State = Literal["preparing", "searching", "final", "ended", "silent", "dead"]


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One space's trials.

    Attributes:
        name: the space's name.
        running: trials that have not ended; nobody runs them if the search is not alive.
        waiting: trials of a population that nobody runs: they wait for a place, or for the others.
        stopped, done, failed: ended trials by outcome.
        of: trials that it gets, those run again to the full length not counted; of a population those that went on
            from others so far, too.
        best: the best value so far; None before the first.
        best_epoch, best_trial: where it was reached.
    """

    name: str
    running: int
    waiting: int
    stopped: int
    done: int
    failed: int
    of: int
    best: float | None
    best_epoch: int | None
    best_trial: int | None


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a run took so far.

    Attributes:
        elapsed_s: seconds of search.
        whole_s: seconds of all sessions from start to end, preparation and final training included.
        sessions: calls that worked on it.
        epochs: of all trials.
        hours: of all trials and retrainings, times the processors or GPUs of each.
        unit: of the hours, `CPU` or `GPU`.
        price_per_hour: of the cluster; None = not said.
        cost: at that price.
    """

    elapsed_s: float
    whole_s: float
    sessions: int
    epochs: int
    hours: float
    unit: str
    price_per_hour: float | None
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How a run stands.

    Attributes:
        run: its folder.
        state: what it does. Of a `silent` one it cannot be told from here whether it lives; `dead` is one whose driver
            ended without a word.
        holder: the process that holds the folder, or held it last; empty = unknown.
        silent_s: seconds since the driver's last sign of life.
        reason: why its last session ended; empty if all was done, or it did not end.
        exit_code: of its last session; None while unknown.
        objective: the optimised metric, such as `val_nll`; empty before the first trial.
        backbones: one for each space.
        live: what the driver wrote last in this session; None before its first trial.
        training_share: of the workers' time in this session, the share that trained; None while unknown.
        spent: what it took so far.
        end: when its trials are expected to end; None if none run.
    """

    run: str
    state: State
    holder: str
    silent_s: float
    reason: str
    exit_code: int | None
    objective: str
    backbones: tuple[Backbone, ...]
    live: Live | None
    training_share: float | None
    spent: Spent
    end: Forecast | None


def read_progress(run_dir: Path, *, now: float | None = None) -> Progress:
    """Read how a run stands; nothing in the folder is changed.

    Args:
        run_dir: the run's folder, or a copy of it.
        now: seconds since 1970; the clock's unless told otherwise.

    Raises:
        RunError: the folder is no run, is half-copied or damaged, or was made by another version.
    """
    now = time.time() if now is None else now
    record = load_record(run_dir)
    live, holder, studies = load_live(run_dir), read_holder(run_dir), load_studies(run_dir)
    try:
        return _progress(run_dir, record, live, holder, studies, now)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise RunError(
            f"{run_dir}: {error!r} in its record or journal, expected those of a run: copy the run's folder again, "
            "whole"
        ) from error


def _progress(
    run_dir: Path,
    record: Mapping[str, Any],
    live: Live | None,
    holder: Holder,
    studies: "Mapping[str, optuna.Study]",
    now: float,
) -> Progress:
    options, session = SearchOptions.from_json(record["options"]), record["sessions"][-1]
    started = _timestamp(session["started"])
    live = live if live is not None and live.written >= started else None
    sign = max(started, live.written if live else 0.0, _timestamp(session["ended"] or session["started"]))
    silent_s = max(0.0, now - sign)
    state = _state(session, holder, live, silent_s)
    objective = f"val_{record['objective']}" if "objective" in record else ""
    epochs = _epochs(studies)
    entries: dict[str, list[Entry]] = {name: [] for name in record["spaces"]}
    if objective:
        entries |= {name: _entries(name, study, objective, record["direction"]) for name, study in studies.items()}
    stamped_s = max((epoch.get("elapsed_s", 0.0) for epoch in epochs), default=0.0)
    since_s = min(max(0.0, now - live.written), SILENCE_S) if live and state == "searching" else 0.0
    recorded_s = sum(one["elapsed_s"] or 0.0 for one in record["sessions"])
    elapsed_s = max(stamped_s, recorded_s, live.elapsed_s + since_s if live else 0.0)
    spent = _spent(run_dir, record, entries, elapsed_s, until=sign if state in ("dead", "silent") else now)
    end = None
    if state == "searching" and live is not None:
        end = forecast(
            entries,
            options,
            num_places=live.num_places,
            gpus_per_trial=live.gpus_per_trial,
            elapsed_s=elapsed_s,
        )
    return Progress(
        run=str(run_dir),
        state=state,
        holder=holder.name,
        silent_s=silent_s,
        reason=str(session["reason"]),
        exit_code=session["exit_code"],
        objective=objective,
        backbones=tuple(
            _backbone(name, each, options, record, live if state == "searching" else None)
            for name, each in entries.items()
        ),
        live=live,
        training_share=_training_share(live, epochs) if live else None,
        spent=spent,
        end=end,
    )


def _timestamp(words: str) -> float:
    return datetime.fromisoformat(words).timestamp()


def _state(session: Mapping[str, Any], holder: Holder, live: Live | None, silent_s: float) -> State:
    if session["ended"] and not holder.holds:
        return "ended"
    if holder.holds is False:
        return "dead"
    if holder.holds is None and silent_s > SILENCE_S:
        return "silent"
    if session["ended"] or (live is not None and live.ended):
        return "final"
    return "preparing" if live is None else "searching"


def _epochs(studies: "Mapping[str, optuna.Study]") -> list[Mapping[str, float]]:
    """What was recorded of every epoch."""
    trials = (trial for study in studies.values() for trial in study.get_trials(deepcopy=False))
    return [metrics for trial in trials for metrics in epoch_metrics(trial).values()]


def _entries(name: str, study: "optuna.Study", objective: str, direction: Any) -> list[Entry]:
    trials = (trial for trial in study.get_trials(deepcopy=False) if trial.state.name != "WAITING")
    return [read_entry(name, trial, objective=objective, direction=direction) for trial in trials]


def _backbone(
    name: str, entries: Sequence[Entry], options: SearchOptions, record: Mapping[str, Any], live: Live | None
) -> Backbone:
    counts = Counter(one.outcome for one in entries)
    waiting = 0
    if live is not None and options.scheduler == "pbt":
        waiting = max(0, counts[None] - sum(one.backbone == name for one in live.running))
    leader = None
    # As the search judges them: a trial that failed may have led while it ran, but not after.
    for one in (one for one in entries if one.outcome != "failed" and one.best_epoch):
        if leader is None or better(one.best_value, leader.best_value, record["direction"]):
            leader = one
    return Backbone(
        name=name,
        running=counts[None] - waiting,
        waiting=waiting,
        stopped=counts["stopped"],
        done=counts["complete"],
        failed=counts["failed"],
        of=options.num_trials + sum(one.parent is not None for one in entries),
        best=leader.best_value if leader else None,
        best_epoch=leader.best_epoch if leader else None,
        best_trial=leader.number if leader else None,
    )


def _spent(
    run_dir: Path, record: Mapping[str, Any], entries: Mapping[str, Sequence[Entry]], elapsed_s: float, *, until: float
) -> Spent:
    whole_s = 0.0
    for one in record["sessions"]:
        last = one is record["sessions"][-1]
        if one["ended"] or last:
            whole_s += (_timestamp(one["ended"]) if one["ended"] else until) - _timestamp(one["started"])
        else:
            # Of an earlier session that was killed, only its search's time is known.
            whole_s += one["elapsed_s"] or 0.0
    whole_s = max(whole_s, elapsed_s)
    trials = [one for each in entries.values() for one in each]
    seconds = sum(one.seconds for one in trials) + sum(one.seconds for one in load_results(run_dir))
    gpus, price = record.get("gpus_per_trial") or 0.0, record["options"].get("price_per_hour")
    return Spent(
        elapsed_s=elapsed_s,
        whole_s=whole_s,
        sessions=len(record["sessions"]),
        epochs=sum(one.own_epochs for one in trials),
        hours=seconds * (gpus or record.get("threads") or 1) / 3600,
        unit="GPU" if gpus else "CPU",
        price_per_hour=price,
        cost=None if price is None else price * whole_s / 3600,
    )


def _training_share(live: Live, epochs: Sequence[Mapping[str, float]]) -> float | None:
    """Of the workers' time in this session that is accounted for, the share that trained and validated.

    What a running trial has done since it told of an epoch last is not known yet and left out.
    """
    trained_s = sum(one["epoch_s"] for one in epochs if live.before_s < one.get("elapsed_s", 0.0) <= live.elapsed_s)
    untold_s = 0.0 if live.ended else sum(live.written - one.told for one in live.running)
    known_s = live.num_places * (live.elapsed_s - live.before_s) - untold_s
    return min(1.0, trained_s / known_s) if trained_s and known_s > 0 else None
