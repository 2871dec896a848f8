"""Population based training: who makes way, who follows, and a search of it that was cut at any event."""

import math
import random
from collections import Counter
from pathlib import Path

import pytest
from population_places import MIXED, TWO_VALUES, Places, facts, make, record, study_of, value_of
from two_spaces import CONDITIONAL, FOUR, SPACE, epoch

from galaxy_models.config import TrainConfig
from search.population import QUANTILE, generation_ends, generation_epochs, without_names


def test_a_trial_has_nine_generations_at_most() -> None:
    assert [generation_epochs(num) for num in (1, 5, 9, 10, 17, 18, 27, 81)] == [1, 1, 1, 2, 2, 2, 3, 9]
    assert all(-(-num // generation_epochs(num)) <= 9 for num in range(1, 300))


@pytest.mark.parametrize("max_epochs", [1, 4, 20])
def test_trials_begin_where_generations_end(tmp_path: Path, max_epochs: int) -> None:
    ledger = make(tmp_path, size=4, max_epochs=max_epochs, text=MIXED)
    places = Places(ledger, 1)
    while places.step():
        pass
    begun = {trial.user_attrs.get("branched_after", 0) for trial in study_of(ledger).get_trials()}
    assert begun == {0, *generation_ends(max_epochs)}


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
            reason = trials[number].user_attrs["reason"]
            assert f"replaced after epoch {done} by trial" in reason
            assert without_names(reason) == "replaced at the end of a generation"
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
    # Four trials are to train; whoever is asked for, the parent is not among them, as its state would be gone.
    begun = [ledger.start(f"more {index}") for index in range(4)]
    child = study_of(ledger).get_trials()[4]
    parent = child.user_attrs["parent"]
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


@pytest.mark.parametrize("num_places", [1, 2, 3])
def test_a_population_of_which_not_all_can_differ_is_smaller(tmp_path: Path, num_places: int) -> None:
    """Of four configurations six cannot differ: those that repeat one take its result when it ends."""
    ledger = make(tmp_path, size=6, text=FOUR, max_epochs=3)
    places = Places(ledger, num_places)
    while places.step():
        pass
    assert ledger.finished
    trials = study_of(ledger).get_trials()
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    # The best, of which the others are to go on, has one other value to go on with.
    assert Counter(trial.user_attrs.get("branched_after") for trial in trials) == {None: 6, 1: 1, 2: 1}
    assert sum(max(trial.intermediate_values) == 3 and "duplicate_of" not in trial.user_attrs for trial in trials) == 4


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


@pytest.mark.parametrize("text", [MIXED, TWO_VALUES, SPACE])
def test_no_child_is_its_parent_or_another_child(tmp_path: Path, text: str) -> None:
    ledger = make(tmp_path, size=8, text=text)
    places = Places(ledger, 2)
    while places.step():
        pass
    configs = [trial.user_attrs["config"] for trial in study_of(ledger).get_trials()]
    children = [trial for trial in study_of(ledger).get_trials() if trial.user_attrs.get("parent") is not None]
    assert len(children) == 16
    assert len({repr(trial.user_attrs["config"]) for trial in children}) == 16
    for trial in children:
        parent = configs[trial.user_attrs["parent"]]
        assert trial.user_attrs["config"] != parent
        after = trial.user_attrs["branched_after"]
        assert TrainConfig.from_dict(trial.user_attrs["config"]).at(after) != TrainConfig.from_dict(parent).at(after)


def test_two_spaces_come_on_side_by_side(tmp_path: Path) -> None:
    ledger = make(tmp_path, size=6, names="ab", text=MIXED)
    places = Places(ledger, 2)
    first, second = ledger.accounts.values()
    while places.step():
        # Six in a generation of each, and two that train.
        assert abs(first.spent_epochs - second.spent_epochs) <= 6 + 2
    assert first.spent_epochs == second.spent_epochs == 54


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"noise", 0.01', '"grain", 0.01'),
        ("64]", "64, 96]"),
        ("batch_size=", "momentum=trial.suggest_float('beta', 0, 0.9), batch_size="),
    ],
)
def test_a_changed_space_that_was_accepted_leaves_no_generation_out(tmp_path: Path, old: str, new: str) -> None:
    """Where the space cannot say any more what parameters mean, nobody makes way for a trial of them."""
    places = Places(make(tmp_path, size=4, max_epochs=4, text=MIXED), 2)
    for _ in range(6):
        places.step()
    places = Places(make(tmp_path, size=4, max_epochs=4, text=MIXED.replace(old, new)), 2)
    while places.step():
        pass
    states = Counter(trial.state.name for trial in study_of(places.ledger).get_trials())
    assert states["COMPLETE"] == 4
    assert states["RUNNING"] == 0
    assert study_of(places.ledger).user_attrs["generations_done"] == 3


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_each_trial_ends(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    options = {
        "text": rng.choice([MIXED, FOUR, CONDITIONAL, TWO_VALUES]), "size": rng.choice([1, 2, 3, 4, 6, 9]),
        "max_epochs": rng.choice([1, 2, 4, 9, 20]), "names": rng.choice(["a", "ab"]), "repeats": rng.choice([1, 1, 2]),
        "num_finalists": rng.choice([1, 2]),
    }  # fmt: skip
    num_places, faults, nans, cuts = (
        rng.choice([1, 2, 3, 8]),
        rng.choice([0, 0.02, 0.3]),
        rng.choice([0, 0.05, 0.3]),
        rng.choice([0.05, 0.5]),
    )

    def values(number: int, done: int) -> float | None:
        own = random.Random(seed * 10**6 + number * 1000 + done)  # noqa: S311
        if own.random() < faults:
            return None
        return math.nan if own.random() < nans else own.random()

    ends = []
    for name, often in (("whole", 0.0), ("cut", cuts)):
        (tmp_path / name).mkdir()
        places = Places(make(tmp_path / name, **options), num_places, values)
        while places.step():
            if rng.random() < often:
                places = Places(make(tmp_path / name, **options), num_places, values)
        assert places.ledger.finished
        trials = [one for account in places.ledger.accounts.values() for one in account.study.get_trials()]
        assert Counter(trial.state.name for trial in trials)["RUNNING"] == 0
        ends.append(trials)
    if num_places == 1:
        assert [facts(one) for one in ends[0]] == [facts(one) for one in ends[1]]
