"""How long the report of a search takes as its trials grow in number.

The trials of a finished run are repeated, each time with its values moved a little, until there are as many as asked;
its final trainings and their predictions stay as they are. Each report is written by a command of its own.

    python benchmarks/report_time.py runs/my-survey --trials 100 1000 10000
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, create_trial

from galaxy_models.seeds import derive_seed
from search.journal import JOURNAL, RunJournal
from search.study import load_studies

_NOT_READ = ("weights", "tensorboard", "checkpoints", "tune", "report", "*.lock")


def moved(trial: FrozenTrial, draw: np.random.Generator) -> FrozenTrial:
    """The same trial with other values."""
    by = float(draw.normal(0, 0.01))
    return create_trial(
        state=trial.state,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        intermediate_values={epoch: value + by for epoch, value in trial.intermediate_values.items()},
        value=None if trial.value is None else trial.value + by,
    )


def write_grown(run_dir: Path, out: Path, num_trials: int) -> None:
    """Copy a run and repeat its trials until there are so many."""
    shutil.copytree(run_dir, out, ignore=shutil.ignore_patterns(*_NOT_READ, JOURNAL))
    studies = load_studies(run_dir)
    journal = RunJournal(out / JOURNAL)
    storage = JournalStorage(journal)
    draw = np.random.default_rng(derive_seed(0, "report time"))
    for name, study in studies.items():
        copy = optuna.create_study(storage=storage, study_name=name, direction=study.direction)
        for key, value in study.user_attrs.items():
            copy.set_user_attr(key, value)
        trials = [one for one in study.get_trials(deepcopy=False) if one.state.is_finished()]
        copy.add_trials(trials)
        missing = num_trials // len(studies) - len(trials)
        copy.add_trials([moved(trials[index % len(trials)], draw) for index in range(missing)])
    journal.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as place:
        folders = {num_trials: Path(place) / str(num_trials) for num_trials in options.trials}
        for num_trials, folder in folders.items():
            write_grown(options.run, folder, num_trials)
        times_s: dict[int, list[float]] = {num_trials: [] for num_trials in folders}
        for _ in range(options.rounds):
            for num_trials, folder in folders.items():
                start = time.perf_counter()
                words = [sys.executable, "-m", "search.report", str(folder)]
                subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
                times_s[num_trials].append(time.perf_counter() - start)
        print("trials  seconds (each round)         page MB")
        for num_trials, folder in folders.items():
            rounds = " ".join(f"{one:7.2f}" for one in times_s[num_trials])
            size = (folder / "report" / "report.html").stat().st_size / 1e6
            print(f"{num_trials:6d}  {rounds}  {size:9.2f}")


if __name__ == "__main__":
    main()
