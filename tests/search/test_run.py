"""`python -m search.run` as a user starts it, on galaxies small enough to learn in seconds."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.trial import TrialState

from galaxy_models.data.manifest import SCHEMA_VERSION, Manifest, SplitEntry
from galaxy_models.data.shards import ShardWriter
from galaxy_models.task import Task
from galaxy_models.training.checkpoint import load_model
from galaxy_models.training.evaluation import evaluate
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData
from search.study import load_studies

PX = 32
SPACE = """
from galaxy_models.config import CnnConfig, TrainConfig

named = [{"learning_rate": 3e-3, "width": 8}]


def space(trial):
    width = trial.suggest_int("width", 4, 12, step=4)
    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)
    # The last of these trials cannot but diverge.
    return TrainConfig(
        backbone="cnn",
        cnn=CnnConfig(width=width, depth=3, norm="none" if trial.number == 5 else "batch"),
        batch_size=32,
        optimizer="sgd" if trial.number == 5 else "adamw",
        learning_rate=100.0 if trial.number == 5 else learning_rate,
        momentum=0.99,
        precision="float32",
    )
"""


def draw(kind: int, rng: np.random.Generator) -> np.ndarray:
    """A round blob, or a flat one at any angle."""
    y, x = np.mgrid[:PX, :PX] - (PX - 1) / 2
    angle = rng.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = np.exp(-(u**2 / 40 + v**2 / (40 if kind == 0 else 4)))
    noisy = 180 * light + rng.normal(20, 12, (PX, PX))
    return np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    task, splits = Task("classes", ("round", "flat")), {}
    for index, (split, num_rows) in enumerate({"train": 160, "val": 60, "test": 60}.items()):
        rng = np.random.default_rng(index)
        writer = ShardWriter(folder, split, px=PX, task=task)
        for row in range(num_rows):
            writer.add(f"{split}-{row}", draw(row % 2, rng), row % 2)
        splits[split] = SplitEntry(num_rows, writer.close(), (num_rows // 2, num_rows // 2))
    Manifest(SCHEMA_VERSION, "blobs", False, task, PX, splits, 0, 0, {}).write(folder)
    return folder


def start(folder: Path, *words: str, module: str = "search.run", **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def run(folder: Path, *words: str, module: str = "search.run", **environment: str) -> tuple[int, str, str]:
    process = start(folder, *words, module=module, **environment)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def finished(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two spaces, and what it printed."""
    folder = tmp_path_factory.mktemp("search")
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(SPACE)
    words = ("--space", "one.py", "--space", "two.py", "--data", str(survey), "--name", "both")
    code, out, err = run(folder, *words, "--num-trials", "6", "--max-epochs", "9", "--seed", "3")
    assert code == 0, err
    assert "Traceback" not in err
    return folder / "runs" / "both", out


def test_each_backbone_has_its_own_study_and_its_share(finished: tuple[Path, str]) -> None:
    studies = load_studies(finished[0])
    assert sorted(studies) == ["one", "two"]
    for study in studies.values():
        trials = study.get_trials()
        assert len(trials) == 6
        assert trials[0].user_attrs["named"] is True
        assert trials[5].state == TrialState.FAIL
        assert "diverged in epoch 1" in trials[5].user_attrs["reason"]
        complete = [one for one in trials if one.state == TrialState.COMPLETE]
        pruned = [one for one in trials if one.state == TrialState.PRUNED]
        assert len(complete) + len(pruned) == 5
        assert complete
        assert pruned
        assert all(max(one.intermediate_values) == 9 for one in complete)
        assert all(one.value == min(one.intermediate_values.values()) for one in complete)
        # ASHA compares after epochs 1 and 3 only.
        assert {max(one.intermediate_values) for one in pruned} <= {1, 3}


def test_only_the_weights_of_each_best_trial_are_kept_and_they_are_those_of_its_best_epoch(
    finished: tuple[Path, str], survey: Path
) -> None:
    configs = json.loads((finished[0] / "report" / "best_configs.json").read_text())
    for name, study in load_studies(finished[0]).items():
        (path,) = (finished[0] / "weights" / name).iterdir()
        best = study.get_trials()[configs[name]["trial"]]
        assert path.name == f"trial-{best.number:05d}-epoch-{best.user_attrs['best_epoch']:04d}.safetensors"
        model, config, _ = load_model(path)
        measured = evaluate(model, SurveyData(survey), "val", config=config, runtime=Runtime(threads=1))
        assert measured["nll"] == pytest.approx(min(best.intermediate_values.values()), abs=1e-5)
        assert measured["nll"] == pytest.approx(configs[name]["validation"]["nll"], abs=1e-5)
        ended = [one for one in study.get_trials() if one.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        assert min(min(one.intermediate_values.values()) for one in ended) == min(best.intermediate_values.values())


def test_the_named_command_trains_the_best_configuration_again(finished: tuple[Path, str]) -> None:
    folder = finished[0].parents[1]
    configs = json.loads((finished[0] / "report" / "best_configs.json").read_text())
    words = shlex.split(configs["one"]["command"])
    assert words[:3] == ["python", "-m", "galaxy_models.train"]
    code, _, err = run(folder, *words[3:], module=words[2])
    assert code == 0, err
    again = (folder / words[words.index("--out") + 1] / "metrics.json").read_text()
    reached = min(load_studies(finished[0])["one"].get_trials()[configs["one"]["trial"]].intermediate_values.values())
    # Same configuration, seed, data and thread: the very same number.
    assert repr(reached) in again


def test_the_report_agrees_with_the_studies(finished: tuple[Path, str]) -> None:
    report = finished[0] / "report"
    trials = pd.read_parquet(report / "trials.parquet")
    curves = pd.read_parquet(report / "curves.parquet")
    assert len(trials) == 12
    assert len(curves) == trials["epochs"].sum()
    for name, study in load_studies(finished[0]).items():
        rows = trials[trials["backbone"] == name].set_index("trial")
        for one in study.get_trials():
            assert rows.loc[one.number, "state"] == one.state.name
    page = (report / "report.md").read_text()
    assert "blobs" in page
    assert "Validation NLL" in page
    assert "val_nll" not in page
    assert (report / "report.html").stat().st_size > 1000


def test_tensorboard_has_every_epoch_and_the_best_value(finished: tuple[Path, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trial = next(one for one in load_studies(finished[0])["one"].get_trials() if one.state == TrialState.COMPLETE)
    events = EventAccumulator(str(finished[0] / "tensorboard" / "one" / f"trial-{trial.number:05d}"))
    events.Reload()
    written = {event.step: event.value for event in events.Scalars("val/nll")}
    assert written == pytest.approx(trial.intermediate_values)
    assert events.Scalars("best/val_nll")[0].value == pytest.approx(trial.value)
    tags = {tag.partition("/")[0] for tag in events.Tags()["scalars"]}
    assert {"train", "val", "best"} <= tags


def test_the_terminal_says_how_it_went(finished: tuple[Path, str]) -> None:
    out = finished[1]
    assert re.search(r"12/12 (one|two) trial \d+: ", out)
    assert re.search(r"workers +\d+\.\d+ s from the end of a trial to the first step of the next", out)
    last = out.strip().splitlines()[-1]
    assert last == "report: runs/both/report/report.html"


def test_one_worker_and_one_seed_give_the_same_numbers_bit_for_bit(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    records = []
    for name in ("first", "again"):
        words = ("--space", "one.py", "--data", str(survey), "--name", name, "--max-concurrent", "1")
        code, _, err = run(tmp_path, *words, "--num-trials", "12", "--max-epochs", "3")
        assert code == 0, err
        trials = load_studies(tmp_path / "runs" / name)["one"].get_trials()
        records.append([(one.params, one.state, one.intermediate_values, one.user_attrs["config"]) for one in trials])
    assert records[0] == records[1]


def descendants(pid: int) -> set[int]:
    """Process numbers of all children, and of theirs."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in table.splitlines())}
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_report_and_no_process_left(survey: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    process = start(tmp_path, "--space", "one.py", "--data", str(survey), "--name", "cut", "--num-trials", "500")
    journal = tmp_path / "runs" / "cut" / "study.journal"
    deadline = time.monotonic() + 200
    while not (journal.is_file() and b"epoch:1" in journal.read_bytes()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    ours = descendants(process.pid)
    assert len(ours) > 3
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    page = (tmp_path / "runs" / "cut" / "report" / "report.md").read_text()
    assert "The search ended before its last trial: interrupted." in page
    states = {one.state for one in load_studies(tmp_path / "runs" / "cut")["one"].get_trials()}
    assert TrialState.RUNNING not in states
    assert "report: " in out
    while any(Path(f"/proc/{pid}").exists() for pid in ours):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_votes_are_searched_within_a_time_budget(tmp_path: Path) -> None:
    words = ("simulated", "150", "--recipe", "none", "--px", str(PX), "--out", "votes")
    assert run(tmp_path, *words, module="galaxy_models.data.convert")[0] == 0
    (tmp_path / "one.py").write_text(SPACE)
    bounds = ("--num-trials", "500", "--time-budget", "12s")
    code, out, err = run(tmp_path, "--space", "one.py", "--data", "votes", "--name", "votes", *bounds)
    assert code == 0, err
    assert "test rmse" in out
    assert "SIMULATED SKY" in out
    trials = load_studies(tmp_path / "runs" / "votes")["one"].get_trials()
    assert 1 <= len(trials) < 500
    assert "time budget" in {one.user_attrs["reason"] for one in trials}
    metrics = json.loads((tmp_path / "runs" / "votes" / "report" / "best_configs.json").read_text())["one"]["test"]
    assert set(metrics) == {"rmse"}
    # Answering the middle for every fraction is off by more than this.
    assert 0 < metrics["rmse"] < 0.4


def test_a_bug_in_every_trial_ends_the_search_after_three_with_code_1(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    # Python imports this at its start: the workers' training loop is broken, the driver's is not.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('default_worker' in word for word in sys.orig_argv):\n"
        "    import galaxy_models.training.loop as loop\n"
        "    def broken(self):\n"
        "        raise ZeroDivisionError('planted')\n"
        "    loop.Trainer.run_epoch = broken\n"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    words = ("--space", "one.py", "--data", str(survey), "--name", "bug")
    code, _, err = run(tmp_path, *words, PYTHONPATH=path)
    assert code == 1, err
    assert "ZeroDivisionError: planted" in err
    assert "Traceback" not in err
    trials = load_studies(tmp_path / "runs" / "bug")["one"].get_trials()
    assert len([one for one in trials if one.state == TrialState.FAIL]) <= 4
    assert (tmp_path / "runs" / "bug" / "report" / "report.html").is_file()
    logs = sorted((tmp_path / "runs" / "bug" / "errors").iterdir())
    assert "Traceback" in logs[0].read_text()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda space, data: space.unlink(), "no such file"),
        (lambda space, data: space.write_text("def space(trial:"), "line 1"),
        (lambda space, data: space.write_text(SPACE.replace('backbone="cnn"', 'backbone="resnet5"')), "resnet5"),
        (
            lambda space, data: space.write_text("def space(trial):\n    return 3\n"),
            "returned 3, expected a TrainConfig",
        ),
        (lambda space, data: space.write_text(SPACE.replace('"adamw"', '"adamww"')), "did you mean"),
        (lambda space, data: (data / "manifest.json").unlink(), "manifest.json"),
        (lambda space, data: (data / "train-00000.arrow").unlink(), "train-00000.arrow"),
        (lambda space, data: flip_a_byte(data / "val-00000.arrow"), "val-00000.arrow"),
        (lambda space, data: raise_version(data / "manifest.json"), "schema"),
    ],
)
def test_bad_input_is_one_message_and_code_2(survey: Path, tmp_path: Path, break_it: Any, message: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for path in survey.iterdir():
        (data / path.name).write_bytes(path.read_bytes())
    space = tmp_path / "one.py"
    space.write_text(SPACE)
    break_it(space, data)
    code, _, err = run(tmp_path, "--space", "one.py", "--data", "data")
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not (tmp_path / "runs").exists()


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def raise_version(path: Path) -> None:
    values = json.loads(path.read_text())
    values["schema_version"] = SCHEMA_VERSION + 1
    path.write_text(json.dumps(values))


def test_a_run_is_never_written_over(finished: tuple[Path, str], survey: Path) -> None:
    folder = finished[0].parents[1]
    code, _, err = run(folder, "--space", "one.py", "--data", str(survey), "--name", "both")
    assert code == 2
    assert "exists already" in err
