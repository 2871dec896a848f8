"""A run that is extended, moved and changed: one story, told in the order of the tests."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from blobs import SPACE, run, run_here, without_ray
from optuna.trial import FrozenTrial, TrialState

from galaxy_models.config import TrainConfig
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData
from search.entry import BRANCHED_AFTER, DUPLICATE_OF, EPOCH, FINALIST_OF, PARENT, PROMOTED_FROM
from search.lock import RunLock
from search.report.__main__ import main as report
from search.run import main as search
from search.status import main as tell_status
from search.study import load_studies

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Story:
    """A run, and what its trials were at the end of the last chapter."""

    def __init__(self, folder: Path, survey: Path, *, run_dir: Path) -> None:
        self.folder = folder
        self.run_dir = run_dir
        self.survey = survey

    def trials(self, space: str = "one") -> list[FrozenTrial]:
        return load_studies(self.run_dir)[space].get_trials()

    def go_on(self, *words: str) -> tuple[int, str, str]:
        return run(self.folder, "--resume", str(self.run_dir), *words)

    def refused(self, *words: str) -> str:
        """What is said where it does not go on."""
        code, _, err = run_here(self.folder, search, "--resume", str(self.run_dir), *words)
        assert code == 2, err
        return err

    def options(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.run_dir / "run.json").read_text())
        return dict(record["options"])

    def num_epochs(self) -> int:
        studies = load_studies(self.run_dir).values()
        return sum(name.startswith(EPOCH) for study in studies for one in study.get_trials() for name in one.user_attrs)


@pytest.fixture(scope="module")
def story(survey: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("story")
    (folder / "one.py").write_text(SPACE)
    words = ("--space", "one.py", "--data", str(survey), "--name", "story", "--final-seeds", "1")
    code, _, err = run(folder, *words, "--num-trials", "4", "--max-epochs", "3", "--max-concurrent", "1")
    assert code == 0, err
    return Story(folder, survey, run_dir=folder / "runs" / "story")


def same(before: list[FrozenTrial], after: list[FrozenTrial]) -> bool:
    def facts(one: FrozenTrial) -> tuple[Any, ...]:
        return one.params, one.state, one.values, one.intermediate_values, one.user_attrs

    return [facts(one) for one in before] == [facts(one) for one in after[: len(before)]]


def test_more_trials_and_longer_ones_and_another_space(story: Story) -> None:
    before = story.trials()
    shutil.copy(story.folder / "one.py", story.folder / "two.py")
    words = ("--num-trials", "+3", "--max-epochs", "9", "--space", "two.py", "--time-budget", "5m")
    code, out, err = story.go_on(*words)
    assert code == 0, err
    assert "goes on" in out
    assert "best     two: " in out
    assert json.loads((story.run_dir / "report" / "best_configs.json").read_text()).keys() == {"one", "two"}
    assert (story.options()["num_trials"], story.options()["max_epochs"]) == (7, 9)
    after, others = story.trials(), story.trials("two")
    assert same(before, after)
    assert all(one.state in ENDED for one in (*after, *others))
    assert sum(not {FINALIST_OF, PROMOTED_FROM} & one.user_attrs.keys() for one in after) == 7
    assert sum(FINALIST_OF not in one.user_attrs for one in others) == 7
    # The best is run again to the new length.
    promoted = [one for one in after if PROMOTED_FROM in one.user_attrs]
    best = min((one for one in before if one.state == TrialState.COMPLETE), key=lambda one: one.value)
    assert promoted[0].user_attrs[PROMOTED_FROM] == best.user_attrs.get(FINALIST_OF, best.number)
    assert promoted[0].params == best.params
    assert promoted[0].user_attrs["config"]["epochs"] == 9
    assert max(promoted[0].intermediate_values) == 9


@pytest.mark.slow
def test_a_search_that_is_done_has_nothing_to_do(story: Story) -> None:
    before = story.trials()
    code, out, err = story.go_on()
    assert code == 0, err
    assert len(story.trials()) == len(before)
    assert out.strip().splitlines()[-1].endswith("report.html")


def test_budgets_count_what_earlier_sessions_spent(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    without_ray(monkeypatch)
    spent, record = story.num_epochs(), story.run_dir / "run.json"
    before = {**json.loads(record.read_text()), "notes": ["Workers died."]}
    record.write_text(json.dumps(before))
    err = story.refused("--num-trials", "+500", "--epoch-budget", str(spent))
    assert f"epoch budget: {spent} of {spent} epochs" in err
    # Refused: the run is still one of 7 trials, and its report can still be written, with all that it had to say.
    assert story.options()["num_trials"] == 7
    after = json.loads(record.read_text())
    assert after["sessions"].pop()["exit_code"] == 2
    assert after == before
    _, out, _ = run_here(story.folder, tell_status, str(story.run_dir))
    assert "state    ended " in out
    assert "did not begin: " in out
    assert run_here(story.folder, report, str(story.run_dir))[0] == 0
    assert "Workers died." in (story.run_dir / "report" / "report.md").read_text()


def test_a_time_budget_counts_what_a_session_searched_after_its_last_epoch(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    record = story.run_dir / "run.json"
    kept = record.read_bytes()
    values = json.loads(kept)
    values["sessions"][-1]["elapsed_s"] = 4000.0
    record.write_text(json.dumps(values))
    err = story.refused("--num-trials", "+500", "--time-budget", "1h")
    record.write_bytes(kept)
    assert re.search(r"time budget: 4[0-4]\d\d of 3600 s are spent", err), err


def test_a_new_run_that_the_machine_is_too_small_for_leaves_its_name_free(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ray(monkeypatch)
    (tmp_path / "one.py").write_text(SPACE)
    words = ("--space", "one.py", "--data", str(story.survey), "--name", "large", "--cpus-per-trial", "99999")
    code, _, err = run_here(tmp_path, search, *words)
    assert code == 2
    assert "--cpus-per-trial: got 99999, expected at most 2" in err
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_folder_moved_and_the_space_files_gone(story: Story, tmp_path: Path) -> None:
    before, spent = story.trials(), story.num_epochs()
    shutil.copytree(story.run_dir, tmp_path / "copy")
    moved = Story(tmp_path, story.survey, run_dir=tmp_path / "copy")
    code, _, err = moved.go_on("--num-trials", "+500", "--epoch-budget", str(spent + 12))
    assert code == 0, err
    # Trials that ran beside the last one finish their epoch.
    assert spent + 12 <= moved.num_epochs() <= spent + 14
    assert same(before, moved.trials())
    assert (tmp_path / "copy" / "report" / "report.html").is_file()
    assert same(before, story.trials())


def test_a_changed_space_is_refused_with_the_difference_and_then_accepted(story: Story) -> None:
    before = story.trials()
    space = story.folder / "one.py"
    space.write_text(space.read_text().replace("1e-4, 1e-1", "1e-3, 1e-1"))
    err = story.refused("--num-trials", "+1")
    assert '-    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True)' in err
    assert '+    learning_rate = trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)' in err
    assert "--accept-changes" in err
    code, _, err = story.go_on("--num-trials", "+1", "--accept-changes")
    assert code == 0, err
    assert same(before, story.trials())
    sessions = json.loads((story.run_dir / "run.json").read_text())["sessions"]
    assert "space one:" in sessions[-1]["accepted_changes"]


def test_a_live_search_keeps_others_out(story: Story) -> None:
    with RunLock(story.run_dir):
        err = story.refused()
    assert f"in use by process {os.getpid()}" in err


@pytest.fixture(scope="module")
def warm(story: Story, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[FrozenTrial], str]:
    """A population that begins with the best of the story: its trials, and what was said of them."""
    folder = tmp_path_factory.mktemp("warm")
    # None of these is another network for its number.
    (folder / "one.py").write_text(SPACE.replace("trial.number == 5", "False"))
    words = ("--space", "one.py", "--data", str(story.survey), "--name", "warm", "--final-seeds", "1")
    bounds = ("--num-trials", "4", "--max-epochs", "4", "--scheduler", "pbt")
    code, out, err = run(folder, *words, *bounds, "--warm-start", str(story.run_dir))
    assert code == 0, err
    return load_studies(folder / "runs" / "warm")["one"].get_trials(), out


def test_a_warm_start_begins_with_the_best_of_an_earlier_run(story: Story, warm: tuple[list[FrozenTrial], str]) -> None:
    ended = [one for one in story.trials() if one.intermediate_values]
    best = min(ended, key=lambda one: min(one.intermediate_values.values()))
    assert warm[0][1].params == best.params or DUPLICATE_OF in warm[0][1].user_attrs


def course(trials: list[FrozenTrial], trial: FrozenTrial) -> dict[int, float]:
    """Validation NLL by epoch of a trial, that of its forerunners until it began included."""
    number, after = trial.user_attrs.get(PARENT), trial.user_attrs.get(BRANCHED_AFTER, 0)
    before = {} if number is None else course(trials, trials[number])
    return {epoch: value for epoch, value in before.items() if epoch <= after} | trial.intermediate_values


def test_a_trial_of_a_population_can_be_trained_from_scratch(story: Story, warm: tuple[list[FrozenTrial], str]) -> None:
    trials, out = warm
    assert "stopping pbt: after each epoch new trials go on from the best quarter in place of the worst quarter" in out
    own = [one for one in trials if DUPLICATE_OF not in one.user_attrs]
    assert out.count("replaced after epoch ") == sum(one.state == TrialState.PRUNED for one in own) == 3
    assert sum(one.state == TrialState.COMPLETE for one in own) == 4
    found = max(own, key=lambda one: (len(one.user_attrs["config"].get("changes", ())), one.number))
    config = TrainConfig.from_dict(found.user_attrs["config"])
    assert config.changes
    trainer = Trainer(config, SurveyData(story.survey), runtime=Runtime(threads=1))
    expected = course(trials, found)
    assert {epoch: trainer.run_epoch()["val_nll"] for epoch in sorted(expected)} == expected
