"""Why a whole search ends."""

import pytest

from search.stopper import SearchStopper


def test_a_signal_comes_before_a_fault_before_the_clock_before_other_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    faults: list[Exception] = []
    received: list[int] = []
    spent, now = [""], [100.0]
    monkeypatch.setattr("search.stopper.time.monotonic", lambda: now[0])
    stopper = SearchStopper(
        budget_s=10.0, received=received, fault=lambda: faults[0] if faults else None, spent=lambda: spent[0]
    )
    reasons = []
    for change in (
        lambda: None,
        lambda: spent.__setitem__(0, "epoch budget: 5 of 5 epochs"),
        lambda: now.__setitem__(0, 110.0),
        lambda: faults.append(ValueError("boom")),
        lambda: received.append(15),
    ):
        change()
        reasons.append((stopper.stop_all(), stopper.reason))
    assert reasons == [
        (False, ""),
        (True, "epoch budget: 5 of 5 epochs"),
        (True, "time budget"),
        (True, "an error: boom"),
        (True, "interrupted"),
    ]
    assert not stopper("any", {})
    assert stopper.__getstate__() == {}


def test_without_a_budget_the_clock_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("search.stopper.time.monotonic", lambda: now[0])
    stopper = SearchStopper(budget_s=None, received=[], fault=lambda: None, spent=lambda: "")
    now[0] = 1e12
    assert not stopper.stop_all()
