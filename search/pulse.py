"""Signs of life of a cluster's workers, and word to those that were replaced; both lie in the memory of Ray's head.

So they go another way than orders and results: a connection between driver and worker that broke without a word keeps
both of them waiting, each for the other.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ray.exceptions import RayError
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from search.errors import UnheardError

# Signs that a worker gives in the time after which its silence counts.
NUM_SIGNS = 12
# How long the head may take to answer.
_ANSWER_S = 5.0
_NAMESPACE = b"galaxy-search"
_SIGN, _REPLACED = b"sign:", b"replaced:"


def worker_name(actor: Any) -> str:
    """The name of a worker, by Ray's handle of it; every worker has another one."""
    return str(actor._actor_id.hex())


def words_of(sign: bytes | None) -> str:
    """What a worker waits for, as it said with a sign; empty if it does not wait, or gave none."""
    return (sign or b"").partition(b" ")[2].decode()


def read_signs(workers: Iterable[str]) -> Mapping[str, bytes]:
    """The latest sign of each worker that gave one.

    Args:
        workers: their names.

    Raises:
        RayError: the head does not answer.
    """
    keys = {_SIGN + worker.encode(): worker for worker in workers}
    found = _head().internal_kv_multi_get(list(keys), _NAMESPACE, _ANSWER_S) if keys else {}
    return {keys[key]: sign for key, sign in found.items()}


def dismiss(worker: str) -> None:
    """Leave word for a worker that it was replaced.

    Raises:
        RayError: the head does not answer.
    """
    _head().internal_kv_put(_REPLACED + worker.encode(), b"", True, _NAMESPACE, _ANSWER_S)


def _head() -> Any:
    return internal_kv_get_gcs_client()


class Pulse:
    """The signs of life of the worker that this process is.

    It gives them while it works, and none while it waits for orders: if one of these is lost, or the answer to it, that
    is silence, too. A thread of its own gives them, however long an epoch takes.

    Args:
        worker: the name by which the driver knows it.
        silence_s: after how long the driver takes it for lost; None = never, and nothing is done here.
    """

    def __init__(self, worker: str, silence_s: float | None) -> None:
        self._worker = worker.encode()
        self._works = False
        self._words = b""
        # Who has said nothing yet may not have begun.
        self._worked = True
        self._over = threading.Event()
        self._is_heard = silence_s is not None
        self._thread = threading.Thread(target=self._beat, args=((silence_s or 0.0) / NUM_SIGNS,), daemon=True)
        if self._is_heard:
            self._thread.start()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Give signs as long as the block lasts."""
        self._works = self._worked = True
        try:
            yield
        finally:
            self._works = False

    def tell(self, words: str) -> None:
        """Say with every sign what this worker waits for; an empty text = nothing any more."""
        self._words = words.encode()

    def confirm(self) -> None:
        """Return if no other worker took this one's place; if one did, this process ends.

        Raises:
            UnheardError: that cannot be found out now.
        """
        if not self._is_heard:
            return
        try:
            replaced = _head().internal_kv_exists(_REPLACED + self._worker, _NAMESPACE, _ANSWER_S)
        except RayError as error:
            words = " ".join(str(error).split())
            raise UnheardError(f"the cluster's head does not answer: {words:.300}") from None
        if replaced:
            # It ends, though the disk of its log be full.
            with contextlib.suppress(OSError):
                print("another worker took the place of this one, which ends", file=sys.stderr, flush=True)
            os._exit(1)

    def close(self) -> None:
        """Give no more signs."""
        self._over.set()
        if self._is_heard:
            self._thread.join(timeout=_ANSWER_S)

    def _beat(self, interval_s: float) -> None:
        number = 0
        while True:
            with contextlib.suppress(RayError, UnheardError):
                # Of steps shorter than the interval, too.
                if self._works or self._worked:
                    self._worked = False
                    number += 1
                    sign = b"%d %s" % (number, self._words)
                    _head().internal_kv_put(_SIGN + self._worker, sign, True, _NAMESPACE, _ANSWER_S)
                self.confirm()
            if self._over.wait(interval_s):
                return
