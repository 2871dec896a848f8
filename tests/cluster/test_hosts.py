"""A search over several hosts that are killed, unplugged, drained and joined: one story, in the order of the tests."""

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blobs import SLOW_EPOCHS, SPACE, write_survey
from hosts import Hosts, missing
from object_storage import BUCKET, ObjectStorage
from optuna.trial import FrozenTrial, TrialState
from own_machines import OwnMachines

from search.remote_run import fetch_run
from search.storage import Storage
from search.study import load_studies
from search.watch import SILENCE_S

if reason := missing():
    pytest.skip(reason, allow_module_level=True)
pytest.importorskip("moto", reason="moto is not installed: pip install 'galaxy-search[test]'")

# On a busy machine Ray and torch take their time to start.
pytestmark = pytest.mark.timeout(900)

ROOT = f"s3://{BUCKET}/runs"
NUM_TRIALS, MAX_EPOCHS = 60, 30
SEARCH = (
    f"cd ~ && python -m search.run --address auto --storage {ROOT} --name story --space one.py --data survey"
    f" --num-trials {NUM_TRIALS} --max-epochs {MAX_EPOCHS} --scheduler none --final-seeds 1"
)


class Story:
    """The search, as it is seen from outside."""

    def __init__(self, machines: OwnMachines, folder: Path) -> None:
        self.machines = machines
        self.hosts = machines.hosts
        self.folder = folder
        self.log = folder / "search.log"
        self.process = machines.begin(SEARCH, self.log)

    def live(self) -> dict[str, Any]:
        """Trials that run, by the host they are on."""
        text = self.hosts.run("head", "cat ~/runs/story/live.json", check=False).stdout
        names = {self.hosts.address(name): name for name in ("head", "a", "b", "c")}
        running = json.loads(text)["running"] if text else []
        return {names[one["address"]]: one["trial"] for one in running if one["address"]}

    def trials(self) -> list[FrozenTrial]:
        """All trials, as the storage has them."""
        folder = self.folder / "copy" / "story"
        fetch_run(Storage(f"{ROOT}/story"), folder, wanted=lambda name: False)
        return load_studies(folder)["one"].get_trials() if (folder / "study.journal").is_file() else []

    def epochs(self, trial: int) -> int:
        """Epochs of a trial that the storage knows of."""
        trials = self.trials()
        return len(trials[trial].intermediate_values) if trial < len(trials) else 0

    def begun(self, host: str, *, epochs: int = 1) -> tuple[int, int] | None:
        """The trial on a host and its epochs, if it has so many, and ten or more to come."""
        trial = self.live().get(host)
        known = self.epochs(trial) if trial is not None else 0
        return (trial, known) if trial is not None and epochs <= known < MAX_EPOCHS - 10 else None

    def wait(self, until: Callable[[], Any], *, seconds: float = 240) -> Any:
        """Wait for something to become true, as long as the search runs."""
        deadline = time.monotonic() + seconds
        while not (found := until()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)
        return found

    def went_on(self) -> dict[int, int]:
        """After which epoch trials whose worker died or was lost went on, the last time."""
        words = r"trial (\d+): (?:its worker died|no sign of life)[^;]*; it goes on after epoch (\d+)"
        found = re.findall(words, self.log.read_text())
        return {int(trial): int(epoch) for trial, epoch in found}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    for name in ("hosts", "s3", "laptop", "survey", "site"):
        (folder / name).mkdir()
    with Hosts(folder / "hosts") as hosts, pytest.MonkeyPatch.context() as patch:
        for name in ("head", "a", "b"):
            hosts.start(name)
        with ObjectStorage(folder / "s3", hosts.gateway) as s3:
            for name, value in s3.environment.items():
                patch.setenv(name, value)
            machines = OwnMachines(
                hosts, ("a", "b"), folder / "laptop", environment=s3.environment, site=folder / "site"
            )
            machines.up()
            survey = write_survey(folder / "survey")
            (folder / "one.py").write_text(SPACE)
            (folder / "site" / "sitecustomize.py").write_text(SLOW_EPOCHS)
            hosts.run("head", f"cp -r {survey} {folder / 'one.py'} ~")
            deadline = time.monotonic() + 240
            while machines.nodes() != {"head", "a", "b"}:
                assert time.monotonic() < deadline
                time.sleep(1)
            story = Story(machines, folder)
            yield story
            story.process.kill()
            story.process.wait()


def test_ray_up_brings_three_hosts_up_and_a_search_runs_over_them(story: Story) -> None:
    assert story.wait(lambda: set(story.live()) == {"a", "b"})
    # The shards came to each node once, by way of the storage; the head shares no home with the others.
    for name in ("a", "b"):
        command = "ls ~/.cache/galaxy-search/*/shards/*/manifest.json"
        found = story.wait(lambda: story.hosts.run(name, command, check=False).stdout)  # noqa: B023 (waited for here)
        assert len(found.split()) == 1
        assert story.hosts.run(name, "ls ~/survey", check=False).returncode != 0


def test_what_ran_on_a_host_that_was_killed_goes_on_on_one_that_joined_late(story: Story) -> None:
    trial, _ = story.wait(lambda: story.begun("b", epochs=3))
    story.hosts.kill("b")
    killed = time.monotonic()
    story.machines.join("c")
    story.wait(lambda: story.live().get("c") is not None)
    print(f"from the loss of a host to a trial on another that joined meanwhile: {time.monotonic() - killed:.0f} s")
    story.wait(lambda: trial in story.went_on())
    assert story.went_on()[trial] >= 3
    story.wait(lambda: story.epochs(trial) > story.went_on()[trial])


def test_what_ran_on_a_host_that_was_unplugged_for_half_a_minute_goes_on(story: Story) -> None:
    trial, known = story.wait(lambda: story.begun("a"))
    story.hosts.cut("a")
    cut = time.monotonic()
    time.sleep(30)
    story.hosts.plug("a")
    # Ray takes the connection up again as a rule; else the driver starts the trial again.
    story.wait(lambda: story.epochs(trial) > known + 2, seconds=SILENCE_S + 120)
    print(f"from the cut to its trial's next epochs: {time.monotonic() - cut:.0f} s, {story.went_on().get(trial)}")
    assert story.went_on().get(trial, known) >= known
    assert "a" in story.machines.nodes()


def test_a_host_that_is_taken_away_costs_its_trial_one_epoch_at_most(story: Story) -> None:
    trial, known = story.wait(lambda: story.begun("c"))
    story.hosts.run("c", "pkill -TERM raylet")
    story.wait(lambda: trial in story.went_on())
    assert story.went_on()[trial] >= known
    story.wait(lambda: story.epochs(trial) > known)


def test_a_head_that_is_lost_is_replaced_and_the_search_goes_on(story: Story) -> None:
    running = list(story.live().values())
    # What watches it knows of trials on other hosts.
    told = json.loads(story.machines.on("head", "python -m search.status ~/runs/story --json").stdout)
    assert {one["name"] for one in told["live"]["nodes"] if one["alive"]} >= {"head", "a"}
    boards = story.hosts.run("head", "ls ~/runs/story/tensorboard/one").stdout.split()
    assert {f"trial-{trial:05d}" for trial in running} <= set(boards)
    story.hosts.kill("head")
    story.process.wait()
    before = story.trials()
    assert running
    story.hosts.start("head")
    story.hosts.start("b")
    story.machines.up()
    # Nothing of the search is on its disk: run, space and shards come from the storage.
    story.hosts.run("head", "rm -r ~/runs ~/survey ~/one.py")
    command = f"cd ~ && python -m search.run --address auto --resume {ROOT}/story"
    story.process = story.machines.begin(command, story.log)
    known = {one.number: len(one.intermediate_values) for one in before if not one.state.is_finished()}
    story.wait(lambda: all(story.epochs(trial) > epochs for trial, epochs in known.items()), seconds=450)
    story.hosts.run("head", "pkill -TERM -f search.run")
    assert story.process.wait(timeout=200) == 143, story.log.read_text()
    after = story.trials()
    for then, now in zip(before, after, strict=False):
        assert then.intermediate_values.items() <= now.intermediate_values.items()
        if then.state.is_finished():
            assert (then.state, then.user_attrs) == (now.state, now.user_attrs)
    diverges = 5  # as its space says
    assert {one.number for one in after if one.state == TrialState.FAIL} <= {diverges}
    assert Storage(f"{ROOT}/story").read("report/report.html") is not None


@pytest.mark.slow  # as its two searches start eight processes with torch
def test_a_trial_in_two_processes_lies_on_two_hosts(story: Story) -> None:
    """Each host has one processor, so both are needed."""
    story.hosts.run("head", "pkill -TERM -f search.run", check=False)
    story.process.wait(timeout=100)
    deadline = time.monotonic() + 120
    while not {"a", "b"} <= story.machines.nodes():
        assert time.monotonic() < deadline
        time.sleep(1)
    story.hosts.run("head", f"cp -r {story.folder / 'survey'} {story.folder / 'one.py'} ~")
    command = (
        f"cd ~ && python -m search.run --address auto --storage {ROOT} --name wide --space one.py --data survey"
        " --num-trials 2 --max-epochs 3 --final-seeds 1 --processes-per-trial 2"
    )
    log = story.folder / "wide.log"
    assert story.machines.begin(command, log).wait(timeout=250) == 0, log.read_text()
    assert "1 trial at a time, each on 2 CPU" in log.read_text()
    folder = story.folder / "wide"
    fetch_run(Storage(f"{ROOT}/wide"), folder)
    assert all(one.state.is_finished() for one in load_studies(folder)["one"].get_trials())
    assert (folder / "final" / "one" / "config-0-seed-0" / "result.json").is_file()


STRANGE = """
import sys
import ray
from ray._raylet import GcsClient
head, what = sys.argv[1:]
gcs = f"{head}:6379"
{
    "run": lambda: ray.init(address=gcs, logging_level=50),
    "read": lambda: GcsClient(address=gcs).internal_kv_keys(b"", namespace=None, timeout=10),
    "write": lambda: GcsClient(address=gcs).internal_kv_put(b"key", b"value", True, None, 10),
    "client": lambda: ray.init(address=f"ray://{head}:10001", logging_level=50),
}[what]()
print("allowed")
"""


def test_a_stranger_who_reaches_the_ports_can_neither_run_code_nor_read(story: Story) -> None:
    story.hosts.start("stranger")
    head, binaries, script = story.hosts.address("head"), Path(sys.prefix) / "bin", story.folder / "strange.py"
    script.write_text(STRANGE)
    wrong = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={'0' * 64}"
    commands = {
        f"{words} {what}": f"env {words} timeout 100 {binaries}/python {script} {head} {what}"
        for words in ("RAY_AUTH_MODE=disabled", wrong)
        for what in ("run", "read", "write", "client")
    }
    commands["join"] = f"env {wrong} timeout 100 {binaries}/ray start --address={head}:6379 --num-cpus=1"
    logs = {name: story.folder / f"strange-{index}.log" for index, name in enumerate(commands)}
    attempts = {name: story.hosts.begin("stranger", command, logs[name]) for name, command in commands.items()}
    codes = {name: attempt.wait(timeout=150) for name, attempt in attempts.items()}
    assert all(codes.values()), codes
    assert not any("allowed" in log.read_text() for log in logs.values())
    refused = [name for name, log in logs.items() if "Unauthenticated" in log.read_text() or "token" in log.read_text()]
    assert {name for name in logs if not name.endswith("client")} <= set(refused)
    assert "stranger" not in story.machines.nodes()
    # What asks for no token listens to its own machine only, or not at all.
    for port in (8265, 8076):
        assert story.hosts.run("stranger", f"timeout 5 bash -c '</dev/tcp/{head}/{port}'", check=False).returncode != 0
