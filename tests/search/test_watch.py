"""Workers that cannot be reached any more: who counts as silent, and that one that was replaced does nothing more."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray.exceptions import RpcError

import search.pulse
import search.watch
from search.errors import UnheardError
from search.pulse import Pulse, dismiss, read_signs, words_of
from search.watch import Listener, StartWatch, Watch, end_unready_workers

SILENCE_S, INTERVAL_S = 60.0, 5.0


class Bench:
    """A watch over workers whose signs, like the clock, are set by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.signs: dict[str, bytes] = {}
        self.head_answers = True
        self.killed: list[str] = []
        self.dismissed: list[str] = []
        self.lost: list[tuple[str, str]] = []
        self.trials: list[Any] = []
        patch.setattr(search.watch, "time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr(search.watch, "read_signs", self.read)
        patch.setattr(search.watch, "dismiss", self.dismissed.append)
        patch.setattr(search.watch.ray, "kill", lambda actor: self.killed.append(actor._actor_id.hex()))
        recorder: Any = SimpleNamespace(lose=lambda trial, words: self.lost.append((trial.trial_id, words)))
        self.watch = Watch(recorder, place_of=lambda key: f"node of {key}", silence_s=SILENCE_S)

    def read(self, workers: Iterable[str]) -> Mapping[str, bytes]:
        if not self.head_answers:
            raise RpcError("away")
        return {worker: self.signs[worker] for worker in workers if worker in self.signs}

    def begin(self, key: str) -> Any:
        """A trial that begins in a worker of the same name."""
        actor = SimpleNamespace(_actor_id=SimpleNamespace(hex=lambda: key))
        trial = Trial(key, SimpleNamespace(ray_actor=actor))
        self.trials.append(trial)
        self.watch.on_trial_start(0, [], trial)  # type: ignore[arg-type]
        return trial

    def listen(self, *, for_s: float, signs_of: tuple[str, ...] = (), every_s: float = INTERVAL_S) -> None:
        """Let time pass, in which some workers give signs."""
        until = self.now + for_s
        while self.now < until:
            self.now = min(until, self.now + every_s)
            for worker in signs_of:
                self.signs[worker] = f"{self.now}".encode()
            self.watch.on_step_end(0, self.trials)


class Trial:
    """Tune's, as far as it is read."""

    def __init__(self, trial_id: str, temporary_state: Any) -> None:
        self.trial_id, self.temporary_state = trial_id, temporary_state


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_silent_worker_is_ended_in_time_and_one_that_gives_signs_is_not(bench: Bench) -> None:
    bench.begin("a")
    bench.begin("b")
    bench.listen(for_s=600, signs_of=("a", "b"))
    bench.listen(for_s=SILENCE_S - INTERVAL_S, signs_of=("a",))
    assert bench.killed == []
    bench.listen(for_s=INTERVAL_S, signs_of=("a",))
    assert bench.killed == bench.dismissed == ["b"]
    assert bench.lost == [("b", "no sign of life from its worker on node of b for 60 s")]


def test_a_worker_that_never_gave_a_sign_is_silent_from_the_beginning(bench: Bench) -> None:
    bench.begin("a")
    bench.listen(for_s=SILENCE_S + INTERVAL_S)
    assert bench.killed == ["a"]


def test_time_in_which_nobody_listened_is_no_silence(bench: Bench) -> None:
    bench.begin("a")
    bench.listen(for_s=30, signs_of=("a",))
    bench.listen(for_s=30)
    # The driver's machine slept, or waited for room on its disk; nor did the head answer for long.
    for _ in range(2):
        bench.listen(for_s=3600, every_s=3600)
    bench.head_answers = False
    bench.listen(for_s=3600)
    bench.head_answers = True
    bench.listen(for_s=25)
    assert bench.killed == []
    bench.listen(for_s=5)
    assert bench.killed == ["a"]


def test_a_worker_without_a_trial_may_be_silent(bench: Bench) -> None:
    trial = bench.begin("a")
    bench.listen(for_s=50, signs_of=("a",))
    actor, trial.temporary_state.ray_actor = trial.temporary_state.ray_actor, None
    bench.listen(for_s=3600)
    trial.temporary_state.ray_actor = actor
    bench.listen(for_s=SILENCE_S)
    assert bench.killed == []


def test_a_task_that_waits_for_room_may_be_silent(bench: Bench) -> None:
    listener = Listener(SILENCE_S)

    def listen(for_s: float) -> list[str]:
        silent: dict[str, float] = {}
        for _ in range(round(for_s / INTERVAL_S)):
            bench.now += INTERVAL_S
            silent = dict(listener.silent(["a"], begun=False))
        return list(silent)

    assert listen(3600) == []
    bench.signs["a"] = b"1"
    assert listen(SILENCE_S) == []
    assert listen(INTERVAL_S) == ["a"]


@pytest.mark.parametrize("how", ["on_trial_recover", "on_trial_error"])
def test_a_worker_that_ray_gave_up_is_told_that_it_was_replaced(bench: Bench, how: str) -> None:
    trial = bench.begin("a")
    trial.temporary_state.ray_actor = None
    getattr(bench.watch, how)(0, [], trial)
    assert bench.dismissed == ["a"]
    assert bench.killed == []


class Starts:
    """A watch over trials that wait for their workers, with a clock that is set by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self.num_ended = 1000.0, 0
        patch.setattr(search.watch, "time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr(search.watch, "end_unready_workers", self.end)
        self.watch = StartWatch(100.0)

    def end(self) -> None:
        self.num_ended += 1

    def look(self, *statuses: str, for_s: float, every_s: float = 1.0) -> None:
        trials: list[Any] = [SimpleNamespace(trial_id=f"{n}", status=one) for n, one in enumerate(statuses)]
        until = self.now + for_s
        while self.now < until:
            self.now += every_s
            self.watch.on_step_end(0, trials)


def test_workers_that_do_not_become_ready_are_ended_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch)
    starts.look("RUNNING", "TERMINATED", "ERROR", for_s=1000)
    starts.look("RUNNING", "PENDING", for_s=90)
    starts.look("RUNNING", "RUNNING", for_s=20)
    starts.look("RUNNING", "PENDING", for_s=80)
    # The driver was held up.
    starts.look("RUNNING", "PENDING", for_s=3600, every_s=3600)
    assert starts.num_ended == 0
    starts.look("RUNNING", "PENDING", for_s=15)
    assert starts.num_ended == 1
    starts.look("RUNNING", "PENDING", for_s=90)
    assert starts.num_ended == 1
    starts.look("RUNNING", "PENDING", for_s=15)
    assert starts.num_ended == 2


@pytest.mark.parametrize(("title", "expected"), [("ray::IDLE", True), ("ray::GalaxyTrial.__init__", True),
                                                ("ray::GalaxyTrial.train", False), ("python", False)])  # fmt: skip
def test_of_the_processes_below_this_one_those_are_ended_that_make_a_worker_ready(title: str, expected: bool) -> None:
    words = ["bash", "-c", f"exec -a {title} sleep 60"]
    with subprocess.Popen(words) as process:
        deadline = time.monotonic() + 10
        while psutil.Process(process.pid).cmdline()[:1] != [title]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # As it is when it cannot take any order.
        process.send_signal(signal.SIGSTOP)
        end_unready_workers()
        time.sleep(0.1)
        assert (process.poll() == -signal.SIGKILL) is expected
        process.kill()


class Head:
    """The memory of Ray's head."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.answers = True

    def internal_kv_put(self, key: bytes, value: bytes, overwrite: bool, namespace: bytes, timeout: float) -> int:
        self._answer()
        assert overwrite
        self.values[key] = value
        return 1

    def internal_kv_multi_get(self, keys: list[bytes], namespace: bytes, timeout: float) -> dict[bytes, bytes]:
        self._answer()
        return {key: self.values[key] for key in keys if key in self.values}

    def internal_kv_exists(self, key: bytes, namespace: bytes, timeout: float) -> bool:
        self._answer()
        return key in self.values

    def _answer(self) -> None:
        if not self.answers:
            raise RpcError("Deadline Exceeded")


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Head:
    head = Head()
    monkeypatch.setattr(search.pulse, "internal_kv_get_gcs_client", lambda: head)
    return head


def changes(worker: str, *, within_s: float) -> bool:
    """Whether a worker's sign becomes another."""
    before, until = read_signs([worker]), time.monotonic() + within_s
    while time.monotonic() < until:
        if read_signs([worker]) != before:
            return True
        time.sleep(0.01)
    return False


def test_a_worker_gives_signs_while_it_works_and_none_while_it_waits(head: Head) -> None:
    pulse = Pulse("a", 0.6)
    assert not changes("a", within_s=0.3)
    with pulse.working():
        assert changes("a", within_s=10)
        assert changes("a", within_s=10)
        assert words_of(read_signs(["a"])["a"]) == ""
        pulse.tell("waiting for röom")
        changes("a", within_s=10)
        assert changes("a", within_s=10)
        assert words_of(read_signs(["a"])["a"]) == "waiting for röom"
        pulse.tell("")
        changes("a", within_s=10)
        assert changes("a", within_s=10)
        assert words_of(read_signs(["a"])["a"]) == ""
    # The end of the work may still be told.
    changes("a", within_s=0.2)
    assert not changes("a", within_s=0.3)
    # Work that is shorter than the time between two signs is one, too.
    with pulse.working():
        pass
    assert changes("a", within_s=10)
    pulse.close()


def test_a_worker_that_was_replaced_ends_before_it_writes(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    pulse = Pulse("a", 1000.0)
    pulse.confirm()
    dismiss("b")
    pulse.confirm()
    assert codes == []
    dismiss("a")
    pulse.confirm()
    assert codes == [1]
    pulse.close()


def test_a_worker_that_was_replaced_ends_also_while_it_waits(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    head.answers = False
    pulse = Pulse("a", 0.1)
    time.sleep(0.1)
    assert codes == []
    head.answers = True
    dismiss("a")
    until = time.monotonic() + 10
    while not codes:
        assert time.monotonic() < until
        time.sleep(0.01)
    pulse.close()
    assert set(codes) == {1}


def test_a_worker_that_cannot_ask_whether_it_was_replaced_waits(head: Head) -> None:
    pulse = Pulse("a", 1000.0)
    head.answers = False
    with pytest.raises(UnheardError, match=r"the cluster's head does not answer: .*Deadline Exceeded"):
        pulse.confirm()
    pulse.close()
