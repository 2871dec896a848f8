"""What the terminal shows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from two_spaces import epoch, make_ledger

from search.ledger import Ledger
from search.live_file import Node
from search.monitor import Monitor, clock
from search.recorder import Recorder


def make_monitor(ledger: Ledger, folder: Path, *, places: int = 1, budget_s: float | None = None) -> Monitor:
    console = Console(width=120)
    return Monitor(ledger, Recorder(ledger, folder, keep_top=1, say=print), lambda: places, budget_s, console)


def _row(monitor: Monitor) -> str:
    """The live table's line of the space `a`."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(monitor.render())
    return next(line for line in capture.get().splitlines() if line.strip("│| ").startswith("a "))


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3661, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_table_counts_trials_by_backbone_and_names_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=9, max_epochs=2)
    for key in "0123":
        ledger.start(key)
    for key, value in (("0", 0.5), ("1", 0.25), ("2", 0.75), ("3", 0.2)):
        ledger.report(key, epoch(1, value))
    ledger.report("0", epoch(2, 0.6))
    ledger.finish("3", "failed", "diverged")
    monitor = make_monitor(ledger, tmp_path, budget_s=600.0)
    # Running, stopped, done, failed, of; the best value, its epoch, its trial.
    cells = [cell.strip() for cell in _row(monitor).strip("│").split("│")]
    assert cells == ["a", "1", "1", "1", "1", "9", "0.2500", "1", "1"]
    Console(width=120).print(monitor.render())
    assert "left" in capsys.readouterr().out


def test_remaining_time_is_the_nearer_of_budget_and_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make_ledger(tmp_path, num_trials=10, max_epochs=1)
    now = [0.0]
    monkeypatch.setattr("search.monitor.time.monotonic", lambda: now[0])
    monitor, bounded = make_monitor(ledger, tmp_path), make_monitor(ledger, tmp_path, budget_s=60.0)
    assert monitor.remaining_s() is None
    assert bounded.remaining_s() == 60.0
    ledger.start("0")
    ledger.report("0", epoch(1, 0.5))
    now[0] = 10.0
    # One of 20 trials took 10 s.
    assert monitor.remaining_s() == pytest.approx(190)
    now[0] = 15.0
    assert monitor.remaining_s() == pytest.approx(185)
    assert bounded.remaining_s() == pytest.approx(45)
    now[0] = 99.0
    assert bounded.remaining_s() == 0.0


def test_trials_of_earlier_sessions_do_not_make_this_one_look_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_ledger(tmp_path, num_trials=10, max_epochs=1)
    for number in range(8):
        before.start(str(number))
        before.report(str(number), epoch(1, 0.5))
    now = [0.0]
    monkeypatch.setattr("search.monitor.time.monotonic", lambda: now[0])
    ledger = make_ledger(tmp_path, num_trials=10, max_epochs=1)
    monitor = make_monitor(ledger, tmp_path)
    ledger.start("x")
    ledger.report("x", epoch(1, 0.5))
    now[0] = 10.0
    # One of the 12 that were left took 10 s.
    assert monitor.remaining_s() == pytest.approx(110)


def tell(monitor: Monitor, ledger: Ledger, key: str, *values: float) -> Any:
    ledger.start(key)
    trial = SimpleNamespace(trial_id=key)
    monitor.on_trial_start(0, [], trial)  # type: ignore[arg-type]
    for number, value in enumerate(values, 1):
        ledger.report(key, epoch(number, value))
    return trial


def test_without_a_terminal_each_end_is_a_line_and_what_goes_on_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=6)
    with make_monitor(ledger, tmp_path) as monitor:
        first = tell(monitor, ledger, "0", 0.9)
        second = tell(monitor, ledger, "1", 0.95)
        third = tell(monitor, ledger, "2")
        ledger.finish("2", "failed", "RuntimeError: [boom]")
        monitor.on_trial_complete(0, [], second)
        monitor.on_trial_complete(0, [], second)
        monitor.on_trial_error(0, [], third)
        monitor.on_trial_complete(0, [], first)
    assert capsys.readouterr().out.splitlines() == [
        "[0:00] 2/6 a trial 1: stopped by asha after epoch 1; val_nll 0.9500 in epoch 1; best 0.9000 (trial 0)",
        "[0:00] 2/6 a trial 2: RuntimeError: [boom]; best 0.9000 (trial 0)",
    ]


def test_a_trial_before_any_value(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    entry = ledger.start("0")
    assert entry is not None
    ledger.finish("0", "failed", "boom")
    assert make_monitor(ledger, tmp_path).line(entry).endswith("1/3 a trial 0: boom; no value yet")


def test_nodes_have_a_line_where_there_are_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger, console = make_ledger(tmp_path, names="a"), Console(width=120)
    nodes = [Node(name="x", address=f"10.0.0.{i}", cpus=2, gpus=0, alive=i < 2) for i in range(3)]
    recorder = Recorder(ledger, tmp_path, keep_top=1, say=print)
    for shown in (nodes, nodes[:1]):
        monitor = Monitor(ledger, recorder, lambda: 4, None, console, nodes=lambda shown=shown: shown)  # type: ignore[misc]
        if not ledger.live:
            tell(monitor, ledger, "0")
        console.print(monitor.render())
    several, one = capsys.readouterr().out.split("elapsed")[1:]
    assert several.splitlines()[1].rstrip() == "nodes 2 of 3 alive, 1 of 4 places busy"
    assert "nodes" not in one


def go_on(monitor: Monitor) -> None:
    """Let the next trial begin, whichever it is."""
    trial = SimpleNamespace(trial_id="next")
    monitor._ledger.start("next")
    monitor._recorder.on_trial_start(0, [], trial)  # type: ignore[arg-type]
    monitor.on_trial_start(0, [], trial)  # type: ignore[arg-type]


def test_trials_that_make_way_while_nobody_runs_them_are_told_of_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = make_ledger(tmp_path, names="a", scheduler="pbt", population=4, num_trials=4)
    monitor = make_monitor(ledger, tmp_path)
    trials = [SimpleNamespace(trial_id=key) for key in "0123"]
    for trial, value in zip(trials, (0.9, 0.4, 0.5, 0.6), strict=True):
        ledger.start(trial.trial_id)
        monitor._recorder.on_trial_start(0, [], trial)  # type: ignore[arg-type]
        monitor.on_trial_start(0, [], trial)  # type: ignore[arg-type]
        ledger.report(trial.trial_id, epoch(1, value))
        monitor.on_trial_complete(0, [], trial)  # type: ignore[arg-type]
    go_on(monitor)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "a trial 0: replaced after epoch 1 by trial 4, which goes on from 1; val_nll 0.9000 in epoch 1" in said[0]
    assert len(ledger.accounts["a"].live) == 4
    cells = [cell.strip() for cell in _row(monitor).strip("│").split("│")]
    # Of the four one runs; a fifth went on from another.
    assert cells[:6] == ["a", "1", "1", "0", "0", "5"]


def test_a_trial_that_makes_way_itself_is_told_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = make_ledger(tmp_path, names="a", scheduler="pbt", population=2, num_trials=2)
    monitor = make_monitor(ledger, tmp_path)
    trials = [SimpleNamespace(trial_id=key) for key in "01"]
    for trial, value in zip(trials, (0.4, 0.9), strict=True):
        ledger.start(trial.trial_id)
        monitor._recorder.on_trial_start(0, [], trial)  # type: ignore[arg-type]
        monitor.on_trial_start(0, [], trial)  # type: ignore[arg-type]
        ledger.report(trial.trial_id, epoch(1, value))
    monitor.on_trial_complete(0, [], trials[0])  # type: ignore[arg-type]
    go_on(monitor)
    # Its end as Tune has it may come after that.
    monitor.on_trial_complete(0, [], trials[1])  # type: ignore[arg-type]
    said = capsys.readouterr().out.splitlines()
    assert ["trial 1: replaced" in line for line in said] == [True]


def test_remaining_time_of_a_population_goes_by_its_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make_ledger(tmp_path, names="a", scheduler="pbt", population=4, num_trials=4, max_epochs=3)
    now = [0.0]
    monkeypatch.setattr("search.monitor.time.monotonic", lambda: now[0])
    monitor = make_monitor(ledger, tmp_path)
    assert monitor.remaining_s() is None
    for key in "01":
        ledger.start(key)
        ledger.report(key, epoch(1, 0.5))
    now[0] = 10.0
    # Two of twelve epochs took 10 s.
    assert monitor.remaining_s() == pytest.approx(50)
