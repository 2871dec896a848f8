"""A cluster on hosts of their own, brought up by `ray up` with the file that users edit for their machines."""

import os
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from hosts import Hosts

ROOT = Path(__file__).parents[2]
PROJECT = "galaxy-search"
_NODES = """
import ray
ray.init(address="auto", log_to_driver=False, logging_level=40)
print(*(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]))
"""


class OwnMachines:
    """Machines of one cluster: `head`, and workers.

    Args:
        hosts: started already, `head` among them.
        workers: names of the hosts that the cluster file lists; one that is not started yet may join later.
        folder: where the laptop's home and the cluster file are; empty.
        environment: what every node's processes see.
        site: a folder whose modules every node's Python finds.
    """

    def __init__(
        self, hosts: Hosts, workers: tuple[str, ...], folder: Path, *, environment: Mapping[str, str], site: Path
    ) -> None:
        self.hosts = hosts
        self._home = folder / "home"
        self._file = folder / "onprem.yaml"
        self._environment = environment
        self._site = site
        token = self._home / ".ray" / "auth_token"
        token.parent.mkdir(parents=True)
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self._file.write_text(yaml.safe_dump(self._cluster(workers)))

    def _cluster(self, workers: tuple[str, ...]) -> dict[str, Any]:
        """The file as a user would edit it; what it installs is on these hosts already."""
        cluster = yaml.safe_load((ROOT / "clusters" / "onprem.yaml").read_text())
        addresses = [self.hosts.address(name) for name in workers]
        cluster["cluster_name"] = f"hosts-{os.getpid()}"
        cluster["provider"] |= {"head_ip": self.hosts.address("head"), "worker_ips": addresses}
        cluster["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        environment = f"~/{PROJECT}/clusters/node_env.sh"
        cluster["setup_commands"] = [
            f"ln -sfn {shlex.quote(sys.prefix)} ~/{PROJECT}/.venv",
            f"echo {shlex.quote(self._exports())} >> {environment}",
            f"echo '. {environment}' > ~/.bash_profile",
        ]
        # The head steers; each other host has room for one trial.
        for kind, processors in (("head", 0), ("worker", 1)):
            commands = cluster[f"{kind}_start_ray_commands"]
            cluster[f"{kind}_start_ray_commands"] = [
                line.replace("ray start", f"ray start --num-cpus={processors} --object-store-memory=100000000")
                for line in commands
            ]
        return dict(cluster)

    def up(self) -> None:
        """`ray up`, as typed on a laptop that reaches the hosts by ssh."""
        done = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "up", str(self._file), "--yes", "--disable-usage-stats"],
            cwd=ROOT, env={**os.environ, "HOME": str(self._home), "RAY_AUTH_MODE": "token", "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def on(self, name: str, command: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command on a host in the environment that its shells have."""
        return self.hosts.run(name, f"bash -lc {shlex.quote(command)}", check=check)

    def begin(self, command: str, log: Path) -> "subprocess.Popen[bytes]":
        """Begin a command on the head; what it prints goes into a file."""
        return self.hosts.begin("head", f"bash -lc {shlex.quote(command)}", log)

    def nodes(self) -> set[str]:
        """Hosts whose Ray is alive, as the head knows them."""
        return set(self.on("head", f"python -c {shlex.quote(_NODES)}").stdout.split())

    def join(self, name: str) -> None:
        """Start a host that the cluster file does not know, and let it join by hand."""
        self.hosts.start(name)
        token = (self._home / ".ray" / "auth_token").read_text()
        environment = (ROOT / "clusters" / "node_env.sh").read_text() + self._exports()
        self.hosts.run(
            name,
            f"mkdir -p ~/.ray ~/{PROJECT} && (umask 077; echo {token} > ~/.ray/auth_token)"
            f" && ln -sfn {shlex.quote(sys.prefix)} ~/{PROJECT}/.venv"
            f" && ln -sfn {ROOT}/galaxy_models {ROOT}/search ~/{PROJECT}"
            f" && echo {shlex.quote(environment)} > ~/.bash_profile",
        )
        self.on(name, f"ray start --address={self.hosts.address('head')}:6379 --num-cpus=1")

    def _exports(self) -> str:
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self._environment.items()]
        return "\n".join([*exports, f'export PYTHONPATH="$HOME/{PROJECT}:{self._site}"'])
