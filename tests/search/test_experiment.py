"""The ledger of a whole run, as its options say, and its bounds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from two_spaces import epoch, write_space

from search.errors import RunError
from search.experiment import Job, more_of, opened_ledger, spent_before
from search.files import state_path
from search.options import Places, SearchOptions
from search.preflight import Plan
from search.shards import Shards
from search.study import load_studies, queue_item


@pytest.fixture
def job(tmp_path: Path) -> Job:
    space = write_space(tmp_path, "a")
    plan = Plan(
        spaces={"a": space}, fixed={"a": {"beta": 0.8}}, parameters=["beta", "lr"], data=tmp_path,
        manifest=None, metric="nll", direction="min", queues={"a": [queue_item({"lr": 0.01, "beta": 0.8}, named=True)]},
        distributions={"a": {}},
    )  # type: ignore[arg-type]  # fmt: skip
    options = SearchOptions(spaces=(space.path,), num_trials=5, max_epochs=3, precision="float32", resume=tmp_path)
    return Job(options, plan, Places(1, 0.5, 1), tmp_path, Shards(str(tmp_path), "sha256:0"))


def leave_state(job: Job, number: int = 0) -> Path:
    """What a worker leaves of a trial before it tells of an epoch."""
    path = state_path(job.run_dir, "a", number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def change(job: Job, **options: Any) -> Job:
    return replace(job, options=replace(job.options, **options))


def test_the_ledger_has_what_was_asked_for_and_its_study_is_on_the_disk(job: Job) -> None:
    with opened_ledger(change(job, gpu_hours=2.0, patience=4, share="race", num_finalists=3, min_complete=5)) as ledger:
        limits = ledger.limits
        assert (limits.num_trials, limits.gpu_hours, limits.gpus_per_trial, limits.patience) == (5, 2.0, 0.5, 4)
        assert (limits.share, limits.num_finalists, limits.min_complete) == ("race", 3, 5)
        first, second = ledger.start("0"), ledger.start("1")
        assert first is not None
        assert second is not None
        assert first.params == {"lr": 0.01, "beta": 0.8}
        assert second.params["beta"] == 0.8
        assert (first.config["epochs"], first.config["precision"]) == (3, "float32")
        trials = load_studies(job.run_dir)["a"].get_trials()
        assert [one.user_attrs["survey_digest"] for one in trials] == ["sha256:0"] * 2


def leave_two_epochs(job: Job) -> None:
    """What a session leaves that told of an epoch of two trials, the first of which is the better one."""
    with opened_ledger(job) as ledger:
        for key, value in (("0", 0.5), ("1", 0.6)):
            ledger.start(key)
            ledger.report(key, epoch(1, value))


def test_a_trial_that_begins_where_another_stands_needs_that_ones_state(job: Job) -> None:
    population = change(job, scheduler="pbt", num_trials=2)
    leave_two_epochs(population)
    path = leave_state(job)
    leave_state(job, 1)
    with opened_ledger(population) as ledger:
        child = ledger.start("2")
        assert child is not None
        assert (child.number, child.parent, child.branched_after) == (2, 0, 1)
    with opened_ledger(population) as ledger:
        assert [(one.number, one.own_epochs) for one in ledger.accounts["a"].unfinished] == [(2, 0)]
    path.unlink()
    with pytest.raises(RunError, match=r"trial-00000\.pt: no such file"), opened_ledger(population):
        pytest.fail("it was let in")


def test_trials_of_a_population_that_wait_for_the_others_need_their_states(job: Job) -> None:
    population = change(job, scheduler="pbt", num_trials=3)
    leave_two_epochs(population)
    leave_state(job)
    with pytest.raises(RunError, match=r"trial-00001\.pt: no such file"), opened_ledger(population):
        pytest.fail("it was let in")
    leave_state(job, 1)
    with opened_ledger(population) as ledger:
        assert ledger.accounts["a"].rests


def leave_epoch(job: Job, *, after_s: float) -> None:
    """What a session leaves that told of one epoch."""
    with opened_ledger(job) as ledger:
        ledger.start("0")
        ledger.elapsed_s = lambda: after_s
        ledger.report("0", epoch(1, 0.5))
    leave_state(job)


def test_the_clock_goes_on_from_the_last_epoch_of_the_session_before(job: Job) -> None:
    leave_epoch(job, after_s=1000.0)
    with opened_ledger(job) as ledger:
        assert 1000.0 <= ledger.elapsed_s() < 1010.0
        assert spent_before(change(job, time_budget_s=1500.0).options, ledger) == ""
        assert spent_before(job.options, ledger) == ""


def test_what_a_session_searched_after_its_last_epoch_counts_once_it_has_ended(job: Job) -> None:
    leave_epoch(job, after_s=1000.0)
    with opened_ledger(replace(job, before_s=3900.0)) as ledger:
        assert 3900.0 <= ledger.elapsed_s() < 3910.0
        bounded = change(job, time_budget_s=3600.0)
        assert spent_before(bounded.options, ledger).endswith(" of 3600 s")
    # A later session that was killed went further.
    with opened_ledger(replace(job, before_s=500.0)) as ledger:
        assert 1000.0 <= ledger.elapsed_s() < 1010.0


@pytest.mark.parametrize("address", [None, "auto"])
def test_workers_give_signs_of_life_on_one_machine_and_on_many(job: Job, address: str | None) -> None:
    assert change(job, address=address).constants()["silence_s"] == 90.0


@pytest.mark.parametrize(
    ("options", "words", "option"),
    [
        ({"time_budget_s": 900.0}, "time budget: 1000 of 900 s", "--time-budget"),
        ({"epoch_budget": 2}, "epoch budget: 2 of 2 epochs", "--epoch-budget"),
        ({"gpu_hours": 0.0005}, "GPU budget: 0.00 of 0.0005 GPU-hours", "--gpu-hours"),
    ],
)
def test_a_budget_that_earlier_sessions_spent_is_known_with_the_option_that_raises_it(
    job: Job, options: dict[str, Any], words: str, option: str
) -> None:
    with opened_ledger(job) as ledger:
        ledger.start("0")
        ledger.elapsed_s = lambda: 1000.0
        for number in (1, 2):
            ledger.report("0", epoch(number, 0.5))
    leave_state(job)
    bounded = change(job, **options)
    with opened_ledger(bounded) as ledger:
        assert spent_before(bounded.options, ledger) == words
    assert more_of(words) == option


def test_a_trial_that_goes_on_without_its_state_is_of_a_folder_that_was_copied_by_halves(job: Job) -> None:
    with opened_ledger(job) as ledger:
        ledger.start("0")
    # It was killed in its first epoch.
    with opened_ledger(job) as ledger:
        ledger.start("0")
        ledger.report("0", epoch(1, 0.5))
    leave_state(job).unlink()
    message = r"trial-00000\.pt: no such file, expected the state of a trial that goes on after epoch 1: copy the run's"
    with pytest.raises(RunError, match=message), opened_ledger(job):
        pytest.fail("it was let in")
    # Of a run in a storage it is there.
    with opened_ledger(replace(job, mirror=FakeMirror())) as ledger:  # type: ignore[arg-type]
        assert [one.epochs for one in ledger.accounts["a"].unfinished] == [1]


class FakeMirror:
    """Takes what there is."""

    def committed(self, size: int) -> None:
        """See `Mirror`."""


def test_a_journal_that_makes_no_sense_is_refused_in_a_line(job: Job) -> None:
    (job.run_dir / "study.journal").write_bytes(b'{"op_code":0} \n')
    with (
        pytest.raises(RunError, match=r"study\.journal: KeyError\('study_name'\), expected the journal of a run: copy"),
        opened_ledger(job),
    ):
        pass
