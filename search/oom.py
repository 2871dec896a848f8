"""How often the kernel has killed for want of memory, as the kernel counts it."""

import functools
from collections.abc import Sequence
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_COUNT = "oom_kill"


def count_oom_kills(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Processes that the kernel has killed for want of memory: in this process's memory group, or on the machine.

    Ray's workers are in the group of the driver that started Ray. Where nothing is counted, as on other systems than
    Linux, this is always 0.

    Args:
        proc: where the kernel tells of processes.
        cgroups: where control groups lie, of the first version or of the second.
    """
    for path in (*_group_files(proc, cgroups), proc / "vmstat"):
        try:
            lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        except OSError:
            continue
        counts = [int(words[1]) for words in lines if words[:1] == [_COUNT] and len(words) == 2]
        if counts:
            return counts[0]
    return 0


@functools.cache
def _group_files(proc: Path, cgroups: Path) -> Sequence[Path]:
    """Where the counter of this process's group may be; in a container the group is the root of what is seen.

    Looked up once, as the counter is read at each result, and a search stays in the group in which it was started.
    """
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    groups = {controllers: group.lstrip("/") for _, controllers, group in (line.split(":", 2) for line in lines)}
    found: list[Path] = []
    if "memory" in groups:
        found = [cgroups / "memory" / one / "memory.oom_control" for one in (groups["memory"], "")]
    elif "" in groups:
        found = [cgroups / one / "memory.events" for one in (groups[""], "")]
    return found
