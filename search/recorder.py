"""Closes the trials that end otherwise than by a decision, and keeps the run's folder small."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from galaxy_models.cli import machine_fault
from galaxy_models.errors import GalaxyError
from search.entry import Entry
from search.files import sweep, sweep_partials
from search.ledger import Ledger
from search.mirror import Mirror

# One failed trial is bad luck; this many without an epoch between them are a bug that the next trial meets too.
MAX_FAULTS_IN_A_ROW = 3
_DIED = "its worker died"
# In what Ray's memory monitor says of a worker that it ended, and in nothing that it says of other deaths.
MEMORY_WORDS = "out of memory issue"
# In what Ray says of a worker whose node is gone, likewise.
NODE_WORDS = "because its node has died"
# In addition, of a node whose end was announced; Tune does not count such a death in the first place.
PREEMPTED_WORDS = "node was preempted"


class Recorder(Callback):
    """Tells the ledger of ends that are no decision, and deletes files that nobody wants any more.

    It comes first among Tune's callbacks, so that the ledger is current for the others.

    Args:
        ledger: the run's ledger.
        run_dir: the run's folder.
        keep_top: best trials of each space whose weights are kept.
        say: prints a line for the user.
        max_restarts: restarts of a trial whose worker dies.
        confirm_ray: called before a trial is given up because its worker died; does not return if Ray itself did.
        oom_kills: counts the processes that the workers' kernel has killed for want of memory.
        mirror: the way to the storage where workers keep checkpoints; None = they are in the run's folder.

    Attributes:
        handovers_s: for each trial that followed another in its worker, the time between them.
        restarts: workers that died and were started again.
        fault: what must end the search: something the user can mend, or a disk that fails.
    """

    def __init__(
        self,
        ledger: Ledger,
        run_dir: Path,
        *,
        keep_top: int,
        say: Callable[[str], None],
        max_restarts: int = 0,
        confirm_ray: Callable[[], None] = lambda: None,
        oom_kills: Callable[[], int] = lambda: 0,
        mirror: Mirror | None = None,
    ) -> None:
        self._ledger = ledger
        self._run_dir = run_dir
        self._keep_top = keep_top
        self._say = say
        self._max_restarts = max_restarts
        self._confirm_ray = confirm_ray
        self._oom_kills = oom_kills
        self._mirror = mirror
        self._starts: Counter[tuple[str, int]] = Counter()
        self._failures: Counter[tuple[str, int]] = Counter()
        self._lost: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._oom_kills_before: dict[str, int] = {}
        self._lost_after: dict[tuple[str, int], int] = {}
        self._faults_in_a_row: Counter[str] = Counter()
        self._waiting: set[str] = set()
        self._entries: dict[str, Entry] = {}
        self.handovers_s: list[float] = []
        self.restarts = 0
        self.fault: GalaxyError | None = None

    def entry(self, trial: Trial) -> Entry:
        """The ledger's line of a trial, also after its end."""
        key = trial.trial_id
        if key not in self._entries:
            self._entries[key] = self._ledger.live[key]
        return self._entries[key]

    def setup(self, *args: Any, **info: Any) -> None:
        """Delete what an earlier session's workers had not finished writing; Tune calls this before any starts."""
        self._sweep_partials()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Remember who runs; one that was put back has the restarts that it had."""
        entry = self.entry(trial)
        self._oom_kills_before[trial.trial_id] = self._oom_kills()
        if failures := self._failures.pop((entry.space, entry.number), 0):
            trial.run_metadata.num_failures += failures

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Remember the restarts of one that is to go on later, with its population."""
        entry = self._entries.get(trial.trial_id)
        if entry is not None and entry.outcome is None and trial.num_failures:
            self._failures[entry.space, entry.number] = trial.num_failures

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Close a trial that met a fault or diverged, and tidy up after an epoch that was a trial's best."""
        entry, key = self.entry(trial), trial.trial_id
        self._oom_kills_before[key] = self._oom_kills()
        if "micro_batch" in result:
            self._sizes[key] = int(result["micro_batch"])
        with self._disk():
            if "waiting" in result:
                self._tell_waiting(key, entry, result["waiting"])
                return
            self._waiting.discard(key)
            if "fault" in result:
                self._close_fault(key, entry, result["fault"], result.get("fault_exit_code"))
            elif result["diverged"]:
                self._ledger.finish(key, "failed", f"diverged in epoch {result['epoch']:.0f}: the loss was not finite")
            else:
                self._faults_in_a_row[entry.space] = 0
            if entry.outcome is not None or entry.best_epoch == entry.epochs:
                self._sweep(entry.space)
        if "handover_s" in result:
            self.handovers_s.append(result["handover_s"])

    def lose(self, trial: Trial, why: str) -> None:
        """Take down why a worker is ended that cannot be reached, just before Tune learns that it is dead."""
        self._lost[trial.trial_id] = why

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Say that a worker died and its trial goes on elsewhere: with half the images at once if memory ran out.

        Restarts that --max-restarts does not count are taken back from Tune's count.
        """
        self.restarts += 1
        entry, why = self.entry(trial), self._take_reason(trial)
        self._sweep_partials(entry)
        if self._ran_out_of_memory(trial, why):
            # What could be halved is no restart of those that --max-restarts counts.
            trial.run_metadata.num_failures -= self._halve(trial, entry)
            why = f"{_DIED} for want of memory: {trial.config['micro_batch']} images at once from now on"
        elif self._forgive(entry, why) and not _told_by_ray(trial, PREEMPTED_WORDS):
            trial.run_metadata.num_failures -= 1
        self._say(f"{entry.space} trial {entry.number}: {why}; it goes on after epoch {entry.epochs}")

    def _ran_out_of_memory(self, trial: Trial, why: str) -> bool:
        """Whether Ray's memory monitor ended a trial's worker, or the kernel some process since the trial last told.

        Should the kernel have ended another process, and somebody else the worker, no more is lost than a halving.
        """
        now, key = self._oom_kills(), trial.trial_id
        grown = now > self._oom_kills_before.get(key, now)
        self._oom_kills_before[key] = now
        return _told_by_ray(trial, MEMORY_WORDS) or (why == _DIED and grown)

    def _halve(self, trial: Trial, entry: Entry) -> bool:
        """Let a trial, and later ones like it, go on with half the images at once; whether that is fewer.

        Its worker may itself have come down to fewer than it began with.
        """
        whole = entry.config["batch_size"]
        before = min(whole, trial.config["micro_batch"] or whole, self._sizes.get(trial.trial_id, whole))
        trial.config["micro_batch"] = size = max(1, before // 2)
        self._ledger.accounts[entry.space].remember_micro_batch(entry.config["image_px"], size)
        return size < before

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Close a trial whose workers died too often.

        Tune gives up a trial whose worker dies before the trial runs in it: such a one is started again, as often as
        --max-restarts says. So is one whose node was lost, or whose images could be halved, when Tune has counted
        enough.
        """
        self._confirm_ray()
        entry, why = self.entry(trial), self._take_reason(trial)
        self._sweep_partials(entry)
        place = entry.space, entry.number
        if self._ran_out_of_memory(trial, why):
            free, why = self._halve(trial, entry), f"{_DIED} for want of memory"
        else:
            free = self._forgive(entry, why)
        if free or (trial.num_failures <= self._max_restarts and self._starts[place] < self._max_restarts):
            self._starts[place] += not free
            self._failures[place] = max(0, trial.num_failures - 1)
            self.restarts += 1
            self._ledger.put_back(trial.trial_id)
            how = f"{why}; it goes on after epoch {entry.epochs}" if free else f"{_DIED} at the start; it starts again"
            self._say(f"{entry.space} trial {entry.number}: {how}")
            return
        with self._disk():
            words = "the worker process died: killed, or out of memory" if why == _DIED else why
            self._close_fault(trial.trial_id, entry, words, None)
            self._sweep(entry.space)

    def _take_reason(self, trial: Trial) -> str:
        """Why a trial has no worker any more; to be asked once."""
        why = self._lost.pop(trial.trial_id, _DIED)
        return f"{_DIED} with its node" if why == _DIED and _told_by_ray(trial, NODE_WORDS) else why

    def _forgive(self, entry: Entry, why: str) -> bool:
        """Take down a loss; whether it is none of those that --max-restarts counts, as it was the node's.

        One that follows the one before without an epoch between them is counted: the trial might be the cause.
        """
        place = entry.space, entry.number
        if why == _DIED or self._lost_after.get(place) == entry.epochs:
            return False
        self._lost_after[place] = entry.epochs
        return True

    def close(self) -> None:
        """Tidy up at the end; trials that did not end stay as they are, to go on when the run is resumed."""
        with self._disk():
            for space in self._ledger.accounts:
                self._sweep(space)

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Turn a disk that fails into the search's fault: raised here, Tune would bury it under its own."""
        try:
            yield
        except OSError as error:
            fault = machine_fault(error, self._run_dir)
            if fault is None:
                raise
            self.fault = self.fault or fault
        except GalaxyError as error:
            self.fault = self.fault or error

    def _tell_waiting(self, key: str, entry: Entry, words: str) -> None:
        if not self._waiting:
            self._say(f"{entry.space} trial {entry.number}: {words}")
        self._waiting.add(key)

    def _close_fault(self, key: str, entry: Entry, words: str, exit_code: int | None) -> None:
        self._ledger.finish(key, "failed", words)
        where = f"{entry.space}, trial {entry.number}"
        self._faults_in_a_row[entry.space] += 1
        if exit_code is not None:
            fault = GalaxyError(f"{where}: {words}")
            fault.exit_code = exit_code
            self.fault = self.fault or fault
        elif self._faults_in_a_row[entry.space] >= MAX_FAULTS_IN_A_ROW:
            self._ledger.given_up[entry.space] = (
                f"{where}: {words}: the last {MAX_FAULTS_IN_A_ROW} trials of this space failed one after the other, "
                f"so it gets no more: see {self._run_dir / 'errors'}"
            )

    def _sweep(self, space: str) -> None:
        account = self._ledger.accounts[space]
        best = account.top(self._keep_top)
        if self._mirror is None:
            sweep(self._run_dir, space, live=account.live, best=best)
        else:
            self._mirror.sweep(space, live=account.live, best=best, num_known=account.num_trials)

    def _sweep_partials(self, entry: Entry | None = None) -> None:
        """Delete what the worker that a trial has lost, or all of an earlier session, had not finished writing.

        A worker that was only cut off may be at it still: it then fails, unheard by anybody, and the trial's next
        worker has not begun.
        """
        # With a storage, workers write into folders of their own, which go with them.
        if self._mirror is None:
            with self._disk():
                sweep_partials(self._run_dir, None if entry is None else (entry.space, entry.number))

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}


def _told_by_ray(trial: Trial, words: str) -> bool:
    """Whether Ray said so when the trial's last worker died."""
    path = trial.error_file
    if path is None or not Path(path).is_file():
        return False
    return words in Path(path).read_text(encoding="utf-8").rpartition("Failure #")[2]
