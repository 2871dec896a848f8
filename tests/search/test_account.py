"""Which configurations a space runs again, and which results it uses twice."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from two_spaces import FOUR, SPACE, epoch, make_ledger

from search.entry import DUPLICATE_OF, FINALIST_OF, PROMOTED_FROM, SURVEY_DIGEST
from search.ledger import Ledger
from search.study import load_studies


def go_through(ledger: Ledger, values: dict[int, float] | None = None) -> list[tuple[int, int | None]]:
    """Run all that is due, one trial at a time; each trial has one value throughout.

    Returns:
        Numbers of the trials that were trained, each with that of the trial whose configuration it ran again.
    """
    trained = []
    while (entry := ledger.start(str(len(trained)))) is not None:
        trained.append((entry.number, entry.rerun_of))
        key, value = str(len(trained) - 1), (values or {}).get(entry.number, 1.0 + entry.number)
        while ledger.report(key, epoch(ledger.live[key].epochs + 1, value)):
            pass
    assert ledger.finished
    return trained


def test_the_same_configuration_is_run_once_and_its_result_used_again(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", text=FOUR, num_trials=12, scheduler="none", max_epochs=2)
    trained = go_through(ledger)
    trials = load_studies(tmp_path)["a"].get_trials()
    assert len(trials) == 12
    assert {one.number for one in trials if DUPLICATE_OF not in one.user_attrs} == {number for number, _ in trained}
    assert len(trained) == len({tuple(trials[number].params.values()) for number, _ in trained}) <= 4
    for one in trials:
        if (twin := one.user_attrs.get(DUPLICATE_OF)) is not None:
            assert one.params == trials[twin].params
            assert (one.state, one.value) == (trials[twin].state, trials[twin].value)
            assert one.intermediate_values == trials[twin].intermediate_values
            assert f"the same configuration as trial {twin}" in one.user_attrs["reason"]
            assert not any(name.startswith("epoch:") for name in one.user_attrs)
    assert ledger.spent_epochs == 2 * len(trained)


def configs_and_twins(folder: Path) -> list[tuple[str, int | None]]:
    """Each trial's network, and the trial whose result it took."""
    trials = load_studies(folder)["a"].get_trials()
    return [(one.user_attrs["config"]["backbone"], one.user_attrs.get(DUPLICATE_OF)) for one in trials]


ONCE: dict[str, Any] = {"names": "a", "text": FOUR, "sampler": "random", "scheduler": "none", "max_epochs": 1}


def test_a_space_that_makes_other_networks_of_the_same_parameters_uses_none_of_the_results(tmp_path: Path) -> None:
    go_through(make_ledger(tmp_path, **ONCE, num_trials=12))
    changed = {**ONCE, "text": FOUR.replace('"vgg16"', '"resnet50"')}
    go_through(make_ledger(tmp_path, **changed, num_trials=24))
    found = configs_and_twins(tmp_path)
    assert [backbone for backbone, _ in found] == ["vgg16"] * 12 + ["resnet50"] * 12
    twins = [twin for _, twin in found[12:] if twin is not None]
    assert twins
    assert min(twins) >= 12


def test_results_of_another_survey_are_not_used(tmp_path: Path) -> None:
    go_through(make_ledger(tmp_path, **ONCE, num_trials=12, survey_digest="sha256:1"))
    go_through(make_ledger(tmp_path, **ONCE, num_trials=24, survey_digest="sha256:2"))
    twins = [twin for _, twin in configs_and_twins(tmp_path)]
    assert max(twin for twin in twins[:12] if twin is not None) < 12
    assert min(twin for twin in twins[12:] if twin is not None) >= 12
    # Back at the first survey there is no configuration left that it does not know.
    assert go_through(make_ledger(tmp_path, **ONCE, num_trials=36, survey_digest="sha256:1")) == []


def test_parameters_that_make_the_same_network_are_one_configuration(tmp_path: Path) -> None:
    text = FOUR.replace("    return", '    trial.suggest_float("unused", 0.0, 1.0)\n    return')
    trained = go_through(make_ledger(tmp_path, **{**ONCE, "text": text}, num_trials=12))
    assert len(trained) <= 4
    assert len({one.params["unused"] for one in load_studies(tmp_path)["a"].get_trials()}) == 12


def test_results_of_a_time_when_surveys_were_not_taken_down_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = optuna.Trial.set_user_attr
    with monkeypatch.context() as patch:
        patch.setattr(
            optuna.Trial, "set_user_attr", lambda self, key, value: key == SURVEY_DIGEST or plain(self, key, value)
        )
        go_through(make_ledger(tmp_path, **ONCE, num_trials=11))
        earlier = make_ledger(tmp_path, **ONCE, num_trials=12)
        # The last one is left as it was begun, whoever it takes a result from.
        earlier.accounts["a"]._twins.clear()
        assert earlier.start("left") is not None
    assert all(SURVEY_DIGEST not in one.user_attrs for one in load_studies(tmp_path)["a"].get_trials())
    again = make_ledger(tmp_path, **ONCE, num_trials=24, survey_digest="sha256:1")
    assert go_through(again)[0][0] == 11
    twins = [twin for _, twin in configs_and_twins(tmp_path)][12:]
    assert min(twin for twin in twins if twin is not None) >= 11


def start_side_by_side(ledger: Ledger, num: int) -> list[tuple[str, int]]:
    """Start so many trials, or as many as there are to start; each one's key and number."""
    started = []
    while len(started) < num and (entry := ledger.start(f"beside {len(started)}")) is not None:
        started.append((f"beside {len(started)}", entry.number))
    return started


def test_a_configuration_that_runs_is_not_run_beside_it(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", text=FOUR, num_trials=12, scheduler="none", max_epochs=1)
    started = start_side_by_side(ledger, 12)
    assert len(started) <= 4
    assert ledger.start("more") is None
    assert not ledger.finished
    for key, number in started:
        ledger.report(key, epoch(1, 1.0 + number))
    assert ledger.finished
    trials = load_studies(tmp_path)["a"].get_trials()
    assert len(trials) == 12
    assert all(one.state == TrialState.COMPLETE for one in trials)
    assert ledger.spent_epochs == len(started)
    for one in trials:
        if one.number not in [number for _, number in started]:
            twin = trials[one.user_attrs[DUPLICATE_OF]]
            assert (one.params, one.value) == (twin.params, twin.value)


def test_what_waited_for_a_trial_that_failed_is_run_one_after_the_other(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", text=FOUR, num_trials=24, scheduler="none", max_epochs=1)
    started = start_side_by_side(ledger, 24)
    key, failed = started[0]
    ledger.finish(key, "failed", "planted")
    again = ledger.start("again")
    assert again is not None
    params = [trial.params for trial in load_studies(tmp_path)["a"].get_trials()]
    alike = [number for number, values in enumerate(params) if values == params[failed]]
    assert alike[:2] == [failed, again.number]
    assert len(alike) > 2
    ledger.report("again", epoch(1, 0.5))
    trials = load_studies(tmp_path)["a"].get_trials()
    assert [trials[number].user_attrs.get(DUPLICATE_OF) for number in alike] == [
        None,
        None,
        *[again.number] * len(alike[2:]),
    ]


def test_what_waits_still_waits_when_the_search_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"names": "a", "text": FOUR, "num_trials": 12, "scheduler": "none", "max_epochs": 1}
    started = start_side_by_side(make_ledger(tmp_path, **options), 12)
    ledger = make_ledger(tmp_path, **options)
    assert [number for _, number in start_side_by_side(ledger, 12)] == [number for _, number in started]
    for key, number in started:
        ledger.report(key, epoch(1, 1.0 + number))
    assert ledger.finished
    assert ledger.spent_epochs == len(started)


def test_what_went_on_with_another_survey_lends_its_result_to_nobody(tmp_path: Path) -> None:
    options: dict[str, Any] = {**ONCE, "num_trials": 12, "max_epochs": 2}
    before = make_ledger(tmp_path, **options, survey_digest="sha256:1")
    started = [number for _, number in start_side_by_side(before, 12)]
    for number in range(len(started)):
        if number != 1:
            before.report(f"beside {number}", epoch(1, 0.5))
    params = [one.params for one in load_studies(tmp_path)["a"].get_trials()]
    after = make_ledger(tmp_path, **options, survey_digest="sha256:2")
    trained = [number for number, _ in go_through(after)]
    # Of each configuration the first that waited runs itself, but for that of which no epoch was known.
    firsts = [
        next(later for later in range(number + 1, 12) if params[later] == params[number])
        for number in started
        if number != started[1]
    ]
    assert trained == [*started, *firsts]
    alike = [number for number in range(12) if params[number] == params[started[1]]]
    twins = [twin for _, twin in configs_and_twins(tmp_path)]
    assert [twins[number] for number in alike] == [None, *[started[1]] * (len(alike) - 1)]


def test_repeats_run_the_same_configuration_so_often_each_with_a_seed_of_its_own(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", text=FOUR, num_trials=24, repeats=2, scheduler="none", max_epochs=1)
    trained = go_through(ledger)
    trials = load_studies(tmp_path)["a"].get_trials()
    seeds: dict[Any, list[int]] = {}
    for number, _ in trained:
        seeds.setdefault(tuple(trials[number].params.values()), []).append(trials[number].user_attrs["config"]["seed"])
    assert max(map(len, seeds.values())) == 2
    assert all(len(set(found)) == len(found) <= 2 for found in seeds.values())


def test_a_failed_trial_lends_its_result_to_nobody(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", text=FOUR, num_trials=12, max_epochs=1)
    number = 0
    while ledger.start(str(number)) is not None:
        ledger.finish(str(number), "failed", "planted")
        number += 1
    assert number == 12


def test_a_stopped_trial_that_is_the_best_is_run_again_in_full_with_its_seed(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=4)
    for key in "0123":
        ledger.start(key)
    assert ledger.report("0", epoch(1, 0.5))
    for number in range(2, 10):
        ledger.report("0", epoch(number, 0.5))
    assert not ledger.report("1", epoch(1, 0.7))
    # Better than the full trial's best, and stopped at the third epoch all the same: the rung there knew 0.5.
    assert ledger.report("2", epoch(1, 0.4))
    assert not ledger.report("2", epoch(3, 0.6))
    assert not ledger.report("3", epoch(1, 0.9))
    again = ledger.start("again")
    assert again is not None
    first, full = load_studies(tmp_path)["a"].get_trials()[2], load_studies(tmp_path)["a"].get_trials()[4]
    assert again.rerun_of == 2
    assert full.params == first.params
    assert full.user_attrs["config"] == first.user_attrs["config"]
    assert full.user_attrs[FINALIST_OF] == 2
    # However bad its values are, it is run for its full length.
    for number in range(1, 10):
        assert ledger.report("again", epoch(number, 100.0)) is (number < 9)
    assert ledger.start("more") is None
    assert ledger.accounts["a"].started == 4


def turning(origin: int, number: int) -> float:
    """Each trial is better than all before it after one epoch, and worse than all before it after three."""
    return 1.0 - 0.01 * origin if number == 1 else 5.0 + origin


def test_as_many_finalists_as_asked_for_are_run_in_full_each_configuration_once(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", num_trials=9, num_finalists=3)
    trained = []
    while (entry := ledger.start(str(len(trained)))) is not None:
        trained.append(entry)
        origin = entry.number if entry.rerun_of is None else entry.rerun_of
        while ledger.report(str(len(trained) - 1), epoch(entry.epochs + 1, turning(origin, entry.epochs + 1))):
            pass
    assert [(entry.number, entry.rerun_of) for entry in trained[9:]] == [(9, 8), (10, 7), (11, 6)]
    assert [entry.outcome for entry in trained] == ["complete"] + ["stopped"] * 8 + ["complete"] * 3


def test_longer_trials_promote_the_best_third_of_the_complete_ones(tmp_path: Path) -> None:
    values = {0: 0.6, 1: 0.2, 2: 0.9, 3: 0.4, 4: 0.8, 5: 0.7}
    short = make_ledger(tmp_path, names="a", num_trials=6, scheduler="none", max_epochs=2)
    go_through(short, values)
    longer = make_ledger(tmp_path, names="a", num_trials=6, scheduler="none", max_epochs=5)
    # A third of six are two: the trials 1 and 3.
    assert go_through(longer, values) == [(6, 1), (7, 3)]
    trials = load_studies(tmp_path)["a"].get_trials()
    for number, origin in ((6, 1), (7, 3)):
        assert trials[number].user_attrs[PROMOTED_FROM] == origin
        assert trials[number].params == trials[origin].params
        assert trials[number].user_attrs["config"] == {**trials[origin].user_attrs["config"], "epochs": 5}
        assert (trials[number].state, max(trials[number].intermediate_values)) == (TrialState.COMPLETE, 5)
    # Once, however often the run is opened again.
    assert go_through(make_ledger(tmp_path, names="a", num_trials=6, scheduler="none", max_epochs=5)) == []
    assert [one for one, _ in go_through(make_ledger(tmp_path, names="a", num_trials=7, max_epochs=5))] == [8]


def test_finalists_are_run_to_a_new_length_though_they_were_complete_at_the_old_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {"names": "a", "num_trials": 4, "scheduler": "none", "num_finalists": 3}
    values = {0: 0.30, 1: 0.31, 2: 0.50, 3: 0.29}
    go_through(make_ledger(tmp_path, **options, max_epochs=3), values)
    longer = make_ledger(tmp_path, **options, max_epochs=9)
    # The best third of four, which are two, are promoted. Each is better in full, yet takes one place of the three:
    # the third is trial 1, whose full length is the new one.
    assert go_through(longer, {4: 0.26, 5: 0.27, 6: 0.28}) == [(4, 3), (5, 0), (6, 1)]
    ranking = longer.accounts["a"].ranking
    assert [(one.root, one.max_epochs) for one in ranking] == [(3, 9), (0, 9), (1, 9), (3, 3), (0, 3), (1, 3), (2, 3)]
    trials = load_studies(tmp_path)["a"].get_trials()
    assert trials[6].user_attrs[FINALIST_OF] == 1
    assert trials[6].user_attrs["config"] == {**trials[1].user_attrs["config"], "epochs": 9}
    assert go_through(make_ledger(tmp_path, **options, max_epochs=9)) == []
    # Again, from trials that were runs to the full length themselves.
    assert go_through(make_ledger(tmp_path, **options, max_epochs=10), {7: 0.2, 8: 0.2, 9: 0.2}) == [
        (7, 3), (8, 0), (9, 1)
    ]  # fmt: skip


def test_a_finalist_that_does_worse_at_the_new_length_is_run_to_it_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"names": "a", "num_trials": 2, "scheduler": "none", "num_finalists": 2}
    go_through(make_ledger(tmp_path, **options, max_epochs=3), {0: 0.3, 1: 0.4})
    longer = make_ledger(tmp_path, **options, max_epochs=9)
    assert go_through(longer, {2: 0.9, 3: 0.9}) == [(2, 0), (3, 1)]


def test_what_is_run_again_is_the_configuration_as_it_was_whatever_the_space_makes_of_it_now(tmp_path: Path) -> None:
    go_through(make_ledger(tmp_path, names="a", num_trials=1, max_epochs=3))
    text = SPACE.replace('"vgg16"', '"resnet50"').replace("1e-4, 1e-1", "1e-2, 1e-1")
    longer = make_ledger(tmp_path, names="a", text=text, num_trials=1, max_epochs=9)
    assert go_through(longer) == [(1, 0)]
    first, full = load_studies(tmp_path)["a"].get_trials()
    assert full.user_attrs["config"] == {**first.user_attrs["config"], "epochs": 9}
    assert (full.params, full.distributions) == (first.params, first.distributions)


def test_rungs_of_longer_trials_do_not_judge_by_shorter_ones(tmp_path: Path) -> None:
    go_through(make_ledger(tmp_path, names="a", num_trials=3, max_epochs=3), {0: 0.1, 1: 0.1, 2: 0.1})
    longer = make_ledger(tmp_path, names="a", num_trials=4, max_epochs=9)
    promoted = longer.start("promoted")
    assert promoted is not None
    assert promoted.rerun_of == 0
    assert longer.start("new") is not None
    # Nine times the value of what was reached before at this epoch, but the first of the new length.
    assert longer.report("new", epoch(1, 0.9))


def test_what_an_earlier_session_left_running_comes_first(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path)
    for key in "012":
        ledger.start(key)
    ledger.report("0", epoch(1, 0.5))
    ledger.report("0", epoch(2, 0.4))
    again = make_ledger(tmp_path)
    assert [len(account.unfinished) for account in again.accounts.values()] == [2, 1]
    found = [again.start(key) for key in "xyzw"]
    assert [(one.space, one.number, one.epochs) for one in found if one] == [
        ("a", 0, 2), ("a", 1, 0), ("b", 0, 0), ("b", 1, 0)
    ]  # fmt: skip
    assert found[0] is not None
    assert (found[0].best_value, found[0].best_epoch, found[0].seconds) == (0.4, 2, 4.0)
    assert again.spent_epochs == 2
