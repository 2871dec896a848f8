"""Waiting for what another process of a trial was told to do."""

from typing import Any

import ray

from search.errors import PeerDiedError

# How long a process that met a fault, or saw another's, may take to say so.
ANSWER_S = 60.0


def answer(order: Any, *, timeout_s: float | None = None) -> Any:
    """Wait until a process has done what it was told, and give what it answers.

    Args:
        order: what an actor's method gave.
        timeout_s: how long; None = for ever.

    Raises:
        PeerDiedError: the process is gone, or says nothing for so long.
        Exception: what the process met.
    """
    try:
        return ray.get(order, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        words = " ".join(str(error).split())
        raise PeerDiedError(f"a process of this trial died, or does not answer: {words:.1000}") from None
