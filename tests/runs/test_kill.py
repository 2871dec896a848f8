"""A search that is killed at random moments and resumed is the search that nobody killed."""

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from blobs import IN_WORKERS, SPACE, Scales, start

from search.journal import JOURNAL
from search.study import load_studies

NUM_TRIALS = 28
# What is killed, in a random order. After a worker only the worker begins anew, which takes the least time.
KILLS = {"driver": 2, "ray": 3, "worker": 15}
NUM_KILLS = sum(KILLS.values())
# No trial is given up, however often its worker is killed.
WORDS = ("--num-trials", str(NUM_TRIALS), "--max-epochs", "9", "--max-concurrent", "1", "--final-seeds", "1")
WORDS += ("--max-restarts", str(NUM_KILLS))
# Tells, from inside a worker, each epoch that is trained; a trial's seed is its own. An epoch takes a while, however
# fast the machine, so that none of the kills comes after the end.
SITE = (
    IN_WORKERS
    + """
    import galaxy_models.training.loop as loop
    run_epoch = loop.Trainer.run_epoch
    def told(self):
        with open(TOLD, "a") as file:
            file.write(f"{self._config.seed} {self.epoch}\\n")
        time.sleep(0.25)
        return run_epoch(self)
    loop.Trainer.run_epoch = told
"""
)


class Killed:
    """A search, and what is needed to kill it and go on with it."""

    def __init__(self, folder: Path, survey: Path, name: str) -> None:
        self._folder = folder
        self.run_dir = folder / "runs" / name
        self._first = ("--space", "one.py", "--data", str(survey), "--name", name, *WORDS)
        self._trained = folder / f"{name}.txt"
        site = folder / f"site-{name}"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SITE.replace("TOLD", repr(str(self._trained))))
        self._path = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

    def start(self) -> "subprocess.Popen[str]":
        begun = (self.run_dir / "run.json").exists()
        words = ("--resume", str(self.run_dir)) if begun else self._first
        return start(self._folder, *words, PYTHONPATH=self._path)

    def num_epochs(self) -> int:
        journal = self.run_dir / JOURNAL
        return journal.read_bytes().count(b'"epoch:') if journal.exists() else 0

    def wait_for(self, process: "subprocess.Popen[str]", num_epochs: int, moments: list[str]) -> None:
        deadline = time.monotonic() + 150
        while process.poll() is None and self.num_epochs() < num_epochs:
            if time.monotonic() > deadline:
                process.kill()
                pytest.fail(f"no epoch in 150 s after {moments}: {process.communicate()}")
            time.sleep(0.005)

    def record(self) -> list[tuple[Any, ...]]:
        trials = load_studies(self.run_dir)["one"].get_trials()
        return [(one.params, one.state, one.values, one.intermediate_values, told(one.user_attrs)) for one in trials]

    def epochs_trained(self) -> Counter[str]:
        """How often each epoch of each trial of the search was begun; those of the final training have other seeds."""
        seeds = {str(one[4]["config"]["seed"]) for one in self.record()}
        lines = self._trained.read_text().splitlines()
        return Counter(line for line in lines if line.split()[0] in seeds)


def told(attrs: dict[str, Any]) -> dict[str, Any]:
    """A trial's attributes without what a clock decides."""
    clock = {"seconds", "epoch_s", "elapsed_s", "handover_s", "images_per_s", "data_wait_share"}
    clock |= {"energy_j", "cpu_energy_j", "gpu_energy_j"}
    return {
        name: {key: one for key, one in value.items() if key not in clock} if isinstance(value, dict) else value
        for name, value in attrs.items()
        if name not in clock
    }


def kill(process: "subprocess.Popen[str]", kind: str, rng: random.Random) -> bool:
    """Kill the driver, a worker, or a part of Ray; False if there is none at the moment."""
    # Ray ends itself when one of its agents dies.
    marks = {
        "worker": ("ray::IDLE", "ray::ResourceTrainable", "ray::GalaxyTrial"),
        "ray": ("raylet/raylet", "gcs_server", "ray::DashboardAgent"),
    }
    if kind == "driver":
        process.kill()
        return True
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if any(mark in line for mark in marks[kind]):
            found.append(child)
    if found:
        rng.choice(found).kill()
    return bool(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    (folder / "one.py").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, survey: Path) -> Killed:
    """The search that nobody kills."""
    search = Killed(folder, survey, "whole")
    process = search.start()
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert set(search.epochs_trained().values()) == {1}
    return search


def go_through_kills(search: Killed, rng: random.Random) -> list[str]:
    """Begin a search, kill it over and over, and let it end; what was killed when."""
    process = search.start()
    kinds = list(Counter(KILLS).elements())
    rng.shuffle(kinds)
    moments, begins = [], True
    for kind in kinds:
        # Some are killed while Python, Ray or the worker starts; the others in the midst of an epoch.
        more, delay_s = rng.randint(1, 3), rng.uniform(0, 0.4)
        if begins and rng.random() < 0.4:
            more, delay_s = 0, rng.uniform(0, 6)
        search.wait_for(process, search.num_epochs() + more if more else 0, moments)
        time.sleep(delay_s)
        assert process.poll() is None, f"ended after {moments}: {process.communicate()}"
        while not kill(process, kind, rng):
            assert process.poll() is None, f"ended after {moments}: {process.communicate()}"
            time.sleep(0.05)
        begins = kind != "worker"
        moments.append(f"{kind} at epoch {search.num_epochs()} + {delay_s:.3f} s")
        if kind != "worker":
            process.wait(timeout=60)
            # What it started may hold the other ends for a while.
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
            process = search.start()
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, (out, err)
    return moments


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_a_search_killed_at_random_moments_is_the_one_that_nobody_killed(
    whole: Killed, folder: Path, survey: Path, seed: int
) -> None:
    search = Killed(folder, survey, f"seed-{seed}")
    with Scales(search.run_dir) as scales:
        moments = go_through_kills(search, random.Random(seed))  # noqa: S311
    print(f"seed {seed}: {'; '.join(moments)}")
    assert search.record() == whole.record()
    trained = search.epochs_trained()
    assert trained.keys() == whole.epochs_trained().keys()
    # One worker: each kill can cost the epoch that was running, and nothing else.
    assert sum(trained.values()) - len(trained) <= NUM_KILLS
    # The trial that runs, and the best.
    assert scales.num_looks > 1000
    assert 0 < scales.largest_bytes <= (1 + 1) * 2 * scales.checkpoint_bytes


def test_kills_leave_no_process_and_no_file_of_dead_trials(whole: Killed, folder: Path) -> None:
    names = [path.name for path in (folder / "runs").rglob("*") if ".partial" in path.name or path.suffix == ".pt"]
    assert names == []
