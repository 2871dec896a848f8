"""The driver's sign of life: what it writes, how often, and that it never ends a search."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from two_spaces import epoch, make_ledger

import search.live
from search.errors import RunError
from search.ledger import Ledger
from search.live import LiveFile, read_nodes
from search.live_file import LIVE, load_live
from search.options import Places
from search.recorder import Recorder


def ray_node(key: str, address: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    """A node as `ray.nodes()` of Ray 2.60 gives it, as far as it is read."""
    return {
        "NodeID": key,
        "Alive": alive,
        "NodeManagerAddress": address,
        "NodeManagerHostname": f"host-{address[-1]}",
        "Resources": resources,
    }


class Cluster:
    """In Ray's place: two nodes, and workers that are all on the first."""

    def __init__(self) -> None:
        self.asked = 0
        self.workers_asked: list[str] = []
        self.answers = True

    def nodes(self) -> list[dict[str, Any]]:
        self.asked += 1
        return [ray_node("x", "10.0.0.1", CPU=4.0, GPU=1.0), ray_node("y", "10.0.0.2", CPU=2.0)]

    def wait(self, refs: list[str], timeout: float) -> tuple[list[str], list[str]]:
        assert timeout == 0
        return (refs, []) if self.answers else ([], refs)

    def get(self, ref: str) -> tuple[str, int]:
        return ref, 17


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return 1.7e9 + self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster()
    for name in ("nodes", "wait", "get"):
        monkeypatch.setattr(search.live.ray, name, getattr(cluster, name))
    return cluster


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(search.live, "time", clock)
    return clock


def make(folder: Path) -> tuple[Ledger, LiveFile]:
    ledger = make_ledger(folder)
    return ledger, LiveFile(
        ledger, Recorder(ledger, folder, keep_top=1, say=print), folder, Places(2, 0.5, 3), room=lambda: 3
    )


def make_worker(cluster: Cluster, name: str, address: str = "10.0.0.1") -> Any:
    def ask() -> str:
        cluster.workers_asked.append(name)
        return address

    key = SimpleNamespace(hex=lambda: name)
    return SimpleNamespace(_actor_id=key, get_current_ip_pid=SimpleNamespace(remote=ask))


def start(ledger: Ledger, live: LiveFile, key: str, worker: Any) -> Any:
    ledger.start(key)
    trial = SimpleNamespace(trial_id=key, temporary_state=SimpleNamespace(ray_actor=worker))
    live.on_trial_start(0, [], trial)  # type: ignore[arg-type]
    return trial


def test_who_runs_where_is_written_at_most_every_five_seconds(tmp_path: Path, cluster: Cluster, clock: Clock) -> None:
    ledger, live = make(tmp_path)
    assert load_live(tmp_path) is None
    cluster.answers = False
    trial = start(ledger, live, "0", make_worker(cluster, "w"))
    live.on_step_end(0, [])
    found = load_live(tmp_path)
    assert found is not None
    assert (found.num_places, found.cpus_per_trial, found.gpus_per_trial, found.ended) == (3, 2, 0.5, False)
    assert [(node.name, node.cpus, node.gpus) for node in found.nodes] == [("host-1", 4, 1), ("host-2", 2, 0)]
    assert [(one.backbone, one.trial, one.address) for one in found.running] == [("a", 0, "")]
    cluster.answers = True
    clock.now += 2
    live.on_trial_result(0, [], trial, {})
    for _ in range(29):
        clock.now += 0.1
        live.on_step_end(0, [])
    assert load_live(tmp_path) == found
    assert cluster.asked == 1
    clock.now += 0.2
    live.on_step_end(0, [])
    later = load_live(tmp_path)
    assert later is not None
    assert later.written - found.written == pytest.approx(5.1)
    (one,) = later.running
    assert (one.address, one.since, one.told) == ("10.0.0.1", 1.7e9 + 1000, 1.7e9 + 1002)
    assert cluster.asked == 2


def test_a_worker_is_asked_once_where_it_is(tmp_path: Path, cluster: Cluster, clock: Clock) -> None:
    ledger, live = make(tmp_path)
    kept, other = make_worker(cluster, "kept"), make_worker(cluster, "other", "10.0.0.2")
    live.on_trial_complete(0, [], start(ledger, live, "0", kept))
    # The answer of a worker whose trial has ended by then is good for its next.
    start(ledger, live, "1", kept)
    live.on_step_end(0, [])
    start(ledger, live, "2", other)
    clock.now += 6
    live.on_step_end(0, [])
    live.on_trial_complete(0, [], SimpleNamespace(trial_id="1"))  # type: ignore[arg-type]
    start(ledger, live, "3", kept)
    assert cluster.workers_asked == ["kept", "other"]
    assert live.place_of("2") == "node host-2 (10.0.0.2)"
    assert live.place_of("3") == "node host-1 (10.0.0.1)"


@pytest.mark.parametrize("how", ["on_trial_complete", "on_trial_error", "on_trial_recover"])
def test_a_trial_that_left_its_worker_is_gone_even_if_the_worker_answers_late(
    tmp_path: Path, cluster: Cluster, clock: Clock, how: str
) -> None:
    ledger, live = make(tmp_path)
    first, _ = (start(ledger, live, key, make_worker(cluster, key)) for key in "01")
    getattr(live, how)(0, [], first)
    live.on_trial_result(0, [], first, {})
    live.on_step_end(0, [])
    found = load_live(tmp_path)
    assert found is not None
    assert [one.backbone for one in found.running] == ["b"]


def test_at_the_end_the_file_says_so_and_nothing_runs(tmp_path: Path, cluster: Cluster, clock: Clock) -> None:
    ledger, live = make(tmp_path)
    start(ledger, live, "0", make_worker(cluster, "w"))
    ledger.report("0", epoch(1, 0.5))
    live.close()
    found = load_live(tmp_path)
    assert found is not None
    assert found.ended
    assert found.running == ()


def test_a_full_disk_leaves_the_file_as_it_was(
    tmp_path: Path, cluster: Cluster, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, live = make(tmp_path)
    live.on_step_end(0, [])
    before = (tmp_path / LIVE).read_text()

    def full(path: Path, *_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    clock.now += 6
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        live.on_step_end(0, [])
    assert (tmp_path / LIVE).read_text() == before
    clock.now += 6
    live.on_step_end(0, [])
    assert (tmp_path / LIVE).read_text() != before


def test_a_node_that_left_and_came_again_is_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        ray_node("new", "10.0.0.2", CPU=2.0),
        ray_node("old", "10.0.0.2", alive=False),
        ray_node("gone", "10.0.0.3", alive=False),
        # As of several raylets on one machine.
        ray_node("p", "10.0.0.1", CPU=1.0),
        ray_node("q", "10.0.0.1", CPU=1.0),
    ]
    monkeypatch.setattr(search.live.ray, "nodes", lambda: nodes)
    assert [(node.address, node.alive) for node in read_nodes()] == [
        ("10.0.0.1", True),
        ("10.0.0.1", True),
        ("10.0.0.2", True),
        ("10.0.0.3", False),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "live.json: JSONDecodeError.*delete the file, a running search writes it anew"),
        ("[]", "live.json: TypeError.*delete the file"),
        (json.dumps({"schema_version": 1}), "live.json: KeyError.*delete the file"),
        (json.dumps({"schema_version": 2}), "live.json: schema version 2, expected 1: use the version of"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / LIVE).write_text(text)
    with pytest.raises(RunError, match=words):
        load_live(tmp_path)
