"""The Ray that a search runs on: one of its own on this machine, or a cluster that is running."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

import psutil

from galaxy_models.cli import EndedBySignal, let_go_of_dead_output
from search.errors import RunError, SearchFault
from search.nodes import node_sizes
from search.signals import leave_at_once

# Read by Ray and Tune when they start. Tune's own loggers, its periodic snapshots and its Ctrl-C handler are off: the
# study is the record, the TensorBoard files are ours, and a signal must also end in a report.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Else Ray's start waits for its first workers, and if one of them dies, for ever.
    "RAY_prestart_worker_first_driver": "0",
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
_HEAD_INTERVAL_S = 5.0
_HEAD_PATIENCE_S = 60.0


@contextlib.contextmanager
def running_ray(address: str | None, remedy: str) -> Iterator[list[tuple[int, int]]]:
    """Start a Ray, or join the one at an address, and leave it with the block, which SIGTERM ends with code 143.

    Args:
        address: `auto` or a cluster's `host:port`; None = a Ray of its own.
        remedy: what to do should it die.

    Yields:
        Processors and GPUs of each machine.
    """
    started = local_ray(remedy) if address is None else joined_ray(address, remedy)
    with ended_by_signals(), _heard_ctrl_c() as heard, started as sizes:
        if heard:
            raise KeyboardInterrupt
        yield sizes


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and the end of a terminal end the block as Ctrl-C does, also while Ray starts or ends in it.

    The code is 143 or 129. What `nohup` ignores stays ignored.
    """

    def leave(number: int, _: object) -> NoReturn:
        if number == signal.SIGHUP:
            # It is told twice, by the shell and when the shell ends: the second must not break off an end in order.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Else what is told on the way out to a terminal that is gone fails, and its error takes this one's place.
        let_go_of_dead_output()
        raise EndedBySignal(128 + number)

    heard = [signal.SIGTERM] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGTERM, signal.SIGHUP]
    previous = {one: signal.signal(one, leave) for one in heard}
    try:
        yield
    except SystemExit as error:
        # Ray puts a handler of its own in place of ours, which exits with the signal's bare number.
        if error.code == signal.SIGTERM:
            raise EndedBySignal(128 + signal.SIGTERM) from None
        raise
    finally:
        for one, handler in previous.items():
            if signal.getsignal(one) != signal.SIG_IGN:
                signal.signal(one, handler)


@contextlib.contextmanager
def _heard_ctrl_c() -> Iterator[list[int]]:
    """Note each Ctrl-C, beside what it does as ever: Python passes over its exception where Ray happens to clean up."""
    heard: list[int] = []

    def note(number: int, _: object) -> NoReturn:
        heard.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def joined_ray(address: str, remedy: str) -> Iterator[list[tuple[int, int]]]:
    """Join a cluster and leave it with the block; see `running_ray`.

    Raises:
        RunError: there is none at the address, it is of another version, or it refuses this user's token.
    """
    os.environ.update(_SETTINGS)
    import ray

    _be_quiet()
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}},
        )
    except Exception as error:  # Ray raises what it likes, from ConnectionError to RuntimeError
        words = " ".join(str(error).split())
        raise RunError(
            f"--address {address}: {words:.400}, expected a running cluster of this version, with the token in "
            "~/.ray/auth_token: see `ray status`"
        ) from None
    over = threading.Event()
    threading.Thread(target=_watch_head, args=(over, remedy), daemon=True).start()
    try:
        yield node_sizes()
    finally:
        over.set()
        ray.shutdown()


@contextlib.contextmanager
def local_ray(remedy: str) -> Iterator[list[tuple[int, int]]]:
    """Start a Ray on this machine and end it with the block.

    Should Ray itself die, this process ends with code 1 and one message: all that is recorded is on the disk.

    Args:
        remedy: what to do then.

    Yields:
        Its processors and its GPUs, of the one machine.
    """
    os.environ.update(_SETTINGS)
    import ray

    over = threading.Event()
    threading.Thread(target=_watch, args=(over, remedy), daemon=True).start()
    _be_quiet()
    try:
        with _hangup_kept_off():
            ray.init(
                # Whatever else runs here or is named in the environment.
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE_BYTES,
            )
    except BaseException as error:
        # Ray's processes end with this one after a signal, too, which the watch must not take for their death.
        over.set()
        if not isinstance(error, Exception):
            raise
        # All that Ray raises when it comes up too slowly.
        words = " ".join(str(error).split())
        raise SearchFault(
            f"Ray did not start ({words:.200}), expected it to: {remedy} when there is less to do"
        ) from None
    try:
        yield node_sizes()
    finally:
        over.set()
        ray.shutdown()


@contextlib.contextmanager
def _hangup_kept_off() -> Iterator[None]:
    """Start processes that outlive their terminal, as without them this one cannot end in order.

    Ray itself keeps Ctrl-C off them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_quiet() -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    # What Tune logs as errors are trials that failed, which are told in our own words.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


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
            leave_at_once(1, f"error: Ray's process {dead[0]} died, expected it to outlive the search: {remedy}")


def _watch_head(over: threading.Event, remedy: str) -> None:
    """End this process when the cluster's head has not answered for a while."""
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    answered = time.monotonic()
    while not over.wait(_HEAD_INTERVAL_S):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_HEAD_INTERVAL_S).close()
            answered = time.monotonic()
        except OSError:
            silent_s = time.monotonic() - answered
            if silent_s > _HEAD_PATIENCE_S and not over.is_set():
                leave_at_once(1, f"error: the cluster's head {host} has not answered for {silent_s:.0f} s: {remedy}")


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
