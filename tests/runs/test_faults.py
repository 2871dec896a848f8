"""Faults in trials, in a whole search: planted in the workers, whose driver is as it is."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from blobs import IN_WORKERS, SPACE, run, start
from optuna.trial import FrozenTrial, TrialState

from search.study import load_studies

PLANT = (
    IN_WORKERS
    + """
    import torch
    import galaxy_models.models.galaxy_model as model
    import galaxy_models.training.loop as loop
    run_epoch, forward = loop.Trainer.run_epoch, model.GalaxyModel.forward
"""
)
BUG = """
    def broken(self):
        raise ZeroDivisionError("planted")
    loop.Trainer.run_epoch = broken
"""
HANG_AND_DIE = """
    def bad(self):
        if self._config.batch_size == 31:
            time.sleep(1000)
        if self._config.batch_size == 30:
            os._exit(1)
        return run_epoch(self)
    loop.Trainer.run_epoch = bad
"""
# A worker's process is stopped once in each of three places: as it starts, in a trial, and in the final training. What
# lasts minutes else lasts seconds.
STOP = """
    import signal
    from search.trial import GalaxyTrial
    def stop_once(place):
        if not os.path.exists(place):
            open(place, "w").close()
            os.kill(os.getpid(), signal.SIGSTOP)
    setup = GalaxyTrial.setup
    def stopped_setup(self, config):
        stop_once("stopped_start")
        setup(self, config)
    GalaxyTrial.setup = stopped_setup
    def stopped_epoch(self):
        stop_once("stopped_final" if "search.retrain" in sys.modules else "stopped_trial")
        return run_epoch(self)
    loop.Trainer.run_epoch = stopped_epoch
if "search.run" in sys.orig_argv:
    import search.watch
    search.watch.SILENCE_S, search.watch.START_S, search.watch._LOOK_S = 6.0, 8.0, 1.0
"""
LITTLE_MEMORY = """
    def small(self, images):
        if len(images) > 8:
            with open("ran_out.txt", "a") as file:
                file.write(f"{len(images)} {torch.is_grad_enabled()}\\n")
            raise torch.OutOfMemoryError("planted")
        return forward(self, images)
    model.GalaxyModel.forward = small
"""


def run_planted(folder: Path, survey: Path, plant: str, *words: str, space: str = SPACE) -> tuple[int, str, str]:
    """A search whose workers have a fault."""
    (folder / "one.py").write_text(space)
    (folder / "sitecustomize.py").write_text(PLANT + plant)
    path = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    names = ("--space", "one.py", "--data", str(survey), "--name", "bad", "--final-seeds", "1")
    return run(folder, *names, *words, PYTHONPATH=path)


def trials_of(folder: Path) -> list[FrozenTrial]:
    return load_studies(folder / "runs" / "bad")["one"].get_trials()


def test_a_bug_in_every_trial_ends_the_search_after_three_with_code_1(survey: Path, tmp_path: Path) -> None:
    code, _, err = run_planted(tmp_path, survey, BUG, "--max-concurrent", "1")
    assert code == 1, err
    assert "ZeroDivisionError: planted" in err
    assert "Traceback" not in err
    assert [one.state for one in trials_of(tmp_path)] == [TrialState.FAIL] * 3
    assert (tmp_path / "runs" / "bad" / "report" / "report.html").is_file()
    logs = sorted((tmp_path / "runs" / "bad" / "errors").iterdir())
    assert "Traceback" in logs[0].read_text()


def test_trials_that_hang_or_die_are_ended_and_counted_and_the_others_go_on(survey: Path, tmp_path: Path) -> None:
    space = SPACE.replace("batch_size=32", "batch_size={1: 31, 3: 30}.get(trial.number, 32)")
    words = ("--num-trials", "4", "--max-epochs", "1", "--max-concurrent", "1")
    limits = ("--trial-timeout", "15s", "--max-restarts", "1")
    code, out, err = run_planted(tmp_path, survey, HANG_AND_DIE, *words, *limits, space=space)
    assert code == 0, err
    trials = trials_of(tmp_path)
    assert [one.state == TrialState.FAIL for one in trials] == [False, True, False, True]
    assert "--trial-timeout" in trials[1].user_attrs["reason"]
    where = (tmp_path / "runs" / "bad" / "errors" / "one-00001-hung.txt").read_text()
    assert "sitecustomize.py" in where
    assert "died" in trials[3].user_attrs["reason"]
    assert "one trial 3: its worker died; it goes on after epoch 0" in out


# A minute of waiting; the parts of it are tested by themselves.
@pytest.mark.slow
def test_processes_that_are_stopped_are_replaced_wherever_they_were(survey: Path, tmp_path: Path) -> None:
    words = ("--num-trials", "2", "--max-epochs", "1", "--max-concurrent", "1")
    code, out, err = run_planted(tmp_path, survey, STOP, *words)
    assert code == 0, (out, err)
    assert {path.name for path in tmp_path.glob("stopped_*")} == {"stopped_start", "stopped_trial", "stopped_final"}
    assert {one.state for one in trials_of(tmp_path)} == {TrialState.COMPLETE}
    assert "one trial 0: its worker died" in out
    assert "one trial 0: no sign of life from its worker" in out


def test_memory_that_runs_out_halves_the_images_at_once_and_is_remembered(survey: Path, tmp_path: Path) -> None:
    words = ("--num-trials", "4", "--max-epochs", "1", "--max-concurrent", "1")
    code, _, err = run_planted(tmp_path, survey, LITTLE_MEMORY, *words)
    assert code == 0, err
    trials = trials_of(tmp_path)
    assert {one.state for one in trials} == {TrialState.COMPLETE}
    assert [one.user_attrs["epoch:1"]["micro_batch"] for one in trials] == [8] * 4
    # 32 and 16 images, once: later trials and the final training know.
    ran_out = (tmp_path / "ran_out.txt").read_text().splitlines()
    assert [line for line in ran_out if line.endswith("True")] == ["32 True", "16 True"]


def mount(folder: Path, megabytes: int) -> None:
    """Put a small disk there, or skip."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_pauses_the_search_until_there_is_room(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    mount(tmp_path / "runs", 16)
    try:
        words = ("--space", "one.py", "--data", str(survey), "--name", "full", "--final-seeds", "1")
        process = start(tmp_path, *words, "--num-trials", "6", "--max-epochs", "9", "--max-concurrent", "1")
        journal = tmp_path / "runs" / "full" / "study.journal"
        deadline = time.monotonic() + 100
        while not (journal.is_file() and b"epoch:2" in journal.read_bytes()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        filler = tmp_path / "runs" / "filler"
        with pytest.raises(OSError, match="No space"):
            fill(filler)
        time.sleep(4)
        assert process.poll() is None, process.communicate()
        before = journal.stat().st_size
        time.sleep(2)
        assert journal.stat().st_size - before < 4096
        filler.unlink()
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, (out, err)
        assert "full" in out
        trials = load_studies(tmp_path / "runs" / "full")["one"].get_trials()
        assert TrialState.RUNNING not in {one.state for one in trials}
        assert (tmp_path / "runs" / "full" / "report" / "report.html").is_file()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "runs")], check=False)
