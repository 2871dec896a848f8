"""What Tune is given to run."""

import math
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher
from two_spaces import epoch, make_ledger

from search.lean import unpack
from search.searcher import StudySearcher


def told(suggested: dict[str, Any] | str | None) -> dict[str, Any]:
    """What a trial is told, of a suggestion that Tune carries without a look into it."""
    assert isinstance(suggested, dict)
    assert not [value for value in suggested.values() if isinstance(value, dict | list)]
    return unpack(suggested)


def test_a_trial_for_each_free_place_and_none_before_a_place_is_free(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, num_trials=1, max_epochs=1)
    searcher = StudySearcher(ledger, lambda: 1)
    first = told(searcher.suggest("0"))
    assert (first["space"], first["number"], first["known_epochs"], first["micro_batch"]) == ("a", 0, 0, None)
    assert first["train"]["epochs"] == 1
    assert math.isnan(first["value_to_beat"])
    assert searcher.suggest("1") is None
    ledger.report("0", epoch(1, 0.5))
    second = told(searcher.suggest("1"))
    assert second["space"] == "b"
    ledger.report("1", epoch(1, 0.5))
    assert searcher.suggest("2") == Searcher.FINISHED


def test_the_end_is_not_told_before_the_last_trial_ended(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=1, max_epochs=1)
    searcher = StudySearcher(ledger, lambda: 4)
    searcher.suggest("0")
    assert searcher.suggest("1") is None
    ledger.report("0", epoch(1, 0.5))
    assert searcher.suggest("1") == Searcher.FINISHED


def test_the_value_to_beat_is_that_of_the_last_trial_whose_weights_are_kept(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=9, max_epochs=1, repeats=9)
    for key, value in (("0", 0.5), ("1", 0.2), ("2", 0.7)):
        ledger.start(key)
        ledger.report(key, epoch(1, value))
    beat = [told(StudySearcher(ledger, lambda: 9, keep_top=top).suggest(f"x{top}")) for top in (1, 2, 3)]
    assert [one["value_to_beat"] for one in beat] == [0.2, 0.5, 0.7]
    above = told(StudySearcher(ledger, lambda: 9, keep_top=4).suggest("x4"))
    assert math.isnan(above["value_to_beat"])


def test_a_trial_that_goes_on_says_how_far_it_came_and_one_run_again_keeps_its_weights(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=2)
    ledger.start("0")
    ledger.report("0", epoch(1, 0.5))
    again = make_ledger(tmp_path, names="a", num_trials=2)
    searcher = StudySearcher(again, lambda: 1)
    went_on = told(searcher.suggest("0"))
    assert (went_on["number"], went_on["known_epochs"]) == (0, 1)
    for number in range(2, 10):
        again.report("0", epoch(number, 0.6))
    searcher.suggest("1")
    assert again.report("1", epoch(1, 0.4))
    assert not again.report("1", epoch(3, 0.9))
    finalist = told(searcher.suggest("2"))
    assert finalist["number"] == 2
    assert math.isnan(finalist["value_to_beat"])


def test_a_space_that_fails_ends_the_search_and_its_error_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(tmp_path, names="a")
    searcher = StudySearcher(ledger, lambda: 1)

    def fail(key: str) -> None:
        raise ValueError("planted")

    monkeypatch.setattr(ledger, "start", fail)
    assert searcher.suggest("0") == Searcher.FINISHED
    assert str(searcher.fault) == "planted"
    assert searcher.suggest("1") == Searcher.FINISHED


def test_tune_has_nothing_to_restore(tmp_path: Path) -> None:
    searcher = StudySearcher(make_ledger(tmp_path, names="a"), lambda: 1)
    assert searcher.__getstate__() == {}
    searcher.save(str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(NotImplementedError):
        searcher.restore("anywhere")
