"""Loads images in worker processes and hands them on in order, holding few of them at a time."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait

from galaxy_models.data.interruption import signals_held, signals_kept_off
from galaxy_models.data.readers.base import ImageError, ImageSource, LoadedImage
from galaxy_models.errors import MachineError

# A chunk is what one message carries: large enough to cost little, small enough to hold several of them.
_CHUNK_IMAGES = 32
_CHUNK_BYTES = 4 * 2**20
_CHUNKS_AHEAD = 3

Outcome = LoadedImage | ImageError


def load_images(
    sources: Sequence[ImageSource], *, px: int, crop: float, num_workers: int
) -> Generator[tuple[int, Outcome], None, None]:
    """Load images, in the order of `sources` however many workers there are.

    Args:
        sources: where the images come from.
        px: side of the loaded images, in pixels.
        crop: share of the shorter side to keep.
        num_workers: processes; with 1, images are loaded in this process.

    Yields:
        The source's index, and its image or why there is none.

    Raises:
        MachineError: a worker process died.
    """
    if num_workers == 1:
        for index, source in enumerate(sources):
            yield index, _load(source, px, crop)
        return
    size = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // (px * px * 3)))
    chunks = [sources[start : start + size] for start in range(0, len(sources), size)]
    index = 0
    for outcomes in _in_order(chunks, px, crop, min(num_workers, len(chunks))):
        for outcome in outcomes:
            yield index, outcome
            index += 1


def _in_order(
    chunks: Sequence[Sequence[ImageSource]], px: int, crop: float, num_workers: int
) -> Iterator[list[Outcome]]:
    # Forked from a clean server: this process has threads by now, which a plain fork would break.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sorted({name for source in chunks[0] for name in type(source).preload}))
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker)
    waiting: deque[Future[list[Outcome]]] = deque()
    try:
        _start_server()
        for chunk in chunks:
            # A signal while a worker is being started would leave that worker behind.
            with signals_held():
                waiting.append(pool.submit(_load_chunk, chunk, px, crop))
            if len(waiting) > num_workers + _CHUNKS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise MachineError(
            "a process that loads images died, perhaps for want of memory: run again with fewer --workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_server() -> None:
    # First, since its start lets through in this thread the signals that are kept off.
    resource_tracker.ensure_running()
    with signals_held(), signals_kept_off():
        forkserver.ensure_running()


def _start_worker() -> None:
    # To end a single worker from outside stays possible.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # One thread each: the processes are what fills the cores.
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _load_chunk(sources: Sequence[ImageSource], px: int, crop: float) -> list[Outcome]:
    return [_load(source, px, crop) for source in sources]


def _load(source: ImageSource, px: int, crop: float) -> Outcome:
    try:
        return source.load(px=px, crop=crop)
    except ImageError as error:
        return error
