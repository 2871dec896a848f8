"""A race between spaces: rounds, who leaves, and what each space has had before it may."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from two_spaces import FOUR, SPACE, epoch, make_ledger

from search.ledger import DROPPED, Ledger


def run_race(
    ledger: Ledger, *, seed: int, places: int, quality: dict[str, float], failing: float = 0.0
) -> dict[str, dict[str, int]]:
    """Run a race with values and failures at random; says how many trials of each outcome a space had when it left."""
    rng, running, left, number = np.random.default_rng(seed), [], {}, 0
    while True:
        while len(running) < places and (entry := ledger.start(str(number))) is not None:
            running.append(str(number))
            number += 1
        for name, account in ledger.accounts.items():
            if DROPPED in account.study.user_attrs:
                left.setdefault(name, dict(account.counts))
        if not running:
            assert ledger.finished
            return left
        key = running[int(rng.integers(len(running)))]
        entry = ledger.live[key]
        if rng.uniform() < failing:
            ledger.finish(key, "failed", "diverged")
        else:
            ledger.report(key, epoch(entry.epochs + 1, quality[entry.space] + rng.uniform(0, 0.5)))
        if key not in ledger.live:
            running.remove(key)


def test_the_worse_half_leaves_after_each_round_and_the_best_gets_most(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="abcd", share="race", num_trials=12, min_complete=1)
    left = run_race(ledger, seed=0, places=1, quality={"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0})
    # 48 trials in three rounds of 16: 4 each, 8 more for each of two, 16 more for the last.
    assert {name: account.started for name, account in ledger.accounts.items()} == {"a": 4, "b": 28, "c": 12, "d": 4}
    assert sorted(left) == ["a", "c", "d"]
    assert "a left the race after 4 trials, its best value being 3." in ledger.left_race["a"]


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    seed=st.integers(0, 10**6),
    places=st.integers(1, 3),
    num_spaces=st.integers(2, 4),
    min_complete=st.integers(1, 3),
    num_trials=st.sampled_from([1, 2, 8]),
    text=st.sampled_from([SPACE, FOUR]),
)
def test_no_space_leaves_before_it_had_its_complete_trials(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    places: int,
    num_spaces: int,
    min_complete: int,
    num_trials: int,
    text: str,
) -> None:
    names = "abcd"[:num_spaces]
    ledger = make_ledger(
        tmp_path_factory.mktemp("race"), names=names, text=text, sampler="random", share="race",
        num_trials=num_trials, min_complete=min_complete,
    )  # fmt: skip
    left = run_race(ledger, seed=seed, places=places, quality=dict.fromkeys(names, 0.0))
    assert len(left) == num_spaces - 1
    for name, counts in left.items():
        study = ledger.accounts[name].study
        configurations = {tuple(trial.params.values()) for trial in study.get_trials()}
        assert counts["complete"] >= min(min_complete, len(configurations)), (name, counts)


@pytest.mark.parametrize("seed", range(5))
def test_no_space_leaves_before_others_took_the_place_of_its_failed_trials(tmp_path: Path, seed: int) -> None:
    """Three trials each in the first round; they fail by chance, also those that run one again to the full length."""
    ledger = make_ledger(tmp_path, names="abc", sampler="random", share="race", num_trials=7, min_complete=3)
    left = run_race(ledger, seed=seed, places=1 + seed % 3, quality=dict.fromkeys("abc", 0.0), failing=0.06)
    failed = [counts.get("failed", 0) for counts in left.values()]
    assert 0 < max(failed) <= 7
    assert min(counts["complete"] for counts in left.values()) >= 3


def test_trials_that_failed_do_not_count_towards_a_round_but_a_space_that_always_fails_leaves(tmp_path: Path) -> None:
    """Two trials each in the first round, of which no more are replaced than there are trials a space."""
    ended = {}
    for name, fails in (("once", {0}), ("always", set(range(99)))):
        (tmp_path / name).mkdir()
        ledger = make_ledger(
            tmp_path / name, names="ab", share="race", num_trials=3, min_complete=2, max_epochs=1, sampler="random"
        )
        for key in map(str, range(99)):
            if (entry := ledger.start(key)) is None:
                break
            if entry.space == "a" and entry.number in fails:
                ledger.finish(key, "failed", "diverged")
            else:
                ledger.report(key, epoch(1, 0.9 if entry.space == "a" else 0.1))
        assert ledger.finished
        assert list(ledger.left_race) == ["a"]
        ended[name] = dict(ledger.accounts["a"].counts)
    assert ended == {"once": {"failed": 1, "complete": 2}, "always": {"failed": 5}}


def test_a_space_that_was_given_up_drops_no_other(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="ab", share="race", num_trials=4, min_complete=1, max_epochs=1)
    for number in range(20):
        entry = ledger.start(str(number))
        if entry is None:
            break
        ledger.report(str(number), epoch(1, 0.1 if entry.space == "a" else 0.5))
        if ledger.accounts["a"].started == 2:
            ledger.given_up["a"] = "a bug"
    assert ledger.left_race == {}
    assert ledger.accounts["b"].started > ledger.accounts["a"].started


def test_a_race_goes_on_where_it_was_left(tmp_path: Path) -> None:
    options = {"names": "ab", "share": "race", "num_trials": 4, "min_complete": 1, "max_epochs": 1}
    ledger = make_ledger(tmp_path, **options)
    number = 0
    while not ledger.left_race:
        entry = ledger.start(str(number))
        assert entry is not None
        if not ledger.left_race:
            ledger.report(str(number), epoch(1, 1.0 if entry.space == "a" else 2.0))
        number += 1
    again = make_ledger(tmp_path, **options)
    assert list(again.left_race) == ["b"]
    assert [again.accounts[name].started for name in "ab"] == [3, 2]
    (unfinished,) = again.accounts["a"].unfinished
    assert unfinished.number == 2


def test_a_space_that_leaves_had_its_complete_trials_at_the_length_that_trials_have_now(tmp_path: Path) -> None:
    options: dict[str, Any] = {"names": "ab", "share": "race", "num_trials": 4, "min_complete": 2, "scheduler": "none"}
    shorter = make_ledger(tmp_path, **options, max_epochs=1)
    for number in range(3):
        entry = shorter.start(str(number))
        assert entry is not None
        shorter.report(str(number), epoch(1, 1.0 + number))
    assert [account.counts["complete"] for account in shorter.accounts.values()] == [2, 1]
    longer = make_ledger(tmp_path, **options, max_epochs=3)
    run_race(longer, seed=0, places=1, quality={"a": 5.0, "b": 0.0})
    assert list(longer.left_race) == ["a"]
    assert [one.root for one in longer.accounts["a"].ranking if one.max_epochs == 3] in ([0, 1], [1, 0])
