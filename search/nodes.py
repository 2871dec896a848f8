"""The machines of a cluster: whether each has what a trial needs, found out before the first one starts."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galaxy_models.cli import EndedBySignal
from galaxy_models.data.manifest import Manifest
from galaxy_models.errors import GalaxyError
from search.errors import NoMachineError, RunError
from search.options import Places, SearchOptions, plan_cluster
from search.run_dir import RECORD, package_versions

_ANSWER_S = 120.0
# How long machines may take that `ray up` is still preparing when a search begins.
_JOIN_S = 180.0
# Requests to object stores are signed with the time, and refused when it is far off.
_MAX_CLOCK_S = 60.0
_CODE = "code of this project"
_ROOMS = ("galaxy_models", "search")


@dataclass(frozen=True)
class Needs:
    """What every machine must have.

    Attributes:
        run_dir: a folder that all machines must see; empty where a storage takes its place.
        shards: a folder of shards that all machines must see, likewise.
        digest: of the shards' manifest.
        weights_dir: a folder of initial weights; empty without one.
    """

    run_dir: str
    shards: str
    digest: str
    weights_dir: str


@dataclass(frozen=True)
class Found:
    """What one machine answered.

    Attributes:
        host: its name.
        software: versions of packages, and a digest of this project's code.
        time_s: its clock, in seconds since 1970.
        lacks: folders that were asked for and are not there, each with the option that names it.
    """

    host: str
    software: dict[str, str]
    time_s: float
    lacks: tuple[tuple[str, str], ...]


def this_software() -> dict[str, str]:
    """Versions of what decides a trial's numbers on this machine, and one digest of this project's code."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(path for room in _ROOMS for path in (root / room).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return {**package_versions(), _CODE: digest.hexdigest()[:12]}


def check_software(expected: Mapping[str, str], found: Mapping[str, str], host: str) -> None:
    """Check that a machine runs what the driver runs.

    Raises:
        RunError: it does not; both are named.
    """
    others = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
    if others:
        words = ", ".join(
            f"{name} {found.get(name, 'absent')} (driver: {expected.get(name, 'absent')})" for name in others
        )
        raise RunError(f"node {host}: {words}, expected the driver's: install the same on every node")


def check_run_dir(run_dir: Path | None, host: str) -> None:
    """Check that a machine sees the run's folder, which it would else make for itself alone.

    Args:
        run_dir: the folder; None where a storage takes its place.
        host: the machine's name.

    Raises:
        RunError: it does not.
    """
    if run_dir is not None and not (run_dir / RECORD).is_file():
        raise RunError(_unseen(host, str(run_dir), "--runs-dir"))


def _unseen(host: str, path: str, option: str) -> str:
    storage = "" if option == "--weights-dir" else ", or keep it in a storage, with --storage"
    return f"node {host}: does not see {path}, expected a folder that all nodes share: name one by {option}{storage}"


def check_nodes(needs: Needs) -> list[str]:
    """Ask every machine of the running cluster; all answer at the same time.

    Returns:
        Warnings, a line each.

    Raises:
        RunError: one lacks something, runs other software, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    start_s = time.time()
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    remote = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {
        remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False)).remote(needs): key
        for key in nodes
    }
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S)
    # One that left meanwhile, as spot machines do, lacks nothing.
    here = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    for reference in (one for one in silent if asked[one] in here):
        raise RunError(
            f"node {nodes[asked[reference]]['NodeManagerAddress']}: no answer within {_ANSWER_S:.0f} s, expected one: "
            "end the node, or see its logs"
        )
    found = []
    for reference in done:
        try:
            found.append(ray.get(reference))
        except ray.exceptions.RayError as error:
            if asked[reference] not in here:
                continue
            words = " ".join(str(error).split())
            raise RunError(
                f"node {nodes[asked[reference]]['NodeManagerAddress']}: {words:.300}, expected it to run a task: "
                "install the same Python and the same packages on every node"
            ) from None
    return judge(found, expected=this_software(), between_s=(start_s, time.time()))


def look(needs: Needs) -> Found:
    """What this machine has."""
    import platform

    lacks = []
    if needs.run_dir and not (Path(needs.run_dir) / RECORD).is_file():
        lacks.append((needs.run_dir, "--runs-dir"))
    if needs.shards and not _has_shards(needs):
        lacks.append((needs.shards, "--data"))
    if needs.weights_dir and not Path(needs.weights_dir).is_dir():
        lacks.append((needs.weights_dir, "--weights-dir"))
    return Found(platform.node(), this_software(), time.time(), tuple(lacks))


def judge(found: Sequence[Found], *, expected: Mapping[str, str], between_s: tuple[float, float]) -> list[str]:
    """Judge what the machines answered; see `check_nodes`.

    Args:
        found: their answers.
        expected: the driver's software.
        between_s: the driver's clock before and after they answered.
    """
    warnings = []
    for one in sorted(found, key=lambda one: one.host):
        check_software(expected, one.software, one.host)
        for path, option in one.lacks:
            raise RunError(_unseen(one.host, path, option))
        off_s = max(between_s[0] - one.time_s, one.time_s - between_s[1])
        if off_s > _MAX_CLOCK_S:
            warnings.append(
                f"node {one.host}: its clock is {off_s:.0f} s off; the search does not go by it, but object stores "
                "refuse requests signed with a wrong time"
            )
    return warnings


def _has_shards(needs: Needs) -> bool:
    try:
        return Manifest.load(needs.shards).digest == needs.digest
    except (GalaxyError, OSError):
        return False


def places_on_cluster(options: SearchOptions, say: Callable[[str], None], received: Sequence[int]) -> Places:
    """Divide the machines of the running cluster among trials; wait for the first to join, if there is none.

    Args:
        options: what the user asked for.
        say: prints a line for the user.
        received: signals that came; the first ends the waiting.

    Raises:
        RunError: see `plan_cluster`.
        EndedBySignal: a signal came.
    """
    until = time.monotonic() + _JOIN_S
    told = False
    while True:
        try:
            return plan_cluster(options, node_sizes())
        except NoMachineError:
            if time.monotonic() > until:
                raise
        if not told:
            say(f"the cluster has no machine for a trial yet: waiting up to {_JOIN_S:.0f} s for one to join")
            told = True
        if received:
            raise EndedBySignal(128 + received[0])
        time.sleep(1.0)


def node_sizes() -> list[tuple[int, int]]:
    """Processors and GPUs of each machine that is alive now."""
    import ray

    def size(node: dict[str, Any]) -> tuple[int, int]:
        resources = node["Resources"]
        return int(resources.get("CPU", 0)), int(resources.get("GPU", 0))

    return [size(node) for node in ray.nodes() if node["Alive"]]
