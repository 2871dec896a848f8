"""One call of the command line that works on a run: what it may go on with, and what it leaves in the record."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from galaxy_models.cli import EXIT_INTERRUPTED, EndedBySignal
from galaxy_models.errors import GalaxyError
from search.errors import RunError
from search.journal import JOURNAL, RunJournal, check_size
from search.live_file import load_live
from search.options import SearchOptions
from search.population import generation_ends
from search.preflight import Plan
from search.run_dir import SCHEMA_VERSION, describe_search, differences, keep_spaces, load_record, save_record
from search.rungs import rung_epochs
from search.study import check_compatible, load_studies

if TYPE_CHECKING:
    from search.experiment import Job


@contextlib.contextmanager
def gone_if_refused(run_dir: Path) -> Iterator[None]:
    """Remove a new run's folder if the block ends with a mistake that the user can mend before anything was searched.

    The name is then free for the next try, and nobody goes on with options that cannot be.
    """
    try:
        yield
    except GalaxyError as error:
        journal = run_dir / JOURNAL
        if _is_refusal(error) and not (journal.is_file() and journal.stat().st_size):
            shutil.rmtree(run_dir)
        raise


def _is_refusal(error: BaseException | None) -> bool:
    return isinstance(error, GalaxyError) and error.exit_code == GalaxyError.exit_code


class Session:
    """The run's record, while this call works on it. As a `with` block it ends in the record also where it breaks off.

    Args:
        run_dir: the run's folder, whose lock is held.
        record: what it holds.
        saved: told of each file that was written, of a new run once it is described.

    Attributes:
        before_s: seconds that earlier sessions searched, as far as is known.
    """

    def __init__(self, run_dir: Path, record: dict[str, Any], saved: Callable[[Path], None]) -> None:
        self._run_dir = run_dir
        self._saved = saved
        self._record = record
        self._untold: list[Path] = []
        self._described = False
        self.before_s = _sum_s(record["sessions"][:-1])

    @classmethod
    def begin(
        cls,
        run_dir: Path,
        options: SearchOptions,
        plan: Plan,
        console: Console,
        *,
        saved: Callable[[Path], None] | None = None,
    ) -> "Session":
        """Begin a run, or go on with one that is as it was left.

        Args:
            run_dir: the run's folder, whose lock is held.
            options: what the user asked for.
            plan: what was checked.
            console: where to tell of accepted changes.
            saved: told of each file that was written; None = nobody is.

        Raises:
            RunError: a space, the data or the code has changed and that is not accepted, or the folder is half-copied.
        """
        now = describe_search(plan)
        sessions, fresh, kept = [], options.resume is None, options.to_json()
        record: dict[str, Any] = {}
        if not fresh:
            record = load_record(run_dir)
            # New bounds are kept by `describe`, once it is known that the search can go on with them.
            sessions, kept = record["sessions"], record["options"]
            if sessions and sessions[-1]["elapsed_s"] is None:
                sessions[-1]["elapsed_s"] = _searched_s(run_dir, sessions[-1], before_s=_sum_s(sessions[:-1]))
            check_whole(run_dir, sessions)
            # In a storage the journal arrives behind the rest; trials tell from their states what it lacks.
            if kept.get("storage") is None:
                check_size(run_dir / JOURNAL)
            found = differences(run_dir, record, now, plan)
            if found and not options.accept_changes:
                raise RunError(
                    f"{run_dir}: not as it was left, expected the same space files, data and code; "
                    "--accept-changes goes on all the same:\n" + "\n".join(f"  {line}" for line in found)
                )
            if found:
                check_acceptable(run_dir, record, now, plan)
                console.print("going on with changes:\n" + "\n".join(f"  {line}" for line in found), markup=False)
        sessions.append(
            {"command": options.command, "started": _now(), "ended": "", "elapsed_s": None, "reason": "",
             "exit_code": None, "accepted_changes": [] if fresh else found, "journal_bytes": None}
        )  # fmt: skip
        # What `describe` adds stays that of the session before until this one gets as far.
        record |= {"schema_version": SCHEMA_VERSION, "name": run_dir.resolve().name, **now, "sessions": sessions}
        record |= {"command": sessions[0]["command"], "options": kept}
        if fresh:
            # Before the record: a record without a journal is of a folder that was copied by halves.
            RunJournal(run_dir / JOURNAL).close()
        session = cls(run_dir, record, saved or (lambda path: None))
        session._untold = keep_spaces(run_dir, plan)
        session._save(tell=not fresh)
        return session

    def __enter__(self) -> "Session":
        """Work on the run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take down why the session ended without a word of its own; the rest of the record is as it was."""
        session = self._record["sessions"][-1]
        if error is None:
            return
        code, words = _end_by(error)
        if session["ended"] and code == session["exit_code"]:
            return
        if not session["ended"]:
            began = self._described
            session["elapsed_s"] = _searched_s(self._run_dir, session, before_s=self.before_s) if began else 0.0
        how = f"{'broke off' if self._described else 'did not begin'}: {words:.300}"
        reason = f"{session['reason']}; {how}" if session["reason"] else how
        session |= {"ended": _now(), "reason": reason, "exit_code": code}
        # On a full disk the session stays open, as one that was killed.
        with contextlib.suppress(OSError):
            # A new run that is refused before it began is about to be removed.
            is_gone = _is_refusal(error) and len(self._record["sessions"]) == 1 and not self._described
            self._save(tell=not is_gone)

    def describe(self, job: "Job", *, baseline_rmse: float | None) -> None:
        """Add what the report needs to know of the search.

        Args:
            job: the search.
            baseline_rmse: see `RunInfo`.
        """
        options, plan = job.options, job.plan
        self._described = True
        self._record |= {
            "notes": [],
            "options": options.to_json(),
            "data": str(plan.data),
            "objective": plan.metric,
            "direction": plan.direction,
            "max_epochs": options.max_epochs,
            "rungs": _rungs(options),
            "num_trials": options.num_trials,
            "time_budget_s": options.time_budget_s,
            "seed": options.seed,
            "threads": job.places.cpus_per_trial,
            "gpus_per_trial": job.places.gpus_per_trial,
            "weights_dir": str(options.weights_dir) if options.weights_dir else None,
            "sampler": options.sampler,
            "scheduler": options.scheduler,
            "share": options.share,
            "precision": options.precision,
            "price_per_hour": options.price_per_hour,
            "baseline_rmse": baseline_rmse,
        }
        self._save()

    def end(self, *, elapsed_s: float, reason: str, exit_code: int, notes: Sequence[str]) -> None:
        """Take down how the session ended.

        Args:
            elapsed_s: seconds the search took, earlier sessions included.
            reason: why it ended early; empty if it did not.
            exit_code: of the process.
            notes: what a reader of the report has to know, a sentence each.
        """
        size = (self._run_dir / JOURNAL).stat().st_size
        self._record["sessions"][-1] |= {
            "ended": _now(), "elapsed_s": max(0.0, elapsed_s - self.before_s), "reason": reason,
            "exit_code": exit_code, "journal_bytes": size,
        }  # fmt: skip
        self._record["notes"] = list(notes)
        self._save()

    def _save(self, *, tell: bool = True) -> None:
        self._untold.append(save_record(self._run_dir, self._record))
        if tell:
            for path in dict.fromkeys(self._untold):
                self._saved(path)
            self._untold = []


def check_whole(run_dir: Path, sessions: Sequence[dict[str, Any]]) -> None:
    """Check that a run's journal is all there.

    Raises:
        RunError: it is missing, or shorter than it was at the end of a session.
    """
    path = run_dir / JOURNAL
    if not path.is_file():
        raise RunError(f"{run_dir}: no {JOURNAL} in it, expected that of the run: copy the run's folder again, whole")
    known = max((one.get("journal_bytes") or 0 for one in sessions), default=0)
    if path.stat().st_size < known:
        raise RunError(
            f"{path}: {path.stat().st_size:,} bytes, expected at least {known:,}: copy the run's folder again, whole"
        )


def check_acceptable(run_dir: Path, record: Mapping[str, Any], now: Mapping[str, Any], plan: Plan) -> None:
    """Check that what has changed can stand in one study with what is there.

    Raises:
        RunError: the task is another, or a parameter is of another kind.
    """
    before, after = (one["survey"]["task"] for one in (record, now))
    if (before["kind"], before["names"]) != (after["kind"], after["names"]):
        raise RunError(
            f"{plan.data}: {after['kind']} {', '.join(after['names'])}, expected those of the run, {before['kind']} "
            f"{', '.join(before['names'])}: numbers of two tasks cannot be compared; begin a new run, with "
            f"--warm-start {run_dir}"
        )
    for name, study in load_studies(run_dir).items():
        if name in plan.spaces:
            check_compatible(study, plan.spaces[name], plan.distributions[name])


def _rungs(options: SearchOptions) -> list[int]:
    """The epochs after which trials are compared; none where that is after no epochs in particular."""
    if options.scheduler == "pbt":
        return list(generation_ends(options.max_epochs))
    return list(rung_epochs(options.max_epochs)) if options.scheduler in ("asha", "hyperband") else []


def _sum_s(sessions: Sequence[Mapping[str, Any]]) -> float:
    """Seconds that sessions searched, as far as is known."""
    return sum((one["elapsed_s"] or 0.0 for one in sessions), 0.0)


def _searched_s(run_dir: Path, session: Mapping[str, Any], *, before_s: float) -> float | None:
    """Seconds that a session of which nobody took down the end searched; None if its driver gave no sign of life.

    Args:
        run_dir: the run's folder.
        session: the latest one.
        before_s: seconds of those before it.
    """
    try:
        live = load_live(run_dir)
    except RunError:
        return None  # a search does without that file
    if live is None or live.written < datetime.fromisoformat(session["started"]).timestamp():
        return None
    return max(0.0, live.elapsed_s - before_s)


def _end_by(error: BaseException) -> tuple[int, str]:
    """The process's code after an error that nobody catches, and the error in words."""
    if isinstance(error, EndedBySignal):
        return int(str(error.code)), "interrupted"
    if isinstance(error, SystemExit):
        # What rich makes of a pipe whose reader left.
        return error.code if isinstance(error.code, int) else 1, "nobody reads its output any more"
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED, "interrupted"
    if isinstance(error, GalaxyError):
        return error.exit_code, " ".join(str(error).split())
    return 1, " ".join(f"{type(error).__name__}: {error}".split())


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
