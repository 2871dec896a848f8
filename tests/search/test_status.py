"""`python -m search.status`: what it makes of a run's folder, at every stage of a run and of its copies."""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from two_spaces import epoch, make_ledger

from search.entry import Entry
from search.errors import RunError
from search.forecast import forecast
from search.journal import JOURNAL
from search.live_file import LIVE, Live, Node, RunningTrial, save_live
from search.lock import LOCK, RunLock
from search.mirror import segment_name
from search.options import SearchOptions
from search.progress import read_progress
from search.status import clock, main

START = 1_700_000_000.0
OPTIONS = SearchOptions(spaces=(Path("a.py"), Path("b.py")), num_trials=3, max_epochs=2, price_per_hour=36.0)
LIVE_NOW = Live(
    written=START + 20,
    ended=False,
    elapsed_s=16.0,
    before_s=0.0,
    num_places=2,
    cpus_per_trial=2,
    gpus_per_trial=0.5,
    nodes=(
        Node(name="one", address="10.0.0.1", cpus=4, gpus=1, alive=True),
        Node(name="two", address="10.0.0.2", cpus=0, gpus=0, alive=False),
    ),
    running=(RunningTrial(backbone="b", trial=0, address="10.0.0.1", since=START + 8, told=START + 16),),
)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Of space `a` one trial is done, one stopped and one failed, of `b` one runs: four epochs of 2 s each."""
    ledger = make_ledger(tmp_path, max_epochs=2)
    ledger.elapsed_s = lambda: 15.0
    for key in ("a0", "b0", "a1"):
        ledger.start(key)
    ledger.report("a0", epoch(1, 0.5))
    ledger.report("a0", epoch(2, 0.25))
    ledger.report("b0", epoch(1, 0.75))
    ledger.report("a1", epoch(1, 0.9))
    ledger.finish("a1", "stopped", "stopped by hand")
    account = ledger.accounts["a"]
    entry = account.ask(3)
    assert entry is not None
    account.finish(entry, "failed", "boom")
    ledger.commit(durable=True)
    write_record(tmp_path)
    save_live(tmp_path, LIVE_NOW)
    (tmp_path / LOCK).write_text("process 12 on elsewhere\n")
    return tmp_path


def write_record(run_dir: Path, *, ended: float | None = None, reason: str = "", **more: Any) -> None:
    session = {"command": "", "started": iso(START), "ended": iso(ended) if ended else "", "elapsed_s": None,
               "reason": reason, "exit_code": None, "journal_bytes": None}  # fmt: skip
    record = {"schema_version": 1, "options": OPTIONS.to_json(), "survey": {}, "spaces": {"a": {}, "b": {}},
              "code": {}, "sessions": [session], "objective": "nll", "direction": "min", "threads": 2,
              "gpus_per_trial": 0.5}  # fmt: skip
    record |= more
    (run_dir / "run.json").write_text(json.dumps({key: one for key, one in record.items() if one is not None}))


def test_counts_best_values_and_what_was_spent(run_dir: Path) -> None:
    found = read_progress(run_dir, now=START + 21)
    assert found.state == "searching"
    first, second = found.backbones
    assert (first.running, first.stopped, first.done, first.failed, first.of) == (0, 1, 1, 1, 3)
    assert (first.best, first.best_epoch, first.best_trial) == (0.25, 2, 0)
    assert (second.running, second.stopped, second.done, second.failed) == (1, 0, 0, 0)
    assert (second.best, second.best_epoch, second.best_trial) == (0.75, 1, 0)
    # One second more than the driver knew of; four epochs of 2 s on half a GPU.
    assert found.spent.elapsed_s == 17
    assert (found.spent.epochs, found.spent.unit) == (4, "GPU")
    assert found.spent.hours == pytest.approx(4 * 2 * 0.5 / 3600)
    assert found.spent.cost == pytest.approx(36 * 21 / 3600)
    # Two places for 16 s, less the 4 s that the running trial has not told of: 8 s of 28 trained.
    assert found.training_share == pytest.approx(8 / 28)
    # A trial takes (4 + 2 + 0) / 3 s on average; one runs and was trained for that long, two are to come, two at once.
    assert found.end is not None
    assert found.end.seconds == pytest.approx(2.0)
    assert found.end.assumption == "if the 3 trials to end take as long as the 3 that have ended"


def test_what_earlier_sessions_trained_is_no_work_of_this_one(run_dir: Path) -> None:
    save_live(run_dir, replace(LIVE_NOW, before_s=15.0, elapsed_s=30.0))
    assert read_progress(run_dir, now=START + 21).training_share is None


def test_sessions_that_were_killed_count_as_the_record_says(run_dir: Path) -> None:
    write_record(run_dir)
    (last,) = json.loads((run_dir / "run.json").read_text())["sessions"]
    write_record(run_dir, sessions=[{**last, "started": iso(START - 5000), "elapsed_s": 1000.0}, last])
    (run_dir / LIVE).unlink()
    spent = read_progress(run_dir, now=START + 21).spent
    # The second has done nothing yet.
    assert (spent.elapsed_s, spent.whole_s) == (1000.0, 1000.0 + 21)


def test_a_trial_that_failed_is_never_the_best(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", max_epochs=2)
    for key, value in (("0", 0.5), ("1", 0.1)):
        ledger.start(key)
        ledger.report(key, epoch(1, value))
    write_record(tmp_path)
    assert read_progress(tmp_path).backbones[0].best_trial == 1
    ledger.finish("1", "failed", "diverged")
    assert read_progress(tmp_path).backbones[0].best_trial == 0


def test_of_a_population_those_that_wait_do_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = make_ledger(tmp_path, names="a", scheduler="pbt", population=2, num_trials=2, max_epochs=2)
    for key, value in (("0", 0.5), ("1", 0.9)):
        ledger.start(key)
        ledger.report(key, epoch(1, value))
    ledger.start("2")
    ledger.commit(durable=True)
    asked = replace(OPTIONS, scheduler="pbt", num_trials=2)
    write_record(tmp_path, spaces={"a": {}}, options=asked.to_json())
    runs = RunningTrial(backbone="a", trial=2, address="10.0.0.1", since=START + 8, told=START + 16)
    save_live(tmp_path, replace(LIVE_NOW, running=(runs,)))
    with RunLock(tmp_path):
        (found,) = read_progress(tmp_path, now=START + 21).backbones
        # Two, and the one that took the worse one's place.
        assert (found.running, found.waiting, found.stopped, found.of) == (1, 1, 1, 3)
        assert main([str(tmp_path)]) == 0
    # Nobody waits for others where nobody runs.
    (found,) = read_progress(tmp_path, now=START + 21).backbones
    assert (found.running, found.waiting) == (2, 0)
    assert "waiting" in capsys.readouterr().out


def told_elsewhere(run_dir: Path) -> None:
    """As it is."""


def killed_here(run_dir: Path) -> None:
    (run_dir / LOCK).write_text(f"process 12 on {platform.node()}\n")


def ended_in_order(run_dir: Path) -> None:
    write_record(run_dir, ended=START + 21)


def ended_early(run_dir: Path) -> None:
    write_record(run_dir, ended=START + 21, reason="time budget")


def trials_over(run_dir: Path) -> None:
    save_live(run_dir, replace(LIVE_NOW, ended=True, running=()))


def before_the_first_trial(run_dir: Path) -> None:
    (run_dir / LIVE).unlink()


def of_an_earlier_session(run_dir: Path) -> None:
    save_live(run_dir, replace(LIVE_NOW, written=START - 100))


@pytest.mark.parametrize(
    ("change", "age_s", "state", "words"),
    [
        (told_elsewhere, 21, "searching", "searching; last sign of life 1 s ago\n         process 12 on elsewhere\n"),
        (told_elsewhere, 200, "silent", "no sign of life for 3 min from\n         process 12 on elsewhere, which"),
        (killed_here, 21, "dead", "not running: killed, last sign of life 1 s ago"),
        (ended_in_order, 3621, "ended", "ended 1 h ago: nothing was left to do"),
        (ended_early, 3621, "ended", "ended 1 h ago: time budget\n         go on with\n"),
        (trials_over, 21, "final", "trials are over; final training or report under way"),
        (before_the_first_trial, 21, "preparing", "preparing: no trial has begun in this session"),
        (of_an_earlier_session, 21, "preparing", "preparing: no trial has begun in this session"),
    ],
)
def test_whether_it_lives_and_what_to_do_if_not(
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    change: Callable[[Path], None],
    age_s: float,
    state: str,
    words: str,
) -> None:
    change(run_dir)
    monkeypatch.setattr("search.progress.time.time", lambda: START + age_s)
    monkeypatch.setattr("search.status.time.time", lambda: START + age_s)
    assert read_progress(run_dir).state == state
    assert main([str(run_dir)]) == 0
    text = capsys.readouterr().out
    assert f"state    {words}" in text
    assert (f"python -m search.run --resume {run_dir}" in text) == (
        state in ("silent", "dead") or change is ended_early
    )
    assert ("end      " in text) == (state == "searching")


def test_a_lock_that_is_held_says_more_than_an_old_file(run_dir: Path) -> None:
    with RunLock(run_dir):
        found = read_progress(run_dir, now=START + 9999)
        assert found.state == "searching"
        assert found.silent_s == 9979
    # It ended with this process, which never wrote an end.
    assert read_progress(run_dir, now=START + 21).state == "dead"


def test_the_page_fits_a_terminal_and_names_the_nodes(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.progress.time.time", lambda: START + 21)
    monkeypatch.setattr("search.status.time.time", lambda: START + 21)
    assert main([str(run_dir)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines[1:]) <= 80
    assert "nodes    1 of 2 alive, 1 of 2 places busy" in lines
    assert "         reserved: 2 of 4 CPUs, 0.5 of 1 GPUs" in lines
    place = lines.index("         one (10.0.0.1), 4 CPUs, 1 GPUs")
    assert lines[place + 1 : place + 3] == ["           b 0 for 13 s", "         two (10.0.0.2), gone"]
    assert "workers  29% of their time in this session went into training" in lines
    assert "spent    17 s of search, 4 epochs, 0.00 GPU-hours" in lines
    assert "cost     0.21 at 36 an hour, for 21 s in all" in lines


def test_json_has_the_same(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backbones"][0]["best"] == 0.25
    assert found["live"]["nodes"][0]["address"] == "10.0.0.1"
    assert found["state"] == "silent"


def test_a_run_before_its_first_epoch(tmp_path: Path) -> None:
    (tmp_path / "study.journal").touch()
    write_record(tmp_path, objective=None, direction=None)
    with RunLock(tmp_path):
        found = read_progress(tmp_path, now=START + 1)
    assert (found.state, found.objective, found.end, found.training_share) == ("preparing", "", None, None)
    assert [(one.name, one.running, one.best) for one in found.backbones] == [("a", 0, None), ("b", 0, None)]
    assert (found.spent.epochs, found.spent.elapsed_s, found.spent.whole_s) == (0, 0, 1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "run.json").unlink(), r"no run\.json in it, expected a run's folder"),
        (lambda folder: (folder / "run.json").write_text("{"), r"run\.json: JSONDecodeError.*copy the run's folder"),
        (lambda folder: write_record(folder, schema_version=9), "schema version 9, expected 1: use the version"),
        (lambda folder: (folder / "study.journal").unlink(), r"study\.journal: no such file, expected the journal"),
        (lambda folder: write_record(folder, sessions=[]), "IndexError.*in its record or journal, expected those"),
        (lambda folder: write_record(folder, objective="rmse"), "KeyError.'val_rmse'.*copy the run's folder again"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named(
    run_dir: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], object], words: str
) -> None:
    spoil(run_dir)
    with pytest.raises(RunError, match=words):
        read_progress(run_dir)
    assert main([str(run_dir)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {run_dir}")


@pytest.mark.parametrize(
    ("options", "seconds", "words"),
    [
        # 97 trials of 10 s each are due, and 6 s of the one that runs, on two places.
        ({}, (97 * 10 + 6) / 2, "if the 98 trials to end take as long as the 2 that have ended"),
        ({"time_budget_s": 300.0}, 270.0, "when the time budget is spent"),
        ({"time_budget_s": 9000.0}, 488.0, "if the 98 trials"),
        # 12 epochs of 2 s are done.
        ({"epoch_budget": 112}, 100.0, "when the epoch budget is spent, if epochs take as long as so far"),
        ({"gpu_hours": 0.01}, (36 / 0.5 - 24) / 2, "when the GPU-hours are spent, if no GPU has to wait"),
        ({"time_budget_s": 10.0}, 0.0, "when the time budget is spent"),
    ],
)
def test_the_end_is_expected_where_the_first_bound_is_reached(
    options: dict[str, Any], seconds: float, words: str
) -> None:
    def trial(number: int, epochs: int, outcome: Any) -> Entry:
        return Entry("a", number, number, {}, {}, epochs=epochs, seconds=2.0 * epochs, outcome=outcome)

    entries = {"a": [trial(0, 7, "complete"), trial(1, 3, "stopped"), trial(2, 2, None)]}
    asked = replace(OPTIONS, num_trials=100, **options)
    found = forecast(entries, asked, num_places=2, gpus_per_trial=0.5, elapsed_s=30.0)
    assert found.seconds == pytest.approx(seconds)
    assert found.assumption.startswith(words)
    nothing = forecast({"a": [trial(0, 2, None)]}, OPTIONS, num_places=2, gpus_per_trial=0.0, elapsed_s=30.0)
    assert (nothing.seconds, nothing.assumption) == (None, "not known before the first trial has ended")


def test_of_a_population_the_epochs_to_come_are_known() -> None:
    def trial(number: int, epochs: int, outcome: Any = None, after: int = 0) -> Entry:
        seconds = 2.0 * (epochs - after)
        values = {"epochs": epochs, "seconds": seconds, "outcome": outcome, "branched_after": after}
        return Entry("a", number, number, {}, {}, **values)

    # Eight epochs of the 24 that two spaces' populations of three take at four epochs each.
    entries = {"a": [trial(0, 2), trial(1, 1, "stopped"), trial(2, 2), trial(3, 2, after=1)], "b": [trial(0, 2)]}
    asked = replace(OPTIONS, scheduler="pbt", num_trials=3, max_epochs=4)
    found = forecast(entries, asked, num_places=2, gpus_per_trial=0.0, elapsed_s=30.0)
    assert found.seconds == pytest.approx(16 * 2.0 / 2)
    assert found.assumption == "if the 16 epochs to come take as long as those so far"
    begun = forecast({"a": [trial(0, 0)]}, asked, num_places=2, gpus_per_trial=0.0, elapsed_s=30.0)
    assert (begun.seconds, begun.assumption) == (None, "not known before the first epoch has ended")


def test_a_trial_that_is_run_again_takes_the_place_of_none_that_is_due() -> None:
    def trial(number: int, outcome: Any, rerun_of: int | None = None) -> Entry:
        return Entry("a", number, number, {}, {}, epochs=1, seconds=10.0, outcome=outcome, rerun_of=rerun_of)

    entries = {"a": [trial(0, "stopped"), trial(1, None, rerun_of=0)]}
    # Two of three are due; the one that runs has had its ten seconds.
    found = forecast(entries, OPTIONS, num_places=1, gpus_per_trial=0.0, elapsed_s=30.0)
    assert found.seconds == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (356_400, "4 d 3 h")],
)
def test_a_duration_in_words(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_run_in_a_storage_is_told_by_its_own_name(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept" / "a"
    for path, name in ((run_dir / "run.json", "run.json"), (run_dir / JOURNAL, segment_name(0))):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(path.read_bytes())
    assert main([kept.as_uri()]) == 0
    out = capsys.readouterr().out
    assert f"run      {kept.as_uri()}\n" in out
    assert f"python -m search.run --resume {kept.as_uri()}\n" in out
