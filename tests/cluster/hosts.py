"""Several hosts on one machine: each a network namespace with an address, processes, a home and an sshd of its own.

They share the machine's files but for their homes, `/tmp/ray` and `/dev/shm`, so one virtual environment serves all.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_NEEDED = {"ip": "iproute2", "unshare": "util-linux", "ssh": "openssh-client", "rsync": "rsync", "setsid": "util-linux"}
# What a host does first: everything it may write to and others must not see is its own.
_BOOT = """
set -e
hostname {name}
mkdir -p /tmp/ray /run/sshd
mount -t tmpfs -o size=6g tmpfs /tmp/ray
mount -t tmpfs -o size=4g tmpfs /dev/shm
mkdir -p {state}/upper {state}/work
mount -t overlay overlay -o lowerdir={home},upperdir={state}/upper,workdir={state}/work {home}
[ -e {state}/begun ] || rm -rf {home}/.ray {home}/.ssh
touch {state}/begun
exec {sshd} -D -e -f /dev/null -o PidFile=none -o PasswordAuthentication=no -o StrictModes=no -o UsePAM=no \
    -o PermitRootLogin=prohibit-password -o AuthorizedKeysFile={keys}/user.pub -h {keys}/host
"""


def missing() -> str:
    """Why there can be no hosts on this machine; empty if there can."""
    if os.geteuid() != 0:
        return "hosts of their own need root"
    absent = sorted({package for command, package in _NEEDED.items() if shutil.which(command) is None})
    absent += [] if SSHD else ["openssh-server"]
    if absent:
        return f"hosts of their own need the packages {', '.join(absent)}"
    probe = f"gsprobe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return f"no network namespaces here: {made.stderr.strip()}" if made.returncode else ""


class Hosts:
    """Hosts on a network of their own, which are gone with the block.

    Args:
        folder: where their keys, homes and logs are kept; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tag = f"gs{os.getpid() % 100000}"
        self._net = f"10.77.{os.getpid() % 250 + 1}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers: dict[str, int] = {}
        self.key = folder / "user"
        self._disks = folder / "disks"

    @property
    def gateway(self) -> str:
        """The address of the machine itself, as the hosts see it."""
        return f"{self._net}.1"

    def __enter__(self) -> "Hosts":
        self._disks.mkdir()
        _run("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(self._disks))
        for name in ("user", "host"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name))
        _run("ip", "link", "add", self._tag, "type", "bridge")
        _run("ip", "addr", "add", f"{self.gateway}/24", "dev", self._tag)
        _run("ip", "link", "set", self._tag, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._processes):
            self.kill(name)
            _run("ip", "link", "del", f"{self._tag}v{self._numbers[name]}", check=False)
            _run("ip", "netns", "del", self._namespace(name), check=False)
        _run("ip", "link", "del", self._tag, check=False)
        _run("umount", "--lazy", str(self._disks), check=False)

    def address(self, name: str) -> str:
        """A host's address, also of one that was never started."""
        return f"{self._net}.{10 + self._number(name)}"

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def start(self, name: str) -> str:
        """Start a host, unless it runs, also one that was killed; its address."""
        if name in self._processes and self._processes[name].poll() is None:
            return self.address(name)
        number = self._number(name)
        space, inner, outer = self._namespace(name), "eth0", f"{self._tag}v{number}"
        if name not in self._processes:
            _run("ip", "netns", "add", space)
            _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space)
            _run("ip", "link", "set", outer, "master", self._tag, "up")
            _run("ip", "-n", space, "addr", "add", f"{self.address(name)}/24", "dev", inner)
            for device in (inner, "lo"):
                _run("ip", "-n", space, "link", "set", device, "up")
            # Ray takes a node's address from its default route.
            _run("ip", "-n", space, "route", "add", "default", "via", self.gateway)
        state = self._disks / name
        state.mkdir(exist_ok=True)
        boot = _BOOT.format(name=name, state=state, home=Path.home(), keys=self._folder, sshd=SSHD)
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts", "bash", "-c", boot]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", space, *inside],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 60
        while self.run(name, "true", check=False).returncode:
            assert time.monotonic() < until, (self._folder / f"{name}.log").read_text()
            time.sleep(0.2)
        return self.address(name)

    def kill(self, name: str) -> None:
        """End all of a host's processes at once, as a power cut does; what is on its disk stays."""
        process = self._processes[name]
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def cut(self, name: str) -> None:
        """Unplug a host's network."""
        _run("ip", "link", "set", f"{self._tag}v{self._numbers[name]}", "down")

    def plug(self, name: str) -> None:
        """Plug it in again."""
        _run("ip", "link", "set", f"{self._tag}v{self._numbers[name]}", "up")

    def run(
        self, name: str, command: str, *, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the shell on a host."""
        done = subprocess.run([*self._ssh(name), command], capture_output=True, text=True, check=False, timeout=timeout)
        assert not check or done.returncode == 0, f"{command} on {name}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def begin(self, name: str, command: str, log: Path) -> subprocess.Popen[bytes]:
        """Begin a command on a host; what it prints goes into a file."""
        with log.open("wb") as file:
            return subprocess.Popen([*self._ssh(name), command], stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def _ssh(self, name: str) -> list[str]:
        options = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "ConnectTimeout": "5",
                   "ControlMaster": "no", "LogLevel": "ERROR"}  # fmt: skip
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        return ["ssh", *words, "-i", str(self.key), f"root@{self.address(name)}"]

    def _namespace(self, name: str) -> str:
        return f"{self._tag}{name}"


def _run(*words: str, check: bool = True) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
