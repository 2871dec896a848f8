"""An AWS that moto plays, and hosts that only write down what ssh and rsync are asked to do on them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
REGION = "us-west-2"
TOKEN = "0123456789abcdef" * 4

# The command is the last argument; all arguments end in a zero byte, each call in an empty one. What rsync is asked to
# bring to the head for its autoscaler is kept.
PRETENDED = """#!/usr/bin/env bash
printf '%s\\0' {name} "$@" '' >>'{folder}/calls'
if [[ "${{*: -1}}" == *:~/ray_bootstrap_config.yaml ]]; then cp "${{*: -2:1}}" '{folder}/bootstrap.json'; fi
"""


@dataclass(frozen=True)
class PretendedAws:
    """Where it is, and what it was asked.

    Attributes:
        folder: holds the home of the user, the calls of ssh and rsync, and moto's record.
        environment: that of a user's shell.
    """

    folder: Path
    environment: dict[str, str]

    def ray(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Ray's own command line, from the checkout's folder."""
        command = [RAY, *words]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def requests(self) -> list[dict[str, Any]]:
        """What moto was asked, in order: service, action and parameters."""
        return [json.loads(line) for line in (self.folder / "moto" / "requests").read_text().splitlines()]

    def launches(self) -> list[dict[str, str]]:
        """The parameters of each RunInstances request."""
        return [request["parameters"] for request in self.requests() if request["action"] == "RunInstances"]

    def calls(self) -> list[list[str]]:
        """What ssh and rsync were asked, in order; each begins with the command's name."""
        return [call.split("\0") for call in (self.folder / "calls").read_text().split("\0\0")[:-1]]

    def commands(self) -> list[str]:
        """What was to be run on hosts, in order, without ssh's options and Ray's shell around it."""
        return [call[-1].partition(" && (")[2].removesuffix(")'") for call in self.calls() if call[0] == "ssh"]

    def bootstrap(self) -> dict[str, Any]:
        """The cluster file as the head gets it."""
        config: dict[str, Any] = json.loads((self.folder / "bootstrap.json").read_text())
        return config


def _environment(folder: Path, address: str) -> dict[str, str]:
    return {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": str(ROOT),
    }


@contextlib.contextmanager
def pretended_aws(folder: Path) -> Iterator[PretendedAws]:
    """Start moto on loopback, with a home that holds a token and commands that reach no host."""
    for name in ("moto", "bin", "tmp", "home/.ray"):
        (folder / name).mkdir(parents=True)
    (folder / "calls").touch()
    (folder / "home" / ".ray" / "auth_token").write_text(TOKEN)
    for name in ("ssh", "rsync"):
        (folder / "bin" / name).write_text(PRETENDED.format(name=name, folder=folder))
        (folder / "bin" / name).chmod(0o755)
    with (folder / "moto.log").open("w") as log:
        command = [sys.executable, Path(__file__).with_name("recording_moto.py"), folder / "moto"]
        moto = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not (folder / "moto" / "address").exists():
            assert moto.poll() is None, (folder / "moto.log").read_text()
            assert time.monotonic() < deadline, "moto's server did not start within a minute"
            time.sleep(0.1)
        yield PretendedAws(folder, _environment(folder, (folder / "moto" / "address").read_text()))
    finally:
        moto.kill()
        moto.wait()
