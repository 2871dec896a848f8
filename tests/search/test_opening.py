"""What a search says before its trials."""

import re
from pathlib import Path

import pytest
from population_places import MIXED, Places, make, study_of
from two_spaces import FOUR, epoch, make_ledger

from search.opening import _sampler, _so_far


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


@pytest.mark.parametrize(
    ("sampler", "scheduler", "words"),
    [
        ("tpe", "asha", "tpe$"),
        ("gp", "none", "gp$"),
        ("gp", "asha", "gp, which learns from trials run in full only"),
        ("gp", "pbt", "gp, which learns nothing here: all trials of a population are drawn before one has ended"),
        ("tpe", "pbt", "tpe, which learns nothing here"),
        ("random", "pbt", "random$"),
    ],
)
def test_what_a_sampler_can_learn_is_said(sampler: str, scheduler: str, words: str) -> None:
    assert re.match(words, _sampler(sampler, scheduler))


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_learns_nothing_of_a_population(tmp_path: Path, sampler: str) -> None:
    drawn = []
    for name, sign in (("one", 1.0), ("other", -1.0)):
        (tmp_path / name).mkdir()
        ledger = make(tmp_path / name, size=14, text=MIXED, sampler=sampler)
        places = Places(ledger, 1, lambda number, done, sign=sign: sign * number)
        for _ in range(16):
            places.step()
        trials = study_of(ledger).get_trials()
        assert trials[14].user_attrs["parent"] in ((0, 1, 2) if sign > 0 else (11, 12, 13))
        drawn.append([trial.params for trial in trials[:14]])
    assert drawn[0] == drawn[1]
