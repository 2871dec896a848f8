"""The Ray that a search runs on."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator

import psutil

from search.errors import SearchFault
from search.signals import leave_at_once

# Read by Ray and Tune when they start. Tune's own loggers, its periodic snapshots and its Ctrl-C handler are off: the
# study is the record, the TensorBoard files are ours, and a signal must also end in a report.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Workers stay in the user's folder, where relative names of weight files are right.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}
# Galaxies are mapped from files, so the object store carries next to nothing.
_OBJECT_STORE_BYTES = 128 * 2**20
# Without either of these Tune waits for ever.
_VITAL = ("raylet", "gcs_server")
_WATCH_INTERVAL_S = 1.0
_CONFIRM_S = 3.0


@contextlib.contextmanager
def local_ray(remedy: str) -> Iterator[tuple[int, int]]:
    """Start a Ray on this machine and end it with the block.

    Should Ray itself die, this process ends with code 1 and one message: all that is recorded is on the disk.

    Args:
        remedy: what to do then.

    Yields:
        Its processors and its GPUs.
    """
    os.environ.update(_SETTINGS)
    import ray

    over = threading.Event()
    threading.Thread(target=_watch, args=(over, remedy), daemon=True).start()
    logging.getLogger("ray").setLevel(logging.ERROR)
    # What Tune logs as errors are trials that failed, which are told in our own words.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        ray.init(
            # Whatever else runs here or is named in the environment.
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    except Exception as error:  # all that Ray raises when it comes up too slowly
        over.set()
        words = " ".join(str(error).split())
        raise SearchFault(
            f"Ray did not start ({words:.200}), expected it to: {remedy} when there is less to do"
        ) from None
    try:
        resources = ray.cluster_resources()
        yield int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    finally:
        over.set()
        ray.shutdown()


def confirm_ray() -> None:
    """Return once Ray has outlived a worker for a while; else not at all, for the watch then ends this process.

    Where Ray itself dies its workers die with it, one of them possibly first: nothing follows from their deaths then.
    """
    until = time.monotonic() + _CONFIRM_S
    while time.monotonic() < until or not _ray_lives():
        time.sleep(0.1)


def _ray_lives() -> bool:
    names = {child.name() for child in psutil.Process().children() if _is_vital(child) and _lives(child)}
    return names == set(_VITAL)


def _watch(over: threading.Event, remedy: str) -> None:
    """End this process when a part of Ray that it started has died, also while Ray starts."""
    vital: dict[int, psutil.Process] = {}
    while not over.wait(_WATCH_INTERVAL_S):
        vital |= {child.pid: child for child in psutil.Process().children() if _is_vital(child)}
        dead = [child.pid for child in vital.values() if not _lives(child)]
        if dead and not over.is_set():
            print(f"error: Ray's process {dead[0]} died, expected it to outlive the search: {remedy}", file=sys.stderr)
            leave_at_once(1)


def _is_vital(process: psutil.Process) -> bool:
    try:
        return process.name() in _VITAL
    except psutil.NoSuchProcess:
        return False


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
