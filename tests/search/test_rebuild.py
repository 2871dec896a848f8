"""A search that is cut at any event and read back from its journal goes on as if nobody had cut it."""

import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from two_spaces import CONDITIONAL, FOUR, SPACE, epoch, make_ledger

from search.convergence import make_test
from search.entry import DUPLICATE_OF, FINALIST_OF, PROMOTED_FROM
from search.ledger import Ledger
from search.rungs import RULES

PLACES = 3
# What happens next: an epoch of one of the running trials with a value, or its failure.
EVENTS = st.lists(
    st.tuples(
        st.integers(0, PLACES - 1),
        st.sampled_from([0.25, 0.5, 0.5, 0.75, 1.0, math.nan]),
        st.sampled_from(["epoch"] * 12 + ["fault"]),
    ),
    min_size=10,
    max_size=70,
)
SETTINGS = st.fixed_dictionaries(
    {
        "scheduler": st.sampled_from(RULES),
        "sampler": st.sampled_from(["random", "random", "tpe"]),
        "text": st.sampled_from([SPACE, FOUR]),
        "share": st.sampled_from(["equal", "race"]),
        "direction": st.sampled_from(["min", "max"]),
        "repeats": st.integers(1, 2),
        "num_trials": st.integers(2, 9),
        "num_finalists": st.integers(1, 2),
        "max_epochs": st.sampled_from([1, 4, 10]),
    }
)


class Driver:
    """Runs trials in a few places, as Tune does, and may be cut off and opened again between two events."""

    def __init__(self, folder: Path, options: dict[str, Any], *, terminator: bool = False) -> None:
        self._folder, self._options, self._terminator = folder, options, terminator
        self._num_keys = 0
        self._keys: dict[tuple[str, int], str] = {}
        self.running: list[tuple[str, int]] = []
        self.open()

    def open(self, **changes: Any) -> None:
        """Read the journal back, and begin with the trials that were running."""
        self._options |= changes
        self.ledger = make_ledger(self._folder, **self._options)
        if self._terminator:
            self.ledger.converged = make_test(True, "random", None, seed=0)  # type: ignore[arg-type]
        self._keys = {}
        left = set(self.running)
        while left:
            trial = self._start()
            assert trial is not None
            if trial not in left:
                # It waited for another of its configuration, which failed: nobody has run it yet.
                self.running.append(trial)
            left.discard(trial)

    def _start(self) -> tuple[str, int] | None:
        key = str(self._num_keys)
        self._num_keys += 1
        entry = self.ledger.start(key)
        if entry is None:
            return None
        self._keys[entry.space, entry.number] = key
        return entry.space, entry.number

    def happen(self, place: int, value: float, kind: str) -> None:
        """Fill the places, then let one of the trials report or fail."""
        while len(self.running) < PLACES and (trial := self._start()) is not None:
            self.running.append(trial)
        if not self.running:
            return
        trial = self.running[place % len(self.running)]
        key = self._keys[trial]
        if kind == "fault":
            self.ledger.finish(key, "failed", "planted")
        else:
            entry = self.ledger.live[key]
            # Of two branches the second is worse at first: all of its trials are stopped.
            worse = entry.number < 30 and entry.params.get("optimizer") == "sgd"
            self.ledger.report(key, epoch(entry.epochs + 1, value + worse))
        if key not in self.ledger.live:
            self.running.remove(trial)


def record(ledger: Ledger) -> dict[str, list[Any]]:
    """All that the studies say, but for the time of day."""
    return {
        name: [
            repr(
                (one.number, one.state, one.params, one.values, one.intermediate_values, sorted(one.user_attrs.items()))
            )
            for one in account.study.get_trials()
        ]
        + [repr(account.study.user_attrs)]
        for name, account in ledger.accounts.items()
    }


def known(ledger: Ledger) -> dict[str, Any]:
    """All that the ledger goes by."""
    return {
        name: repr(
            (
                account.started, sorted(account.counts.items()), sorted(account.live), account.since_best,
                account.spent_epochs, account.spent_gpu_s, [(one.number, one.best_value) for one in account.ranking],
                account.promotion(), account.finalist(2), account.value_to_beat(),
                [trial.number for trial in account._proposals.history.selected()],
                [trial.number for trial in account._proposals.history.latest],
            )
        )
        for name, account in ledger.accounts.items()
    }  # fmt: skip


@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.generate])  # to shrink takes minutes
@given(SETTINGS, EVENTS, st.sets(st.integers(0, 69), min_size=1, max_size=4))
def test_a_ledger_read_back_at_any_event_decides_as_the_one_in_memory(
    options: dict[str, Any], events: list[tuple[int, float, str]], cuts: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, cut = Driver(Path(one), options), Driver(Path(other), options)
        for index, event in enumerate(events):
            whole.happen(*event)
            if index in cuts:
                cut.open()
            cut.happen(*event)
            assert known(cut.ledger) == known(whole.ledger), f"after event {index}"
        assert record(cut.ledger) == record(whole.ledger)


@pytest.mark.parametrize("text", [SPACE, CONDITIONAL])
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc"])
def test_a_long_search_with_several_workers_that_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, text: str
) -> None:
    """Long enough that the sampler's history is full, and that trials end in another order than they began."""
    monkeypatch.setattr("search.samplers.MAX_HISTORY", 10)
    records = []
    for name, cuts in (("whole", ()), ("cut", (20, 57, 58, 101))):
        (tmp_path / name).mkdir()
        options = {"sampler": sampler, "text": text, "num_trials": 60, "max_epochs": 3, "names": "a"}
        driver = Driver(tmp_path / name, options)
        for index in range(120):
            if index in cuts:
                driver.open()
            driver.happen(index * 7 % PLACES, (index * 37 % 101) / 100, "epoch")
        records.append(record(driver.ledger))
    assert records[0] == records[1]
    assert len(records[0]["a"]) > 50


# 57 configurations: some are drawn again.
FEW = """
from galaxy_models.config import TrainConfig


def space(trial):
    return TrainConfig(backbone="vgg16", batch_size=trial.suggest_int("batch", 8, 64))
"""


def test_the_terminators_word_is_the_same_in_a_search_that_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most trials are stopped, some run another's configuration again, and some take another's result."""
    from optuna import terminator

    shown: list[tuple[float, ...]] = []

    def judge(self: Any, study: Any) -> bool:
        trials = study.get_trials()
        assert not [trial for trial in trials if {PROMOTED_FROM, FINALIST_OF, DUPLICATE_OF} & trial.user_attrs.keys()]
        shown.append(tuple(trial.value for trial in trials))
        return len(trials) == 30

    monkeypatch.setattr(terminator.Terminator, "should_terminate", judge)
    records, asked = [], []
    for name, cuts in (("whole", ()), ("cut", range(41, 300, 11))):
        (tmp_path / name).mkdir()
        options = {"sampler": "random", "text": FEW, "num_trials": 200, "max_epochs": 1, "names": "a"}
        driver = Driver(tmp_path / name, options, terminator=True)
        for index in range(300):
            if index == 12 or index in cuts:
                driver.open(max_epochs=3)
            driver.happen(index * 7 % PLACES, (index * 37 % 101) / 100, "epoch")
        records.append(record(driver.ledger))
        asked.append(list(shown))
        shown.clear()
    assert driver.ledger.finished
    assert records[0] == records[1]
    # Once for each five in the search that was not cut, and of the same trials in the other.
    assert [len(values) for values in asked[0]] == [20, 25, 30]
    assert set(asked[1]) == set(asked[0])
    trials = driver.ledger.accounts["a"].study.get_trials(states=[TrialState.COMPLETE])
    assert [one for one in trials if DUPLICATE_OF in one.user_attrs]
    assert [one for one in trials if PROMOTED_FROM in one.user_attrs]
