"""What the terminal shows."""

from pathlib import Path

import pytest
from rich.console import Console
from two_spaces import epoch, make_ledger

from search.monitor import Monitor, clock


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3661, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_table_counts_trials_by_backbone_and_names_the_best(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, num_trials=9)
    for key, value in (("0", 0.5), ("1", 0.25), ("2", 0.75), ("3", 0.9)):
        ledger.start(key, "a")
        ledger.record(key, epoch(1, value))
    ledger.finished("0")
    ledger.finish("2", "failed", "diverged")
    ledger.finish("3", "complete", "all 9 epochs")
    console = Console(record=True, width=120, quiet=True)
    console.quiet = False
    with console.capture() as captured:
        console.print(Monitor(ledger, 2, 600.0, console).render())
    text = captured.get()
    row = next(line for line in text.splitlines() if line.strip("│| ").startswith("a "))
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["a", "1", "1", "1", "1", "9", "0.2500", "1", "1"]
    assert "about" in text


def test_remaining_time_is_the_nearer_of_budget_and_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = make_ledger(tmp_path, num_trials=10)
    now = [0.0]
    monkeypatch.setattr("search.monitor.time.monotonic", lambda: now[0])
    monitor = Monitor(ledger, 1, None, Console(quiet=True))
    assert monitor.remaining_s() is None
    ledger.start("0", "a")
    ledger.record("0", epoch(1, 0.5))
    ledger.finished("0")
    now[0] = 10.0
    # One of 20 trials took 10 s.
    assert monitor.remaining_s() == pytest.approx(190)
    bounded = Monitor(ledger, 1, 60.0, Console(quiet=True))
    now[0] = 20.0
    assert bounded.remaining_s() == pytest.approx(50)


def test_without_a_terminal_each_end_is_a_line(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    entry = ledger.start("0", "a")
    ledger.record("0", epoch(1, 0.5))
    ledger.finished("0")
    line = Monitor(ledger, 1, None, Console(quiet=True)).line(entry)
    assert "1/6 a trial 0: stopped by ASHA after epoch 1; val_nll 0.5000 in epoch 1; best 0.5000 (trial 0)" in line
