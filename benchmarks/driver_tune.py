"""What a result costs the driver of a whole search under Ray Tune, ours beside a stock one; trials compute nothing.

Ours is `search.run` up to the end of its search, with its journal, TensorBoard, live view and sweeping. The stock one
is `Tuner` with `OptunaSearch` and `ASHAScheduler` as Tune's documentation shows them, and with actors that are reused.
Both have the same space of eight parameters, the same trials and the same machine, one after the other, each in a
process of its own. An epoch takes no time, so that the driver is never idle; what it does by the clock, such as
`live.json` every five seconds, is a small part of it.

Measured from the first trial's beginning to the last one's end: the processor time of the driver's process, Ray's own
threads in it and Tune's controller included, the workers and Ray's other processes not; and the time by the clock.
"""

import argparse
import contextlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import eight_parameters
from ray import tune

from galaxy_models.task import METRICS
from search.lean import LeanTrainable, unpack

HERE = Path(__file__).parent
OURS, STOCK = "ours", "stock"
MAX_EPOCHS = 9
NAMES = ("loss", *METRICS["classes"])


class CheapTrial(tune.Trainable):
    """Gives what an epoch of a training gives, at once."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin a trial."""
        chosen = self.chosen(config)
        self._epoch = 0
        self._rate, self._drop_rate = chosen["learning_rate"], chosen["drop_rate"]

    def chosen(self, config: dict[str, Any]) -> dict[str, Any]:
        """What was suggested."""
        return config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another one in the same process."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One result: as of a small network, with as many metrics."""
        self._epoch += 1
        end = 0.3 + 0.05 * (math.log10(self._rate) + 2.5) ** 2 + 0.1 * abs(self._drop_rate - 0.2)
        value = end + math.exp(-self._epoch / 6) + 0.01 * math.sin(1e7 * self._rate * self._epoch)
        return {f"{split}_{name}": value for split in ("train", "val") for name in NAMES} | {
            "epoch": self._epoch, "objective": value, "diverged": 0.0, "done": False, "learning_rate": self._rate,
            "epoch_s": 1.0, "data_wait_share": 0.01, "images_per_s": 1000.0, "micro_batch": 32.0,
        }  # fmt: skip


class Clock:
    """What a search takes of this process, from here until it is read."""

    def __init__(self) -> None:
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Seconds of processors and of the clock, and the greatest size of the process so far."""
        return {
            "cpu_s": time.process_time() - self._cpu_s,
            "wall_s": time.perf_counter() - self._wall_s,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        }


class Over(Exception):
    """The search has ended, and nothing else of the run is wanted."""


def run_ours(folder: Path, num_trials: int, workers: int) -> dict[str, float]:
    """Run a search of ours as a user does, and measure it from the first trial to the last."""
    import search.experiment
    import search.job
    from search.run import main

    sys.path.insert(0, str(HERE.parent / "tests" / "runs"))
    from blobs import write_survey

    run_experiment, found = search.job.run_experiment, {}

    def measured(*words: Any, **more: Any) -> None:
        clock = Clock()
        ended = run_experiment(*words, **more)
        found.update(clock.read())
        if ended.fault is not None:
            raise ended.fault
        (account,) = ended.ledger.accounts.values()
        trials = account.study.get_trials(deepcopy=False)
        assert len(trials) >= num_trials, f"{len(trials)} trials, expected {num_trials}"
        found.update(trials=len(trials), results=sum(len(trial.intermediate_values) for trial in trials))
        raise Over

    (folder / "survey").mkdir()
    write_survey(folder / "survey")
    words = ["--space", str(HERE / "eight_parameters.py"), "--data", str(folder / "survey"), "--runs-dir", str(folder)]
    words += ["--num-trials", str(num_trials), "--max-epochs", str(MAX_EPOCHS), "--max-concurrent", str(workers)]
    with (
        mock.patch.object(search.experiment, "GalaxyTrial", LeanCheapTrial),
        mock.patch.object(search.job, "run_experiment", measured),
        contextlib.suppress(Over),
    ):
        sys.exit(main([*words, "--cpus-per-trial", "1"]))
    return found


class LeanCheapTrial(CheapTrial, LeanTrainable):
    """Likewise, with what a trial of ours takes from Tune's part of a result, and its configuration packed."""

    def chosen(self, config: dict[str, Any]) -> dict[str, Any]:
        """See there."""
        train: dict[str, Any] = unpack(config)["train"]
        return train


def define(trial: Any) -> None:
    """Ask for one configuration; what was asked for is the trial's."""
    eight_parameters.space(trial)


def run_stock(folder: Path, num_trials: int, workers: int) -> dict[str, float]:
    """Run a search as Tune's documentation shows it, and measure it likewise."""
    import ray
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    ray.init(address="local", num_cpus=workers, include_dashboard=False, logging_level="error")
    tuner = tune.Tuner(
        tune.with_resources(CheapTrial, {"CPU": 1}),
        tune_config=tune.TuneConfig(
            metric="val_nll",
            mode="min",
            num_samples=num_trials,
            search_alg=OptunaSearch(define, metric="val_nll", mode="min", seed=0),
            scheduler=ASHAScheduler(max_t=MAX_EPOCHS, grace_period=1, reduction_factor=3),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="stock",
            storage_path=str(folder),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )
    clock = Clock()
    results = tuner.fit()
    found = clock.read()
    ray.shutdown()
    if results.errors:
        raise results.errors[0]
    rows = [result.metrics["training_iteration"] for result in results if result.metrics]
    return found | {"trials": len(rows), "results": sum(rows)}


def measure(stack: str, num_trials: int, workers: int) -> dict[str, float]:
    """Run one search in a process of its own, in a folder that is removed."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, __file__, "--stack", stack, "--trials", str(num_trials), "--workers", str(workers)]
        with (Path(place) / "log.txt").open("w") as log:
            code = subprocess.run(
                [*command, "--folder", place], stdout=log, stderr=log, check=False, env={**os.environ, "COLUMNS": "200"}
            ).returncode
        if code:
            sys.exit(f"{stack}: exit code {code}, expected 0:\n{(Path(place) / 'log.txt').read_text()[-4000:]}")
        return json.loads((Path(place) / "found.json").read_text())


def main() -> None:
    """Run each search in turn, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[1000])
    parser.add_argument("--stock-trials", type=int, default=1000, help="the stock search does no more trials than this")
    parser.add_argument("--repeats", type=int, default=1, help="searches of each kind, in turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stack", choices=(OURS, STOCK), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.folder is not None:
        run = {OURS: run_ours, STOCK: run_stock}[asked.stack]
        (asked.folder / "found.json").write_text(json.dumps(run(asked.folder, asked.trials[0], asked.workers)))
        return
    print("stack   trials  results  driver's CPU ms a result  ms by the clock  greatest size in MB")
    for num_trials in asked.trials:
        for _ in range(asked.repeats):
            for stack in (asked.stack,) if asked.stack else (OURS, STOCK):
                if stack == STOCK and num_trials > asked.stock_trials:
                    continue
                found = measure(stack, num_trials, asked.workers)
                cpu_ms, wall_ms = (1e3 * found[name] / found["results"] for name in ("cpu_s", "wall_s"))
                print(
                    f"{stack:<6}{found['trials']:8.0f}{found['results']:9.0f}{cpu_ms:26.2f}{wall_ms:17.2f}"
                    f"{found['peak_mb']:21.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
