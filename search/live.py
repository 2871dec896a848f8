"""Keeps `live.json` current while trials run: the driver's sign of life, the nodes, and which trial is where."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune import Callback
from ray.tune.experiment import Trial

from search.ledger import Ledger
from search.live_file import LIVE, Live, Node, RunningTrial, save_live
from search.options import Places
from search.pulse import worker_name
from search.recorder import Recorder

INTERVAL_S = 5.0


def read_nodes() -> list[Node]:
    """The machines that Ray knows of; of a machine that left and came again, the living one."""
    nodes: dict[str, Node] = {}
    for one in sorted(ray.nodes(), key=lambda one: bool(one["Alive"])):
        address, resources = one["NodeManagerAddress"], one["Resources"]
        key = one["NodeID"] if one["Alive"] else address
        nodes.pop(address, None)
        nodes[key] = Node(
            name=one["NodeManagerHostname"],
            address=address,
            cpus=resources.get("CPU", 0.0),
            gpus=resources.get("GPU", 0.0),
            alive=bool(one["Alive"]),
        )
    return sorted(nodes.values(), key=lambda node: (node.name, node.address))


class LiveFile(Callback):
    """Writes `live.json` every few seconds. It comes after the recorder among Tune's callbacks.

    Args:
        ledger: the run's ledger.
        recorder: knows the trials by Tune's names.
        run_dir: the run's folder.
        places: how trials share the cluster.
        room: how many trials may run at the same time, now.
        saved: told of the file when it was written.

    Attributes:
        nodes: the machines, as of a few seconds ago.
    """

    def __init__(
        self,
        ledger: Ledger,
        recorder: Recorder,
        run_dir: Path,
        places: Places,
        *,
        room: Callable[[], int],
        saved: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._run_dir = run_dir
        self._places = places
        self._room = room
        self._saved = saved
        self._before_s = ledger.elapsed_s()
        self._running: dict[str, RunningTrial] = {}
        self._workers: dict[str, str] = {}
        self._asked: dict[str, Any] = {}
        self._addresses: dict[str, str] = {}
        self._written_at: float | None = None
        self.nodes: Sequence[Node] = ()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Take down who runs, and ask a new worker where it is; it answers before it trains."""
        entry, now = self._recorder.entry(trial), time.time()
        actor = trial.temporary_state.ray_actor
        worker = worker_name(actor)
        self._workers[trial.trial_id] = worker
        self._running[trial.trial_id] = RunningTrial(
            backbone=entry.space, trial=entry.number, address=self._addresses.get(worker, ""), since=now, told=now
        )
        if worker not in self._addresses and worker not in self._asked:
            self._asked[worker] = actor.get_current_ip_pid.remote()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Take down that a trial told of itself."""
        if trial.trial_id in self._running:
            self._running[trial.trial_id] = replace(self._running[trial.trial_id], told=time.time())

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Forget a trial whose worker died until it starts again."""
        self._forget(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Forget a trial that has ended."""
        self._forget(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Forget a trial that was given up."""
        self._forget(trial.trial_id)

    def _forget(self, key: str) -> None:
        self._running.pop(key, None)
        self._workers.pop(key, None)

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Write, if it is time; Tune calls this many times a second, results or none."""
        if self._written_at is None or time.monotonic() - self._written_at >= INTERVAL_S:
            self._written_at = time.monotonic()
            self.nodes = read_nodes()
            self._note_addresses()
            self._write(ended=False)

    def place_of(self, key: str) -> str:
        """The node of a trial that runs, by Tune's key, in words."""
        address = self._running[key].address if key in self._running else ""
        names = [node.name for node in self.nodes if node.address == address]
        return f"node {names[0]} ({address})" if names else "its node"

    def close(self) -> None:
        """Write that all trials are over."""
        self._running.clear()
        self._write(ended=True)

    def _note_addresses(self) -> None:
        for worker, asked in list(self._asked.items()):
            if ray.wait([asked], timeout=0)[0]:
                del self._asked[worker]
                # Of a worker that died meanwhile, Tune tells soon.
                with contextlib.suppress(RayError):
                    self._addresses[worker] = ray.get(asked)[0]
        for key, one in self._running.items():
            self._running[key] = replace(one, address=self._addresses.get(self._workers[key], ""))

    def _write(self, *, ended: bool) -> None:
        live = Live(
            written=time.time(),
            ended=ended,
            elapsed_s=self._ledger.elapsed_s(),
            before_s=self._before_s,
            num_places=self._room(),
            cpus_per_trial=self._places.cpus_per_trial,
            gpus_per_trial=self._places.gpus_per_trial,
            nodes=tuple(self.nodes),
            running=tuple(self._running.values()),
        )
        # A full disk must not end a search for want of a sign of life.
        with contextlib.suppress(OSError):
            save_live(self._run_dir, live)
            self._saved(self._run_dir / LIVE)

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}
