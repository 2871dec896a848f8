"""`python -m search.run` as a user starts it, on galaxies small enough to learn in seconds."""

import json
import os
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from blobs import PX, SLOW_EPOCHS, SPACE, Scales, run, run_here
from optuna.trial import TrialState

from galaxy_models.data.convert import main as convert
from galaxy_models.training.checkpoint import load_model
from galaxy_models.training.evaluation import evaluate
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData
from search.entry import FINALIST_OF
from search.run import main as search
from search.study import load_studies


@pytest.fixture(scope="module")
def weighed(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Scales]:
    """A run of two spaces, what it printed, and what it kept at every moment."""
    folder = tmp_path_factory.mktemp("search")
    for name in ("one", "two"):
        (folder / f"{name}.py").write_text(SPACE)
    words = ("--space", "one.py", "--space", "two.py", "--data", str(survey), "--name", "both")
    with Scales(folder / "runs" / "both") as scales:
        code, out, err = run(folder, *words, "--num-trials", "6", "--max-epochs", "9", "--seed", "3")
    assert code == 0, err
    assert "Traceback" not in err
    return folder / "runs" / "both", out, scales


@pytest.fixture(scope="module")
def finished(weighed: tuple[Path, str, Scales]) -> tuple[Path, str]:
    """The run, and what it printed."""
    return weighed[:2]


def test_each_backbone_has_its_own_study_and_its_share(finished: tuple[Path, str]) -> None:
    studies = load_studies(finished[0])
    assert sorted(studies) == ["one", "two"]
    for study in studies.values():
        trials = study.get_trials()
        assert [FINALIST_OF in one.user_attrs for one in trials[:6]] == [False] * 6
        assert all(FINALIST_OF in one.user_attrs for one in trials[6:])
        assert trials[0].user_attrs["named"] is True
        assert trials[5].state == TrialState.FAIL
        assert "diverged in epoch 1" in trials[5].user_attrs["reason"]
        complete = [one for one in trials if one.state == TrialState.COMPLETE]
        pruned = [one for one in trials if one.state == TrialState.PRUNED]
        assert len(complete) + len(pruned) == len(trials) - 1
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
        ended = [one for one in study.get_trials() if one.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        assert min(min(one.intermediate_values.values()) for one in ended) == min(best.intermediate_values.values())


def test_there_are_never_more_checkpoints_than_running_trials_and_the_best_need(
    weighed: tuple[Path, str, Scales],
) -> None:
    _, out, scales = weighed
    running = re.search(r"machine +(\d+) trials? at a time", out)
    assert running is not None
    assert scales.num_looks > 100
    # The best trial of each of two spaces.
    assert 0 < scales.largest_bytes <= (int(running[1]) + 2) * 2 * scales.checkpoint_bytes


def test_what_tune_writes_down_has_no_metric_and_every_trial(finished: tuple[Path, str]) -> None:
    (path,) = (finished[0] / "tune").glob("experiment_state*.json")
    trials = json.loads(path.read_text())["trial_data"]
    assert len(trials) == sum(len(study.get_trials()) for study in load_studies(finished[0]).values())
    kept = "".join(trial[1] for trial in trials)
    assert kept.count('"training_iteration"') == len(trials)  # in its last result, and in no statistics
    assert "val_nll" not in kept


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
    assert len(trials) == sum(len(study.get_trials()) for study in load_studies(finished[0]).values())
    assert len(curves) == trials["epochs"].sum()
    for name, study in load_studies(finished[0]).items():
        rows = trials[trials["backbone"] == name].set_index("trial")
        for one in study.get_trials():
            assert rows.loc[one.number, "state"] == one.state.name
    page = (report / "report.md").read_text()
    assert "blobs" in page
    assert "validation NLL" in page
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
    assert re.search(r"(one|two) trial \d+: ", out)
    assert re.search(r"workers +\d+\.\d+ s from the end of a trial to the first step of the next", out)
    last = out.strip().splitlines()[-1]
    assert last == "report: runs/both/report/report.html"


# The searches that are killed show as much.
@pytest.mark.slow
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


def test_votes_are_searched_within_a_time_budget(tmp_path: Path) -> None:
    words = ("simulated", "150", "--recipe", "none", "--px", str(PX), "--out", "votes")
    assert run_here(tmp_path, convert, *words)[0] == 0
    (tmp_path / "one.py").write_text(SPACE)
    # Time passes while nobody computes.
    (tmp_path / "sitecustomize.py").write_text(SLOW_EPOCHS)
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    bounds = ("--num-trials", "500", "--max-concurrent", "1", "--time-budget", "30s", "--final-seeds", "1")
    words = ("--space", "one.py", "--data", "votes", "--name", "votes", *bounds)
    code, out, err = run(tmp_path, *words, PYTHONPATH=path)
    assert code == 0, err
    assert "test rmse" in out
    assert "SIMULATED SKY" in out
    trials = load_studies(tmp_path / "runs" / "votes")["one"].get_trials()
    assert 1 <= len(trials) < 500
    assert "time budget; go on with" in out
    metrics = json.loads((tmp_path / "runs" / "votes" / "report" / "best_configs.json").read_text())["one"]["test"]
    assert set(metrics) == {"rmse"}
    # Answering the middle for every fraction is off by more than this.
    assert 0 < metrics["rmse"] < 0.4


def test_a_run_is_never_written_over(finished: tuple[Path, str], survey: Path) -> None:
    folder = finished[0].parents[1]
    code, _, err = run_here(folder, search, "--space", "one.py", "--data", str(survey), "--name", "both")
    assert code == 2
    assert "exists already" in err
