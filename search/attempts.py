"""The retrainings that are under way, each in a task on a place of its own."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from search.finalist import FinalJob, FinalSetting
from search.options import Places
from search.peers import Rooms
from search.pulse import dismiss
from search.results import FinalRun
from search.retrain import attempt
from search.watch import Listener

_POLL_S = 0.5


class Attempts:
    """Retrainings on the Ray that is running.

    Args:
        setting: on what, where.
        places: what is reserved for each.
    """

    def __init__(self, setting: FinalSetting, places: Places) -> None:
        self._setting = setting
        self._rooms = Rooms(places)
        self._listener = None if setting.silence_s is None else Listener(setting.silence_s)
        self._under_way: dict[str, tuple[FinalJob, Any]] = {}
        self._waiting: set[str] = set()

    def __len__(self) -> int:
        """How many have not ended."""
        return len(self._under_way)

    def begin(self, job: FinalJob, *, micro_batch: int | None) -> None:
        """Begin one, as soon as there is room.

        Args:
            job: what to do.
            micro_batch: most images at once, in place of the job's.
        """
        worker = uuid.uuid4().hex
        reference = self._rooms.start(attempt, replace(job, micro_batch=micro_batch), self._setting, worker)
        self._under_way[worker] = job, reference

    def ended(self) -> Iterator[tuple[FinalJob, FinalRun | Exception]]:
        """Wait for a moment; those that ended meanwhile, each with its result or what Ray says of its process's death.

        Of one whose process is silent for too long, a TimeoutError; whatever it still does, it writes nothing more.
        """
        workers = {reference: worker for worker, (_, reference) in self._under_way.items()}
        ray.wait(list(workers), timeout=_POLL_S)
        for reference in _ready(list(workers)):
            job = self._leave(workers[reference])
            try:
                yield job, ray.get(reference)
            except (RayError, OSError) as error:
                yield job, error
        for worker, silent_s in self._silent().items():
            reference = self._under_way[worker][1]
            ray.cancel(reference, force=True)
            yield self._leave(worker), TimeoutError(f"no sign of life from it for {silent_s:.0f} s")

    def waiting(self) -> Iterator[tuple[FinalJob, str]]:
        """Those that have begun to wait, each with what for: for room on the disk, or a storage."""
        words = {worker: self._listener.words(worker) for worker in self._under_way} if self._listener else {}
        before, self._waiting = self._waiting, {worker for worker, one in words.items() if one}
        for worker in self._waiting - before:
            yield self._under_way[worker][0], words[worker]

    def cancel(self) -> None:
        """End all that have not ended."""
        for worker, (_, reference) in list(self._under_way.items()):
            ray.cancel(reference, force=True)
            self._leave(worker)

    def _silent(self) -> dict[str, float]:
        if self._listener is None or not self._listener.is_time:
            return {}
        try:
            # Those that wait for room have not begun; those that have ended since have nothing more to say.
            silent = self._listener.silent(self._under_way, begun=False)
            ready = _ready([reference for _, reference in self._under_way.values()])
            silent = {worker: one for worker, one in silent.items() if self._under_way[worker][1] not in ready}
            for worker in silent:
                # Before anything else: one that is heard of again shall not go on beside the next.
                dismiss(worker)
        except RayError:
            return {}
        return silent

    def _leave(self, worker: str) -> FinalJob:
        job, reference = self._under_way.pop(worker)
        self._rooms.leave(reference)
        return job


def _ready(references: list[Any]) -> list[Any]:
    """Those that have ended."""
    return ray.wait(references, num_returns=len(references), timeout=0)[0] if references else []
