"""Throughput of one, two and three hosts, and what crosses the network, with trials that wait instead of computing.

Each host is a network namespace of this machine with one place for trials; the head has none. Needs root, and the
Debian packages iproute2, openssh-server and rsync; moto plays the object storage.
"""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("cluster", "runs")]

from blobs import SPACE, write_survey  # noqa: E402
from hosts import Hosts, missing  # noqa: E402
from object_storage import BUCKET, ObjectStorage  # noqa: E402
from own_machines import OwnMachines  # noqa: E402

MAX_EPOCHS = 9
DRIVER = """
import search.experiment
from waiting import WaitingTrial
search.experiment.GalaxyTrial = WaitingTrial
# The best is not trained again: that would compute.
import search.job
search.job._retrain = lambda *_: []
from search.run import main
try:
    main({words})
except SystemExit:
    pass
"""


@dataclass(frozen=True)
class Measured:
    """One search.

    Attributes:
        num_hosts: hosts with a place.
        num_trials: of the search.
        seconds: from the first epoch's end to the last's.
        epochs: that ended in that time, over all hosts.
        shards_bytes: of the survey, which each host that had none fetches.
        received: bytes that each host received, all that Ray says included.
        sent: likewise.
        requests: that the storage answered, by kind.
    """

    num_hosts: int
    num_trials: int
    seconds: float
    epochs: int
    shards_bytes: int
    received: dict[str, int]
    sent: dict[str, int]
    requests: Counter[str]


def bytes_of(hosts: Hosts, name: str) -> tuple[int, int]:
    """Bytes that a host has received and sent."""
    text = hosts.run(name, "cat /sys/class/net/eth0/statistics/rx_bytes /sys/class/net/eth0/statistics/tx_bytes").stdout
    received, sent = map(int, text.split())
    return received, sent


def requests_so_far(s3: ObjectStorage) -> Counter[str]:
    """What the storage was asked for."""
    return Counter(re.findall(r'"(GET|PUT|HEAD|POST|DELETE) ', s3.log.read_text()))


def search(machines: OwnMachines, s3: ObjectStorage, name: str, workers: list[str], num_trials: int) -> Measured:
    """Run one search and measure it."""
    hosts, folder = machines.hosts, s3.log.parents[1]
    words = [
        "--address", "auto", "--storage", f"s3://{BUCKET}/runs", "--name", name, "--space", "one.py",
        "--data", "survey",
        "--num-trials", str(num_trials), "--max-epochs", str(MAX_EPOCHS), "--scheduler", "none", "--final-seeds", "1",
    ]  # fmt: skip
    (folder / f"{name}.py").write_text(DRIVER.format(words=words))
    asked_before = requests_so_far(s3)
    before = {one: bytes_of(hosts, one) for one in workers}
    process = machines.begin(f"cd ~ && python {folder / f'{name}.py'}", folder / f"{name}.log")
    process.wait()
    after = {one: bytes_of(hosts, one) for one in workers}
    journal = hosts.run("head", f"cat ~/runs/{name}/study.journal").stdout
    ends = [float(found) for found in re.findall(r'"elapsed_s":([0-9.]+)', journal)]
    assert len(ends) == MAX_EPOCHS * num_trials, (folder / f"{name}.log").read_text()
    return Measured(
        len(workers), num_trials, max(ends) - min(ends), len(ends) - 1,
        sum(path.stat().st_size for path in (folder / "survey").iterdir()),
        {one: after[one][0] - before[one][0] for one in workers},
        {one: after[one][1] - before[one][1] for one in workers},
        requests_so_far(s3) - asked_before,
    )  # fmt: skip


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[1, 2, 3], help="numbers of hosts to compare")
    parser.add_argument("--trials-per-host", type=int, default=4)
    options = parser.parse_args()
    if reason := missing():
        sys.exit(f"not measured: {reason}")
    names = [f"h{number}" for number in range(1, max(options.hosts) + 1)]
    folder = Path(tempfile.mkdtemp())
    for name in ("hosts", "s3", "laptop", "survey", "site"):
        (folder / name).mkdir()
    shutil.copy(Path(__file__).with_name("waiting.py"), folder / "site")
    try:
        with Hosts(folder / "hosts") as hosts:
            found = measure(hosts, names, folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print_table(found)


def measure(hosts: Hosts, names: list[str], folder: Path, options: argparse.Namespace) -> list[Measured]:
    """One search for each number of hosts, one after the other on the same cluster."""
    for name in ("head", *names):
        hosts.start(name)
    with ObjectStorage(folder / "s3", hosts.gateway) as s3:
        machines = OwnMachines(hosts, tuple(names), folder / "laptop", environment=s3.environment, site=folder / "site")
        machines.up()
        (folder / "one.py").write_text(SPACE)
        write_survey(folder / "survey")
        hosts.run("head", f"cp -r {folder / 'survey'} {folder / 'one.py'} ~")
        while machines.nodes() != {"head", *names}:
            time.sleep(1)
        found = []
        # The most first; then hosts leave.
        for number in sorted(options.hosts, reverse=True):
            for name in names[number:]:
                # Not Ray alone: the cluster would start it again.
                hosts.kill(name)
            while machines.nodes() != {"head", *names[:number]}:
                time.sleep(1)
            num_trials = number * options.trials_per_host
            found.append(search(machines, s3, f"on{number}", names[:number], num_trials))
        return found


def print_table(found: list[Measured]) -> None:
    """Print what was measured; throughput relative to the fewest hosts."""
    base = min(found, key=lambda one: one.num_hosts)
    rate = base.epochs / base.seconds / base.num_hosts
    print("hosts  epochs  seconds  epochs/s  of so many times one  bytes received / sent by each host")
    for one in sorted(found, key=lambda one: one.num_hosts):
        speed = one.epochs / one.seconds
        share = speed / (rate * one.num_hosts)
        network = ", ".join(f"{one.received[name]:,} / {one.sent[name]:,}" for name in one.received)
        print(f"{one.num_hosts:>5} {one.epochs:>7} {one.seconds:>8.1f} {speed:>9.3f} {share:>21.1%}  {network}")
        asked = ", ".join(f"{num / one.num_trials:.1f} {kind}" for kind, num in sorted(one.requests.items()))
        print(f"       requests to the storage, a trial of {MAX_EPOCHS} epochs: {asked}")
    print(f"shards: {base.shards_bytes:,} bytes")


if __name__ == "__main__":
    main()
