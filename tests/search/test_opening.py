"""What a search says before its trials."""

from pathlib import Path

import pytest
from population_places import MIXED, Places, make
from two_spaces import FOUR, epoch, make_ledger

from search.opening import _so_far


@pytest.mark.parametrize(("num_epochs", "ended", "left"), [(3, 0, 3), (4, 0, 4), (5, 1, 4)])
def test_trials_of_a_population_that_wait_for_the_others_go_on(
    tmp_path: Path, num_epochs: int, ended: int, left: int
) -> None:
    places = Places(make(tmp_path, size=4, text=MIXED), 1)
    for _ in range(num_epochs):
        places.step()
    assert _so_far(make(tmp_path, size=4, text=MIXED)) == [
        f"goes on  {ended} trials have ended, {left} go on, {num_epochs} epochs were trained"
    ]


def test_a_trial_that_waits_for_the_result_of_another_does_not_go_on(tmp_path: Path) -> None:
    options = {"names": "a", "text": FOUR, "num_trials": 6, "scheduler": "none"}
    ledger = make_ledger(tmp_path, **options)
    assert _so_far(ledger) == []
    begun = [ledger.start(str(number)) for number in range(5)]
    # Four configurations there are; others of the six wait.
    assert [entry is not None for entry in begun] == [True] * 4 + [False]
    ledger.report("0", epoch(1, 0.5))
    assert _so_far(make_ledger(tmp_path, **options)) == ["goes on  0 trials have ended, 4 go on, 1 epochs were trained"]
