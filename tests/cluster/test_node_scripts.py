"""What prepares a node and what ends it, run with commands that pretend to be the system's."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CLUSTERS = Path(__file__).parents[2] / "clusters"
# Each writes down how it was called; a file beside it says what it prints, another how it ends.
PRETENDED = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$NODE/calls"
cat "$NODE/says-$(basename "$0")" 2>/dev/null
exit "$(cat "$NODE/ends-$(basename "$0")" 2>/dev/null || echo 0)"
"""
NAMES = ("sudo", "mountpoint", "lsblk", "python3", "pgrep", "hostname")


@dataclass(frozen=True)
class Node:
    """A machine of which only the home is real."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "galaxy-search" / "node-7"

    def says(self, command: str, text: str) -> None:
        (self.folder / f"says-{command}").write_text(text)

    def ends(self, command: str, code: int) -> None:
        (self.folder / f"ends-{command}").write_text(str(code))

    def run(
        self, script: str, *words: str, timeout_s: float = 20, head: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        environment = {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(self.home)}
        environment |= {"NODE": str(self.folder), "RAY_HEAD_IP": head}
        path = self.home / "galaxy-search" / "clusters" / script
        return subprocess.run(
            ["bash", path, *words], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A fresh node without any local disk, after the files were brought to it."""
    node = Node(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in NAMES:
        (tmp_path / "bin" / name).write_text(PRETENDED)
        (tmp_path / "bin" / name).chmod(0o755)
    project = node.home / "galaxy-search"
    project.mkdir(parents=True)
    (project / "clusters").symlink_to(CLUSTERS)
    # The environment is there, and its Python only writes down what it is asked.
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "bin" / "activate").touch()
    (project / ".venv" / "bin" / "python").symlink_to(tmp_path / "bin" / "python3")
    (node.home / ".ray").mkdir()
    (node.home / ".ray" / "auth_token").write_text("abc")
    node.says("hostname", "node-7\n")
    node.ends("mountpoint", 1)
    return node


def has_empty_disk(node: Node) -> None:
    """Let there be a local disk; asked for what is on it, `lsblk` says nothing."""
    answer = '[[ $* == *MODEL* ]] && echo "/dev/nvme1n1 Amazon EC2 NVMe Instance Storage"; exit 0'
    (node.folder / "bin" / "lsblk").write_text(f"#!/usr/bin/env bash\n{answer}\n")


def test_processes_of_a_node_see_what_its_file_says(node: Node) -> None:
    script = f"export OMP_NUM_THREADS=1 RAY_enable_autoscaler_v2=1; . {CLUSTERS / 'node_env.sh'}; env"
    environment = {
        "PATH": f"{node.folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(node.home),
        "NODE": str(node.folder),
    }
    shown = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True).stdout
    seen = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    assert seen["PATH"].startswith(f"{node.home}/galaxy-search/.venv/bin:")
    assert seen["GALAXY_SEARCH_CACHE"] == str(node.cache)
    assert (seen["RAY_AUTH_MODE"], seen["RAY_USAGE_STATS_ENABLED"]) == ("token", "0")
    assert seen["RAY_enable_autoscaler_v2"] == "0"


def test_project_is_installed_from_the_checkout(node: Node) -> None:
    done = node.run("set_up_node.sh", "aws")
    assert done.returncode == 0, done.stderr
    [install] = [call for call in node.calls() if " pip install " in call]
    assert install.endswith(f"--editable {node.home}/galaxy-search[aws]")


def test_workers_take_the_versions_of_the_head(node: Node) -> None:
    node.says("python", "torch==2.9.1\n")
    assert node.run("set_up_node.sh", "aws").returncode == 0
    versions = node.home / "galaxy-search" / "versions.txt"
    assert versions.read_text() == "torch==2.9.1\n"
    assert not [call for call in node.calls() if "--constraint" in call]

    node.says("python", "torch==2.9.2\n")
    assert node.run("set_up_node.sh", "aws", head="192.0.2.1").returncode == 0
    assert [call for call in node.calls() if f"--constraint {versions} --editable" in call]
    assert versions.read_text() == "torch==2.9.1\n"


def test_token_is_the_users_alone(node: Node) -> None:
    (node.home / ".ray" / "auth_token").chmod(0o644)
    node.run("set_up_node.sh", "aws")
    assert (node.home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert (node.home / ".ray").stat().st_mode & 0o777 == 0o700


def test_missing_token_is_told(node: Node) -> None:
    (node.home / ".ray" / "auth_token").unlink()
    done = node.run("set_up_node.sh", "aws")
    assert done.returncode == 2
    assert done.stderr.startswith("error: node-7: no token in ~/.ray/auth_token")


def test_shells_know_the_project_once_however_often_it_is_set_up(node: Node) -> None:
    (node.home / ".bashrc").write_text("# mine\n")
    for _ in range(2):
        assert node.run("set_up_node.sh", "aws").returncode == 0
    assert (node.home / ".bashrc").read_text() == f"# mine\n. {node.home}/galaxy-search/clusters/node_env.sh\n"


def test_shards_stay_in_the_home_without_a_local_disk(node: Node) -> None:
    node.says("lsblk", "/dev/nvme0n1 Amazon Elastic Block Store\n")
    assert node.run("set_up_node.sh", "aws").returncode == 0
    assert node.cache.is_dir()
    assert not node.cache.is_symlink()
    assert not [call for call in node.calls() if call.startswith("sudo")]


def test_disk_that_the_image_mounted_is_used(node: Node) -> None:
    node.ends("mountpoint", 0)
    assert node.run("set_up_node.sh", "aws").returncode == 0
    assert str(node.cache.readlink()) == "/opt/dlami/nvme/galaxy-search"
    assert not [call for call in node.calls() if "mkfs" in call]


def test_empty_local_disk_is_formatted_and_mounted(node: Node) -> None:
    has_empty_disk(node)
    done = node.run("set_up_node.sh", "aws")
    assert done.returncode == 0, done.stderr
    assert [call for call in node.calls() if call.startswith("sudo")] == [
        "sudo mkfs.ext4 -q -E nodiscard /dev/nvme1n1",
        "sudo mkdir -p /mnt/nvme",
        "sudo mount -o noatime /dev/nvme1n1 /mnt/nvme",
        f"sudo install --directory --owner {os.environ.get('USER', 'root')} --mode 700 /mnt/nvme/galaxy-search",
    ]
    assert str(node.cache.readlink()) == "/mnt/nvme/galaxy-search"


def test_local_disk_with_something_on_it_is_left_alone(node: Node) -> None:
    node.says("lsblk", "/dev/nvme1n1 Amazon EC2 NVMe Instance Storage xfs\n")
    assert node.run("set_up_node.sh", "aws").returncode == 0
    assert not [call for call in node.calls() if "mkfs" in call]
    assert not node.cache.is_symlink()


def test_failing_disk_fails_the_set_up(node: Node) -> None:
    has_empty_disk(node)
    node.ends("sudo", 1)
    assert node.run("set_up_node.sh", "aws").returncode == 1
    assert not node.cache.is_symlink()


def test_old_python_is_refused(node: Node) -> None:
    node.ends("python3", 1)
    node.says("python3", "Python 3.9.2\n")
    done = node.run("set_up_node.sh", "aws")
    assert done.returncode == 2
    assert "Python 3.9.2, expected 3.11 or newer" in " ".join(done.stderr.split())


def test_machine_without_ray_ends(node: Node) -> None:
    node.ends("pgrep", 1)
    done = node.run("end_left_node.sh", "0", "0.01")
    assert done.returncode == 0, done.stderr
    assert node.calls()[-1] == "sudo shutdown --poweroff now"


def test_machine_with_ray_stays(node: Node) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        node.run("end_left_node.sh", "1", "0.1", timeout_s=3)
    assert "pgrep --exact raylet" in node.calls()
    assert not [call for call in node.calls() if "shutdown" in call]
