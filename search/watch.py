"""Finds workers that cannot be reached any more, and lets their trials go on elsewhere.

Ray itself does not always notice that a connection is lost: where a host's network was gone for half a minute, driver
and worker may wait for each other for ever.
"""

import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import Callback
from ray.tune.experiment import Trial

from search.pulse import NUM_SIGNS, dismiss, read_signs
from search.recorder import Recorder

# Retransmissions after a pause of half a minute come within half a minute more: such a worker is heard again in time.
SILENCE_S = 60.0


@dataclass(frozen=True)
class _Heard:
    """What was heard of a worker.

    Attributes:
        sign: the latest; None before its first.
        silent_s: for how long there was no other, as far as the driver listened.
    """

    sign: bytes | None
    silent_s: float = 0.0


class Watch(Callback):
    """Ends workers that have a trial and are silent for too long, upon which Tune starts their trials again.

    Only time in which the driver listened counts: whatever else it did, or if its machine slept, nobody is silent for
    that. It comes after the recorder among Tune's callbacks.

    Args:
        recorder: is told why a worker was ended.
        place_of: names the node of a trial, by Tune's key.
        silence_s: how long a worker may be silent.
    """

    def __init__(self, recorder: Recorder, *, place_of: Callable[[str], str], silence_s: float) -> None:
        self._recorder = recorder
        self._place_of = place_of
        self._silence_s = silence_s
        self._interval_s = silence_s / NUM_SIGNS
        self._looked_at = time.monotonic()
        self._heard: dict[str, _Heard] = {}
        self._workers: dict[str, str] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Remember whose worker it is."""
        self._workers[trial.trial_id] = _name(trial.temporary_state.ray_actor)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Let a worker that is only cut off know that it was replaced."""
        self._dismiss(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Let a worker that is only cut off know that it has no trial any more."""
        self._dismiss(trial)

    def _dismiss(self, trial: Trial) -> None:
        worker = self._workers.pop(trial.trial_id, None)
        if worker is not None:
            with contextlib.suppress(RayError):
                dismiss(worker)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Listen, if it is time; Tune calls this many times a second, results or none."""
        passed_s = time.monotonic() - self._looked_at
        if passed_s < self._interval_s:
            return
        self._looked_at += passed_s
        with contextlib.suppress(RayError):
            # A head that does not answer says nothing of the workers.
            self._listen(trials, min(passed_s, 2 * self._interval_s))

    def _listen(self, trials: Iterable[Trial], passed_s: float) -> None:
        # Those that are made ready for their next trial, too.
        actors = {trial: actor for trial in trials if (actor := trial.temporary_state.ray_actor) is not None}
        signs = read_signs(map(_name, actors.values()))
        before, self._heard = self._heard, {}
        for trial, actor in actors.items():
            worker = _name(actor)
            sign, last = signs.get(worker), before.get(worker)
            same = last is not None and last.sign == sign
            heard = self._heard[worker] = _Heard(sign, last.silent_s + passed_s if last and same else 0.0)
            if heard.silent_s >= self._silence_s:
                self._end(trial, actor, heard.silent_s)

    def _end(self, trial: Trial, actor: Any, silent_s: float) -> None:
        # First: a worker that is heard of again shall not go on beside the other.
        dismiss(_name(actor))
        words = f"no sign of life from its worker on {self._place_of(trial.trial_id)} for {silent_s:.0f} s"
        self._recorder.lose(trial, words)
        del self._heard[_name(actor)]
        # Asks the head only, and does not wait for the worker.
        ray.kill(actor)

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}


def _name(actor: Any) -> str:
    return str(actor._actor_id.hex())
