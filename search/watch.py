"""Finds workers that cannot be reached any more, and lets their trials go on elsewhere.

Ray itself does not always notice that a connection is lost: where a host's network was gone for half a minute, driver
and worker may wait for each other for ever. So they do on one machine where the worker's process was stopped.
"""

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.exceptions import RayError
from ray.tune import Callback
from ray.tune.experiment import Trial

from search.pulse import NUM_SIGNS, dismiss, read_signs, words_of, worker_name
from search.recorder import Recorder

# What was sent while a network was gone arrives at the latest when as much time has passed again, as the pauses between
# retransmissions double. So a worker that was cut off for half a minute is heard again in time, and loses no epoch.
SILENCE_S = 90.0
# A pause in listening is one that is longer than this, and than two of the intervals between signs.
_PAUSE_S = 2.0
# How long a worker may take until it is ready for its first trial: many times as long as on a busy machine.
START_S = 300.0
_LOOK_S = 5.0
# How Ray titles a worker's process until then.
_UNREADY = ("IDLE", ".__init__")


@dataclass(frozen=True)
class _Heard:
    """What was heard of a worker.

    Attributes:
        sign: the latest; None before its first.
        silent_s: for how long there was no other, as far as the driver listened.
    """

    sign: bytes | None
    silent_s: float = 0.0


class Listener:
    """Says which workers are silent for too long.

    Only time in which it listened often enough counts: whatever else the driver did, or if its machine slept, nobody is
    silent for that.

    Args:
        silence_s: how long a worker may be silent.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._interval_s = silence_s / NUM_SIGNS
        self._listened_at = time.monotonic()
        self._heard: dict[str, _Heard] = {}

    def words(self, worker: str) -> str:
        """What a worker said last that it waits for; empty if it does not wait."""
        return words_of(self._heard[worker].sign) if worker in self._heard else ""

    @property
    def is_time(self) -> bool:
        """Whether there may be something to hear; less often than this is asked."""
        return time.monotonic() - self._listened_at >= self._interval_s

    def silent(self, workers: Collection[str], *, begun: bool) -> dict[str, float]:
        """Listen: which workers are silent for too long, and the seconds of each.

        Args:
            workers: names of those who work; a new one is silent from now on.
            begun: whether all of them have begun; else one who has not given a sign yet may be silent.

        Raises:
            RayError: the head does not answer, which says nothing of the workers.
        """
        passed_s = time.monotonic() - self._listened_at
        self._listened_at += passed_s
        signs, before, self._heard = read_signs(workers), self._heard, {}
        for worker in workers:
            sign, last = signs.get(worker), before.get(worker)
            silent_s = 0.0
            if last is not None and last.sign == sign and (begun or sign is not None):
                silent_s = last.silent_s + (0.0 if passed_s > max(2 * self._interval_s, _PAUSE_S) else passed_s)
            self._heard[worker] = _Heard(sign, silent_s)
        return {worker: one.silent_s for worker, one in self._heard.items() if one.silent_s >= self._silence_s}


class Watch(Callback):
    """Ends workers that have a trial and are silent for too long, upon which Tune starts their trials again.

    It comes after the recorder among Tune's callbacks.

    Args:
        recorder: is told why a worker was ended.
        place_of: names the node of a trial, by Tune's key.
        silence_s: how long a worker may be silent.
    """

    def __init__(self, recorder: Recorder, *, place_of: Callable[[str], str], silence_s: float) -> None:
        self._recorder = recorder
        self._place_of = place_of
        self._listener = Listener(silence_s)
        self._workers: dict[str, str] = {}
        self._untold: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Remember whose worker it is."""
        self._workers[trial.trial_id] = worker_name(trial.temporary_state.ray_actor)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Forget a worker that may have the next trial."""
        self._workers.pop(trial.trial_id, None)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Let a worker that is only cut off know that it was replaced."""
        self._dismiss(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Let a worker that is only cut off know that it has no trial any more."""
        self._dismiss(trial)

    def _dismiss(self, trial: Trial) -> None:
        worker = self._workers.pop(trial.trial_id, None)
        if worker is not None:
            self._untold.add(worker)
            self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(RayError):
            for worker in list(self._untold):
                dismiss(worker)
                self._untold.discard(worker)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Listen, if it is time; Tune calls this many times a second, results or none."""
        if not self._listener.is_time:
            return
        # Word that the head did not take before.
        self._tell()
        # Those that are made ready for their next trial, too.
        having = {worker_name(actor): one for one in trials if (actor := one.temporary_state.ray_actor) is not None}
        with contextlib.suppress(RayError):
            for worker, silent_s in self._listener.silent(having, begun=True).items():
                self._end(having[worker], silent_s)

    def _end(self, trial: Trial, silent_s: float) -> None:
        actor = trial.temporary_state.ray_actor
        words = f"no sign of life from its worker on {self._place_of(trial.trial_id)} for {silent_s:.0f} s"
        self._recorder.lose(trial, words)
        # Before the end: a worker that is heard of again shall not go on beside the other.
        dismiss(worker_name(actor))
        # Asks the head only, and does not wait for the worker.
        ray.kill(actor)

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}


class StartWatch(Callback):
    """Ends workers of this machine that do not get as far as a trial, upon which their trials start in others.

    Tune names no worker before it is ready, so that all are ended that are not.

    Args:
        start_s: how long a worker may take to start.
    """

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s
        self._looked_at = time.monotonic()
        self._waited_s: dict[str, float] = {}

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Look, if it is time; Tune calls this many times a second, results or none."""
        passed_s = time.monotonic() - self._looked_at
        if passed_s < _LOOK_S:
            return
        self._looked_at += passed_s
        # Nobody is late for what kept the driver from looking.
        passed_s = min(passed_s, 2 * _LOOK_S)
        pending = [one.trial_id for one in trials if one.status == Trial.PENDING]
        self._waited_s = {key: self._waited_s.get(key, 0.0) + passed_s for key in pending}
        if any(waited_s >= self._start_s for waited_s in self._waited_s.values()):
            self._waited_s = {}
            end_unready_workers()

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}


def end_unready_workers() -> None:
    """End those of Ray's workers below this process that have no trial: they start, or wait for their first order."""
    for process in psutil.Process().children(recursive=True):
        # Of another's, or one that has ended meanwhile.
        with contextlib.suppress(psutil.Error):
            title = (process.cmdline() or [""])[0]
            if title.startswith("ray::") and title.endswith(_UNREADY):
                process.kill()
