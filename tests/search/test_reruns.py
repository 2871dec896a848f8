"""Trials that run a configuration again: finalists, and those that a new length calls for."""

from pathlib import Path

import pytest
from two_spaces import FOUR, SPACE, epoch, make_ledger, write_space

from search.errors import RunError
from search.ledger import Ledger
from search.space import probe_space
from search.study import best_params, check_compatible, load_studies


def stop_two(folder: Path, **options: int) -> Ledger:
    """Trial 0 fails with the best value; trials 1 and 2 are stopped."""
    ledger = make_ledger(folder, names="a", max_epochs=3, **options)
    ledger.start("0")
    ledger.report("0", epoch(1, 0.3))
    ledger.finish("0", "failed", "diverged")
    for key, value in (("1", 0.5), ("2", 0.6)):
        ledger.start(key)
        assert not ledger.report(key, epoch(1, value))
    return ledger


def run_finalist(folder: Path) -> Ledger:
    """Trial 3 runs trial 1, the best of those that did not fail, again in full."""
    ledger = stop_two(folder)
    rerun = ledger.start("3")
    assert rerun is not None
    assert rerun.rerun_of == 1
    for number in (1, 2, 3):
        ledger.report("3", epoch(number, 0.5 - 0.02 * number))
    return ledger


def test_the_best_is_run_to_a_new_length_also_where_its_full_run_was_a_finalists(tmp_path: Path) -> None:
    run_finalist(tmp_path)
    entry = make_ledger(tmp_path, names="a", max_epochs=9).start("4")
    assert entry is not None
    assert (entry.rerun_of, entry.max_epochs) == (1, 9)


def test_a_finalist_that_does_better_in_full_is_no_better_value_found(tmp_path: Path) -> None:
    account = run_finalist(tmp_path).accounts["a"]
    assert account.ranking[0].number == 3
    # Trial 1 was the best; trial 2 came after it.
    assert account.since_best == 1
    assert make_ledger(tmp_path, names="a", max_epochs=3).accounts["a"].since_best == 1


def test_a_finalist_that_fails_takes_no_place(tmp_path: Path) -> None:
    ledger = stop_two(tmp_path)
    ledger.start("3")
    ledger.finish("3", "failed", "diverged")
    entry = ledger.start("4")
    assert entry is not None
    assert entry.rerun_of == 2


def test_several_finalists_run_side_by_side(tmp_path: Path) -> None:
    ledger = stop_two(tmp_path, num_finalists=2)
    assert [entry.rerun_of for key in ("3", "4") if (entry := ledger.start(key)) is not None] == [1, 2]
    assert ledger.start("5") is None


def test_only_trials_that_trained_have_weights_to_keep(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", text=FOUR, sampler="random", num_trials=12, max_epochs=1)
    number = 0
    while ledger.start(str(number)) is not None:
        ledger.report(str(number), epoch(1, 0.5))
        number += 1
    account = ledger.accounts["a"]
    assert account.started == 12
    assert len(account.ranking) == number <= 4


def test_a_warm_start_takes_each_configuration_once(tmp_path: Path) -> None:
    run_finalist(tmp_path)
    assert [number for number, _ in best_params(load_studies(tmp_path)["a"], 3)] == [3, 2]


def test_a_warm_start_takes_none_that_went_on_from_another(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", scheduler="pbt", population=2, num_trials=2, max_epochs=2)
    for key, value in (("0", 0.5), ("1", 0.9)):
        ledger.start(key)
        ledger.report(key, epoch(1, value))
    child = ledger.start("2")
    assert child is not None
    assert child.parent == 0
    ledger.report("2", epoch(2, 0.1))
    ledger.commit(durable=True)
    # The child's value is that of its forerunner's epoch, too.
    assert [number for number, _ in best_params(load_studies(tmp_path)["a"], 3)] == [1]


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        ("1e-4, 1e-1", "1e-5, 1e-1", True),
        ("1e-1, log=True", "1e-1", False),
        ('trial.suggest_float("beta", 0.5, 0.95)', 'trial.suggest_categorical("beta", [0.5, 0.9])', False),
    ],
)
def test_a_study_takes_up_a_space_with_other_ranges_only(tmp_path: Path, old: str, new: str, fits: bool) -> None:
    run_finalist(tmp_path)
    assert old in SPACE
    space = write_space(tmp_path, "a", SPACE.replace(old, new))
    distributions = probe_space(space, seed=0, fixed={}).distributions
    study = load_studies(tmp_path)["a"]
    if fits:
        check_compatible(study, space, distributions)
    else:
        with pytest.raises(RunError, match=r"a\.py: (lr|beta) was .* is .* now, expected only its range to change"):
            check_compatible(study, space, distributions)
