"""What a run may go on with, and what each call leaves in its record."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from session_bench import Bench, make_manifest
from two_spaces import FOUR, SPACE, epoch, make_ledger, write_space

from galaxy_models.task import Task
from search import run_dir as module
from search.errors import RunError
from search.experiment import Job
from search.options import Places
from search.run_dir import RECORD, create_run_dir, save_record
from search.session import Session, check_whole
from search.shards import Shards


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_names_in_several_splits_are_in_the_record(bench: Bench) -> None:
    bench.manifest = replace(bench.manifest, made_by={"options": {"num_repeated_names": 3}})
    bench.begin()
    assert bench.record["survey"]["num_repeated_names"] == 3


def test_each_call_is_a_session_with_its_own_seconds(bench: Bench) -> None:
    bench.begin().end(elapsed_s=10.0, reason="time budget", exit_code=0, notes=["One.", "Two."])
    assert bench.record["notes"] == ["One.", "Two."]
    bench.go_on().end(elapsed_s=25.0, reason="", exit_code=130, notes=[])
    sessions = bench.record["sessions"]
    assert [one["elapsed_s"] for one in sessions] == [10.0, 15.0]
    assert [one["command"] for one in sessions] == ["first", "second"]
    assert [one["reason"] for one in sessions] == ["time budget", ""]
    assert [one["exit_code"] for one in sessions] == [0, 130]
    assert [one["journal_bytes"] for one in sessions] == [8, 8]
    assert bench.record["notes"] == []
    assert bench.record["command"] == "first"
    # New options are kept once a search is described with them.
    assert bench.record["options"]["command"] == "first"
    assert not list(bench.run_dir.glob(".*"))


@pytest.mark.parametrize(
    ("scheduler", "max_epochs", "rungs"),
    [
        ("asha", 27, [1, 3, 9]),
        ("median", 27, []),
        ("pbt", 27, [3, 6, 9, 12, 15, 18, 21, 24]),
        ("pbt", 20, [3, 6, 9, 12, 15, 18]),
        ("pbt", 4, [1, 2, 3]),
        ("pbt", 1, []),
    ],
)
def test_the_record_has_the_epochs_after_which_trials_are_compared(
    bench: Bench, scheduler: str, max_epochs: int, rungs: list[int]
) -> None:
    session = bench.begin(scheduler=scheduler, max_epochs=max_epochs)
    options = replace(bench.options, scheduler=scheduler, max_epochs=max_epochs)
    job = Job(options, bench.plan, Places(1, 0.5, 1), bench.run_dir, Shards(str(bench.folder), "sha256:0"))
    session.describe(job, baseline_rmse=None)
    assert bench.record["rungs"] == rungs


def test_the_seconds_of_a_session_that_was_killed_count_with_the_next(bench: Bench) -> None:
    bench.begin()
    bench.go_on().end(elapsed_s=5.0, reason="", exit_code=0, notes=[])
    assert [one["elapsed_s"] for one in bench.record["sessions"]] == [None, 5.0]


def test_nothing_has_changed_is_nothing_to_accept(bench: Bench) -> None:
    bench.begin()
    bench.go_on()
    bench.go_on(accept=True)
    assert [one["accepted_changes"] for one in bench.record["sessions"]] == [[], [], []]


def change_space(bench: Bench, _: pytest.MonkeyPatch) -> None:
    bench.space = write_space(bench.folder, "a", SPACE.replace("1e-4, 1e-1", "1e-3, 1e-1"))


def change_data(bench: Bench, _: pytest.MonkeyPatch) -> None:
    bench.manifest = make_manifest("1")


def change_code(_: Bench, patch: pytest.MonkeyPatch) -> None:
    digests = {**module.code_digests(), "search/rungs.py": "0" * 16}
    patch.setattr(module, "code_digests", lambda: digests)


def change_fixed(bench: Bench, _: pytest.MonkeyPatch) -> None:
    bench.fixed = {"lr": 0.01}


def change_versions(_: Bench, patch: pytest.MonkeyPatch) -> None:
    versions = {**module.package_versions(), "optuna": "0.1"}
    patch.setattr(module, "package_versions", lambda: versions)


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        (
            change_space,
            [
                "space a:",
                '-        learning_rate=trial.suggest_float("lr", 1e-4, 1e-1, log=True),',
                '+        learning_rate=trial.suggest_float("lr", 1e-3, 1e-1, log=True),',
            ],
        ),
        (change_data, [" then, ", "data: digest "]),
        (change_code, ["code: search/rungs.py"]),
        (change_fixed, ["what of space a is fixed: {} then, {'lr': 0.01} now"]),
        (change_versions, ["versions: optuna ", " -> 0.1"]),
    ],
)
def test_a_change_is_refused_with_what_it_is_and_then_accepted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: Any, lines: list[str]
) -> None:
    bench.begin().end(elapsed_s=1.0, reason="", exit_code=0, notes=[])
    before = (bench.run_dir / RECORD).read_bytes()
    change(bench, monkeypatch)
    with pytest.raises(RunError, match=r"not as it was left, .* --accept-changes goes on all the same") as refusal:
        bench.go_on()
    assert all(line in str(refusal.value) for line in lines)
    assert (bench.run_dir / RECORD).read_bytes() == before
    assert (bench.run_dir / "spaces" / "a.py").read_text() == SPACE
    bench.go_on(accept=True)
    accepted = "\n".join(bench.record["sessions"][1]["accepted_changes"])
    assert all(line in accepted for line in lines)
    # What was accepted once is how the run is now.
    bench.go_on()
    assert (bench.run_dir / "spaces" / "a.py").read_text() == bench.space.path.read_text()


def test_code_that_decides_nothing_is_no_change() -> None:
    names = module.code_digests().keys()
    assert {"search/account.py", "search/samplers.py", "galaxy_models/training/loop.py"} <= names
    assert not {"search/monitor.py", "search/run.py", "search/journal.py"} & names


def test_a_further_space_is_no_change(bench: Bench) -> None:
    bench.begin()
    plan = bench.plan
    both = replace(plan, spaces={**plan.spaces, "b": write_space(bench.folder, "b", FOUR)})
    Session.begin(bench.run_dir, replace(bench.options, resume=bench.run_dir), both, Console(quiet=True))
    assert sorted(bench.record["spaces"]) == ["a", "b"]
    assert (bench.run_dir / "spaces" / "b.py").read_text() == FOUR


def test_a_journal_that_was_copied_by_halves_is_refused(bench: Bench) -> None:
    bench.begin().end(elapsed_s=1.0, reason="", exit_code=0, notes=[])
    journal = bench.run_dir / "study.journal"
    journal.write_bytes(b"1234567")
    with pytest.raises(RunError, match=r"study\.journal: 7 bytes, expected at least 8: copy the run's folder again"):
        bench.go_on()
    # Longer is what a session that was killed leaves.
    journal.write_bytes(b"123456789")
    bench.go_on()
    journal.unlink()
    with pytest.raises(RunError, match=r"no study\.journal in it, expected that of the run"):
        bench.go_on()


def copy(bench: Bench, size: int | None = None) -> None:
    """Let the run's folder be a copy, of which the journal has only so many bytes."""
    shutil.copytree(bench.run_dir, bench.folder / "copy")
    shutil.rmtree(bench.run_dir)
    (bench.folder / "copy").rename(bench.run_dir)
    if size is not None:
        os.truncate(bench.run_dir / "study.journal", size)


def test_a_killed_run_that_was_copied_by_halves_is_refused(bench: Bench) -> None:
    bench.run_dir.mkdir()
    Session.begin(bench.run_dir, bench.options, bench.plan, Console(quiet=True))
    ledger = make_ledger(bench.run_dir, names="a")
    ledger.start("0")
    ledger.report("0", epoch(1, 0.5))
    size = (bench.run_dir / "study.journal").stat().st_size
    copy(bench)
    bench.go_on()
    for less in (size - 1, size // 2, 0):
        copy(bench, less)
        with pytest.raises(RunError, match=rf"study\.journal: {less:,} bytes, expected at least {size:,}: copy the "):
            bench.go_on()
    # Whether it was all can be told only by what says so.
    for spoil in (lambda path: os.truncate(path, 30), Path.unlink):
        copy(bench, size)
        spoil(bench.run_dir / "study.size")
        with pytest.raises(RunError, match=r"study\.size: .*, expected the size of study\.journal: copy the run's"):
            bench.go_on()


def test_what_a_storage_has_not_of_a_journal_is_not_missed(bench: Bench) -> None:
    bench.begin(storage="s3://bucket/runs")
    (bench.run_dir / "study.size").unlink()
    bench.go_on()


def test_the_longest_journal_that_was_known_counts(tmp_path: Path) -> None:
    (tmp_path / "study.journal").write_bytes(b"12345")
    check_whole(tmp_path, [{"journal_bytes": 5}, {"journal_bytes": None}, {}])
    with pytest.raises(RunError, match="expected at least 6"):
        check_whole(tmp_path, [{"journal_bytes": 6}, {"journal_bytes": 2}])


def test_a_runs_folder_is_named_after_the_survey_and_never_taken_twice(bench: Bench) -> None:
    options = replace(bench.options, runs_dir=bench.folder / "runs")
    made = create_run_dir(options, bench.plan)
    assert made.parent == bench.folder / "runs"
    assert made.name.startswith("my-survey-20")
    create_run_dir(replace(options, name="mine"), bench.plan)
    with pytest.raises(RunError, match="mine exists already, expected a new folder: choose another name"):
        create_run_dir(replace(options, name="mine"), bench.plan)


def test_the_record_is_one_json_file(bench: Bench) -> None:
    bench.begin()
    record = json.loads((bench.run_dir / RECORD).read_text())
    assert record["name"] == "run"
    assert record["survey"]["digest"] == bench.manifest.digest
    assert record["spaces"]["a"]["digest"] == bench.space.digest


def test_a_run_that_is_killed_before_its_first_trial_can_go_on(bench: Bench) -> None:
    bench.run_dir.mkdir()
    Session.begin(bench.run_dir, bench.options, bench.plan, Console(quiet=True))
    assert (bench.run_dir / "study.journal").read_bytes() == b""
    bench.go_on()


def test_another_task_is_refused_also_where_changes_are_accepted(bench: Bench) -> None:
    bench.begin()
    bench.manifest = replace(make_manifest("1"), task=Task("classes", ("x", "z")))
    with pytest.raises(RunError, match=r"classes x, z, expected those of the run, classes x, y: .* begin a new run"):
        bench.go_on(accept=True)


def test_what_the_report_needs_stays_until_a_session_has_its_own(bench: Bench) -> None:
    bench.begin()
    save_record(bench.run_dir, {**bench.record, "objective": "nll"})
    bench.go_on()
    assert bench.record["objective"] == "nll"
