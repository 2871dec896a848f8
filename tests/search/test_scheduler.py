"""Tune's decisions are the ledger's."""

import errno
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from two_spaces import epoch, make_ledger

from galaxy_models.errors import MachineError
from search.journal import RunJournal
from search.scheduler import LedgerScheduler


def feed(scheduler: LedgerScheduler, key: str, result: dict[str, Any]) -> str:
    return scheduler.on_trial_result(None, SimpleNamespace(trial_id=key), result)  # type: ignore[arg-type]


def test_each_decision_is_the_ledgers_and_the_study_has_it_at_once(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", max_epochs=3)
    scheduler = LedgerScheduler(ledger)
    for key in "01":
        ledger.start(key)
    assert feed(scheduler, "0", epoch(1, 0.5)) == TrialScheduler.CONTINUE
    assert feed(scheduler, "1", epoch(1, 0.6)) == TrialScheduler.STOP
    assert feed(scheduler, "0", epoch(2, 0.5)) == TrialScheduler.CONTINUE
    assert feed(scheduler, "0", epoch(3, 0.5)) == TrialScheduler.STOP
    again = make_ledger(tmp_path, names="a", max_epochs=3)
    assert again.accounts["a"].counts == {"complete": 1, "stopped": 1}


def test_only_what_was_measured_is_written(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    scheduler = LedgerScheduler(ledger)
    ledger.start("0")
    measured = {**epoch(1, 0.5), "train_nll": 0.7, "images_per_s": 9.0, "handover_s": 0.1, "micro_batch": 8}
    measured |= {"energy_j": 30.0, "cpu_energy_j": 5.0, "gpu_energy_j": 25.0}
    feed(scheduler, "0", {**measured, "pid": 7, "config": {}, "objective": 0.5, "diverged": 0.0, "time_total_s": 3.0})
    (trial,) = ledger.accounts["a"].study.get_trials()
    assert trial.user_attrs["epoch:1"] == {**measured, "elapsed_s": 0.0}


def test_a_trial_that_waits_for_room_on_the_disk_reports_no_epoch(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a")
    ledger.start("0")
    assert feed(LedgerScheduler(ledger), "0", {"waiting": "the disk is full"}) == TrialScheduler.CONTINUE
    assert ledger.spent_epochs == 0


def test_a_journal_that_cannot_be_written_is_kept_for_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = make_ledger(tmp_path, names="a")
    scheduler = LedgerScheduler(ledger)
    ledger.start("0")

    def broken(self: RunJournal, data: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error", "study.journal")

    monkeypatch.setattr(RunJournal, "_write", broken)
    assert feed(scheduler, "0", epoch(1, 0.5)) == TrialScheduler.CONTINUE
    assert isinstance(scheduler.fault, MachineError)
    assert str(scheduler.fault).startswith("study.journal: Input/output error: check the disk")
    assert feed(scheduler, "0", epoch(2, 0.5)) == TrialScheduler.CONTINUE
    assert ledger.spent_epochs == 1


def test_tune_finds_nothing_to_snapshot_and_nothing_to_look_for(tmp_path: Path) -> None:
    scheduler = LedgerScheduler(make_ledger(tmp_path))
    assert scheduler.__getstate__() == {}
    assert pickle.loads(pickle.dumps(scheduler)).__dict__ == {}  # noqa: S301 (Tune pickles it)
    assert scheduler.choose_trial_to_run(None) is None
    assert scheduler.set_search_properties("objective", "min")
