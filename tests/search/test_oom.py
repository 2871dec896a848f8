"""What the kernel counts of processes that it killed for want of memory, as its files say it."""

from pathlib import Path

import pytest

from search.oom import count_oom_kills

EVENTS = "low 0\nhigh 0\nmax 41\noom 7\noom_kill 3\noom_group_kill 9\n"
CONTROL = "oom_kill_disable 1\nunder_oom 0\noom_kill 4\n"
VMSTAT = "nr_free_pages 17\noom_kill 5\n"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/user/run.scope\n", {"user/run.scope/memory.events": EVENTS}, 3),
        # A container sees its own group as the root.
        ("0::/../outside\n", {"memory.events": EVENTS}, 3),
        ("4:memory:/jobs/1\n1:cpu,cpuacct:/\n0::/\n", {"memory/jobs/1/memory.oom_control": CONTROL}, 4),
        ("4:memory:/jobs/1\n0::/\n", {"memory/memory.oom_control": CONTROL}, 4),
        # The root group of the second version counts nothing; kernels before 4.13 do not count either.
        ("0::/\n", {}, 5),
        ("4:memory:/jobs/1\n", {"memory/jobs/1/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, 5),
    ],
)
def test_kills_are_those_of_the_own_group_or_else_of_the_machine(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(groups)
    (proc / "vmstat").write_text(VMSTAT)
    for name, text in files.items():
        (cgroups / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroups / name).write_text(text)
    assert count_oom_kills(proc, cgroups) == expected


def test_the_group_is_looked_up_once_and_its_counter_each_time(tmp_path: Path) -> None:
    group, counter = tmp_path / "proc" / "self" / "cgroup", tmp_path / "cgroup" / "memory.events"
    for path, text in ((group, "0::/\n"), (counter, EVENTS)):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    assert count_oom_kills(tmp_path / "proc", tmp_path / "cgroup") == 3
    group.unlink()
    counter.write_text(EVENTS.replace("oom_kill 3", "oom_kill 8"))
    assert count_oom_kills(tmp_path / "proc", tmp_path / "cgroup") == 8


def test_a_system_that_counts_nothing_has_no_kills(tmp_path: Path) -> None:
    assert count_oom_kills(tmp_path / "proc", tmp_path / "cgroup") == 0
