"""Population based training: who makes way, who follows, and a search of it that was cut at any event."""

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from two_spaces import CONDITIONAL, FOUR, SPACE, epoch, make_ledger, write_space

from galaxy_models.config import TrainConfig
from search.errors import RunError
from search.ledger import Ledger
from search.population import QUANTILE, generation_epochs, vary
from search.preflight import check_changeable
from search.space import probe_space

# Everything that can be varied, and a batch size and an image size, which cannot.
MIXED = """
from galaxy_models.config import AugmentConfig, TrainConfig


def space(trial):
    return TrainConfig(
        backbone="vgg16",
        batch_size=trial.suggest_int("batch", 8, 64),
        image_px=trial.suggest_categorical("px", [32, 64]),
        learning_rate=trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        label_smoothing=trial.suggest_float("smoothing", 0.0, 0.1, step=0.05),
        class_balance=trial.suggest_categorical("balance", ["none", "loss"]),
        augment=AugmentConfig(noise=trial.suggest_float("noise", 0.01, 0.1)),
    )
"""


def make(folder: Path, *, size: int, **options: Any) -> Ledger:
    options = {"names": "a", "sampler": "random", "max_epochs": 9, **options}
    return make_ledger(folder, num_trials=size, population=size, scheduler="pbt", **options)


def value_of(number: int, done: int) -> float:
    """A trial's value after an epoch: of no order that its number would tell."""
    return random.Random(number * 1000 + done).random()  # noqa: S311


class Places:
    """Runs trials, as many at once as there are places, and tells which of them trained which epoch."""

    def __init__(self, ledger: Ledger, num: int, values: Any = value_of) -> None:
        self.ledger, self._num, self._values = ledger, num, values
        self._running: list[str] = []
        self._num_keys = 0
        self.trained: list[tuple[int, int]] = []

    def step(self) -> bool:
        """Fill the places, and train an epoch of the trial that has had to wait longest; false without one."""
        while len(self._running) < self._num:
            self._num_keys += 1
            if self.ledger.start(str(self._num_keys)) is None:
                break
            self._running.append(str(self._num_keys))
        if not self._running:
            return False
        key = self._running.pop(0)
        entry = self.ledger.live[key]
        done = entry.epochs + 1
        self.trained.append((entry.number, done))
        value = self._values(entry.number, done)
        if value is None:
            self.ledger.finish(key, "failed", "planted")
        elif self.ledger.report(key, epoch(done, value)):
            self._running.append(key)
        return True


def study_of(ledger: Ledger) -> optuna.Study:
    return ledger.accounts["a"].study


def record(ledger: Ledger) -> list[str]:
    """All that the study says, but for the time of day and the order of its attributes."""
    return [
        repr((one.number, one.state, one.params, one.values, one.intermediate_values, sorted(one.user_attrs.items())))
        for one in study_of(ledger).get_trials()
    ]


def test_a_trial_has_nine_generations_where_it_can() -> None:
    assert [generation_epochs(num) for num in (1, 5, 9, 10, 27, 81)] == [1, 1, 1, 1, 3, 9]


@pytest.mark.parametrize("num_places", [1, 3, 8, 20])
def test_each_generation_the_worst_quarter_goes_on_from_the_best(tmp_path: Path, num_places: int) -> None:
    ledger = make(tmp_path, size=8, max_epochs=3, text=MIXED)
    places = Places(ledger, num_places)
    while places.step():
        pass
    trials = study_of(ledger).get_trials()
    assert Counter(trial.state.name for trial in trials) == {"COMPLETE": 8, "PRUNED": 4}
    assert sorted(places.trained) == sorted(set(places.trained))
    assert Counter(done for _, done in places.trained) == {1: 8, 2: 8, 3: 8}
    assert ledger.spent_epochs == 24
    members = set(range(8))
    for done, children in ((1, (8, 9)), (2, (10, 11))):
        ranked = sorted(members, key=lambda number: trials[number].intermediate_values[done])
        assert len(ranked) == 8
        for number in children:
            assert trials[number].user_attrs["parent"] in ranked[:2]
            assert trials[number].user_attrs["branched_after"] == done
            assert min(trials[number].intermediate_values) == done + 1
        for number in ranked[-2:]:
            assert trials[number].state.name == "PRUNED"
            assert f"replaced after epoch {done} by trial" in trials[number].user_attrs["reason"]
        members = (members - set(ranked[-2:])) | set(children)
    assert {trial.number for trial in trials if trial.state.name == "COMPLETE"} == members


def test_a_childs_configuration_is_its_parents_with_a_change(tmp_path: Path) -> None:
    ledger = make(tmp_path, size=8, text=MIXED)
    places = Places(ledger, 1)
    while places.step():
        pass
    trials = study_of(ledger).get_trials()
    configs = [TrainConfig.from_dict(trial.user_attrs["config"]) for trial in trials]
    depths = Counter(len(config.changes) for config in configs)
    assert max(depths) >= 2, depths
    for trial, config in zip(trials, configs, strict=True):
        if (number := trial.user_attrs.get("parent")) is None:
            assert config.changes == ()
            continue
        after, parent = trial.user_attrs["branched_after"], configs[number]
        assert config.changes[:-1] == parent.changes
        assert config.at(after - 1) == parent.at(after - 1)
        assert config.seed == parent.seed
        assert config.changes[-1].after_epoch == after
        assert config.changes[-1].learning_rate == pytest.approx(trial.params["lr"])
        assert config.changes[-1].augment.noise == pytest.approx(trial.params["noise"])
        for name in ("batch", "px"):
            assert trial.params[name] == trials[number].params[name]


def test_a_parent_waits_until_its_child_has_begun(tmp_path: Path) -> None:
    ledger = make(tmp_path, size=4, text=MIXED)
    places = Places(ledger, 1)
    for _ in range(4):
        places.step()
    child = study_of(ledger).get_trials()[4]
    parent = child.user_attrs["parent"]
    # Four trials are to train; whoever is asked for, the parent is not among them, as its state would be gone.
    begun = [ledger.start(f"more {index}") for index in range(4)]
    assert [entry is None for entry in begun] == [False, False, False, True]
    assert parent not in {entry.number for entry in begun if entry is not None}
    assert not ledger.finished
    assert begun[0] is not None
    assert begun[0].number == 4
    ledger.report("more 0", epoch(2, 0.5))
    entry = ledger.start("parent")
    assert entry is not None
    assert entry.number == parent


def test_a_child_that_fails_before_it_has_begun_lets_its_parent_go_on(tmp_path: Path) -> None:
    ledger = make(tmp_path, size=4, text=MIXED)
    places = Places(ledger, 1, lambda number, done: None if number == 4 else value_of(number, done))
    while places.step():
        pass
    trials = study_of(ledger).get_trials()
    assert trials[4].state.name == "FAIL"
    # Another took its place after the next generation.
    assert Counter(trial.state.name for trial in trials)["COMPLETE"] == 4


def test_failed_trials_are_replaced_and_a_value_that_is_none_waits_for_the_next(tmp_path: Path) -> None:
    ledger = make(tmp_path, size=4, text=MIXED)

    def values(number: int, done: int) -> float | None:
        if number == 1:
            return None
        return math.nan if (number, done) == (2, 1) else value_of(number, done)

    places = Places(ledger, 2, values)
    while places.step():
        pass
    trials = study_of(ledger).get_trials()
    assert Counter(trial.state.name for trial in trials)["COMPLETE"] == 4
    # Trial 2 had no value after its first epoch: the generation ended when it had one.
    assert (2, 2) in places.trained
    first = [trial for trial in trials if trial.user_attrs.get("parent") is not None][:2]
    assert {trial.user_attrs["branched_after"] for trial in first} <= {1, 2}


def test_a_population_of_equals_has_a_smaller_first_generation(tmp_path: Path) -> None:
    """Of four configurations six cannot differ: those that repeat one take its result when it ends."""
    ledger = make(tmp_path, size=6, text=FOUR, max_epochs=3)
    places = Places(ledger, 2)
    while places.step():
        pass
    assert ledger.finished
    assert {trial.state.name for trial in study_of(ledger).get_trials()} == {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_any_size_comes_to_its_end(tmp_path: Path, size: int) -> None:
    ledger = make(tmp_path, size=size, max_epochs=4, text=MIXED)
    places = Places(ledger, 2)
    while places.step():
        pass
    states = Counter(trial.state.name for trial in study_of(ledger).get_trials())
    assert states["COMPLETE"] == size
    assert states["PRUNED"] == 3 * (max(1, size // QUANTILE) if size > 1 else 0)


@pytest.mark.parametrize("num_places", [1, 3])
@pytest.mark.parametrize("text", [MIXED, CONDITIONAL])
def test_a_search_cut_at_any_event_ends_as_one_that_was_not(tmp_path: Path, text: str, num_places: int) -> None:
    records = []
    for name, every in (("whole", 10**6), ("cut", 1), ("now and then", 7)):
        (tmp_path / name).mkdir()
        options = {"size": 6, "max_epochs": 4, "text": text, "sampler": "tpe"}
        places = Places(make(tmp_path / name, **options), num_places)
        events = 0
        while places.step():
            events += 1
            if events % every == 0:
                places = Places(make(tmp_path / name, **options), num_places)
        records.append(record(places.ledger))
    assert records[0] == records[1] == records[2]
    assert len(records[0]) > 6


def test_only_what_can_change_is_varied_and_only_within_its_range(tmp_path: Path) -> None:
    space = write_space(tmp_path, "a", MIXED)
    distributions = probe_space(space, seed=0, fixed={}).distributions
    params = {"batch": 16, "px": 32, "lr": 0.09, "smoothing": 0.05, "balance": "none", "noise": 0.05}
    seen: dict[str, set[Any]] = {name: set() for name in params}
    for seed in range(200):
        found = vary(params, distributions, space.config_of, random.Random(seed))  # noqa: S311
        for name, value in found.items():
            assert distributions[name]._contains(distributions[name].to_internal_repr(value)), (name, value)
            seen[name].add(value)
    assert (seen["batch"], seen["px"]) == ({16}, {32})
    assert seen["balance"] == {"none", "loss"}
    assert seen["smoothing"] == {0.0, 0.05, 0.1}
    assert {0.04, 0.06} <= {round(value, 9) for value in seen["noise"]}
    assert {0.1, 0.072} <= {round(value, 9) for value in seen["lr"]}
    assert len(seen["lr"]) > 20


def test_a_fixed_parameter_stays(tmp_path: Path) -> None:
    space = write_space(tmp_path, "a", MIXED)
    distributions = dict(probe_space(space, seed=0, fixed={}).distributions)
    params = {"batch": 16, "px": 32, "lr": 0.09, "smoothing": 0.05, "balance": "none", "noise": 0.05}
    del distributions["lr"]
    for seed in range(20):
        assert vary(params, distributions, space.config_of, random.Random(seed))["lr"] == 0.09  # noqa: S311


@pytest.mark.parametrize(
    ("text", "fixed"),
    [(SPACE.replace("learning_rate=trial.suggest_float", "learning_rate=1e-3, drop_rate=trial.suggest_float"), {}),
     (SPACE, {"lr": 1e-3})],
)  # fmt: skip
def test_a_space_without_anything_to_change_is_refused(tmp_path: Path, text: str, fixed: dict[str, Any]) -> None:
    space = write_space(tmp_path, "a", text)
    distributions = probe_space(space, seed=0, fixed={}).distributions
    with pytest.raises(RunError, match=r"--scheduler pbt: .*a.py has no parameter that can change while a network is"):
        check_changeable(space, distributions, fixed, seed=0)


def test_a_space_with_something_to_change_is_taken(tmp_path: Path) -> None:
    space = write_space(tmp_path, "a", SPACE)
    check_changeable(space, probe_space(space, seed=0, fixed={}).distributions, {}, seed=0)
