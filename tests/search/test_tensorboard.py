"""TensorBoard shows each epoch, and the best value of each trial beside its parameters."""

import math
import resource
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary
from two_spaces import epoch, make_ledger

from search.event_file import EventFile
from search.recorder import Recorder
from search.tensorboard import TensorBoard


def read(folder: Path) -> Any:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def scalars(events: Any, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(tag)}


def test_every_epoch_the_best_and_the_parameters_of_each_trial_are_written(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", max_epochs=3, scheduler="none")
    recorder = Recorder(ledger, tmp_path, keep_top=1, say=print)
    boards = TensorBoard(ledger, recorder, tmp_path / "tb", ["beta", "lr"])
    done, running = SimpleNamespace(trial_id="0"), SimpleNamespace(trial_id="1")
    for trial in (done, running):
        ledger.start(trial.trial_id)
        recorder.on_trial_start(0, [], trial)  # type: ignore[arg-type]
    for number, value in ((1, 0.9), (2, 0.4), (3, 0.6)):
        result = {**epoch(number, value), "train_nll": 2 * value, "learning_rate": 0.1, "time_total_s": 3.0}
        ledger.report("0", result)
        boards.on_trial_result(0, [], done, result)  # type: ignore[arg-type]
    boards.on_trial_result(0, [], running, {**epoch(1, 0.7)})  # type: ignore[arg-type]
    boards.on_trial_result(0, [], running, {"waiting": "the disk is full"})  # type: ignore[arg-type]
    boards.on_trial_complete(0, [], done)  # type: ignore[arg-type]
    boards.close()

    events = read(tmp_path / "tb" / "a" / "trial-00000")
    assert scalars(events, "val/nll") == pytest.approx({1: 0.9, 2: 0.4, 3: 0.6})
    assert scalars(events, "train/nll") == pytest.approx({1: 1.8, 2: 0.8, 3: 1.2})
    assert scalars(events, "train/learning_rate") == pytest.approx({1: 0.1, 2: 0.1, 3: 0.1})
    assert scalars(events, "best/val_nll") == pytest.approx({2: 0.4})
    assert scalars(events, "best/epoch") == {2: 2.0}
    assert not [tag for tag in events.Tags()["scalars"] if "time" in tag]

    left = read(tmp_path / "tb" / "a" / "trial-00001")
    assert scalars(left, "val/nll") == pytest.approx({1: 0.7})
    assert not [tag for tag in left.Tags()["scalars"] if tag.startswith("best/")]


def test_an_epoch_stands_in_its_file_at_once_and_no_thread_is_made_for_it(tmp_path: Path) -> None:
    threads = threading.active_count()
    file = EventFile(tmp_path / "one")
    file.add(Summary(value=[Summary.Value(tag="val/nll", simple_value=0.5)]), 7)
    assert threading.active_count() == threads
    assert scalars(read(tmp_path / "one"), "val/nll") == {7: 0.5}
    file.close()


def test_a_curve_whose_file_does_not_take_it_ends_where_it_was(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", max_epochs=3, scheduler="none")
    recorder = Recorder(ledger, tmp_path, keep_top=1, say=print)
    boards = TensorBoard(ledger, recorder, tmp_path / "tb", ["lr"])
    trial = SimpleNamespace(trial_id="0")
    ledger.start("0")
    recorder.on_trial_start(0, [], trial)  # type: ignore[arg-type]
    boards.on_trial_result(0, [], trial, epoch(1, 0.5))  # type: ignore[arg-type]
    (file,) = (tmp_path / "tb" / "a" / "trial-00000").iterdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The disk takes half of the next record; what is told after that comes whole, in a file of its own.
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, limits[1]))
    try:
        boards.on_trial_result(0, [], trial, epoch(2, 0.4))  # type: ignore[arg-type]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    boards.on_trial_result(0, [], trial, epoch(3, 0.3))  # type: ignore[arg-type]
    boards.close()
    assert scalars(read(file.parent), "val/nll") == pytest.approx({1: 0.5, 3: 0.3})


def test_the_columns_are_declared_once_and_each_trial_has_its_values(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    ledger = make_ledger(tmp_path, names="a", max_epochs=1)
    recorder = Recorder(ledger, tmp_path, keep_top=1, say=print)
    boards = TensorBoard(ledger, recorder, tmp_path / "tb", ["beta", "lr", "of another space"])
    trial = SimpleNamespace(trial_id="0")
    ledger.start("0")
    recorder.on_trial_start(0, [], trial)  # type: ignore[arg-type]
    boards.on_trial_result(0, [], trial, epoch(1, 0.5))  # type: ignore[arg-type]
    ledger.report("0", epoch(1, math.nan))
    boards.on_trial_error(0, [], trial)  # type: ignore[arg-type]

    def hparams(folder: Path, name: str) -> Any:
        content = read(folder).summary_metadata[name].plugin_data.content
        return plugin_data_pb2.HParamsPluginData.FromString(content)

    columns = hparams(tmp_path / "tb", "_hparams_/experiment").experiment
    assert [column.name for column in columns.hparam_infos] == ["backbone", "beta", "lr", "of another space"]
    assert [metric.name.tag for metric in columns.metric_infos] == ["best/val_nll", "best/epoch"]
    folder = tmp_path / "tb" / "a" / "trial-00000"
    values = hparams(folder, "_hparams_/session_start_info").session_start_info.hparams
    assert values["backbone"].string_value == "a"
    assert values["lr"].number_value == pytest.approx(1e-3)
    # No value was ever finite, so there is none that was best.
    assert "best/val_nll" not in read(folder).Tags()["scalars"]


def test_a_trial_that_makes_way_while_nobody_runs_it_has_its_line(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, names="a", scheduler="pbt", population=2, num_trials=2)
    recorder = Recorder(ledger, tmp_path, keep_top=1, say=print)
    boards = TensorBoard(ledger, recorder, tmp_path / "tb", ["beta", "lr"])
    for key, value in (("0", 0.75), ("1", 0.5)):
        trial = SimpleNamespace(trial_id=key)
        ledger.start(key)
        recorder.on_trial_start(0, [], trial)  # type: ignore[arg-type]
        ledger.report(key, epoch(1, value))
        boards.on_trial_result(0, [], trial, epoch(1, value))  # type: ignore[arg-type]
        boards.on_trial_complete(0, [], trial)  # type: ignore[arg-type]
    ledger.start("next")
    boards.close()
    made_way = read(tmp_path / "tb" / "a" / "trial-00000")
    assert scalars(made_way, "val/nll") == {1: 0.75}
    assert scalars(made_way, "best/val_nll") == {1: 0.75}
    goes_on = read(tmp_path / "tb" / "a" / "trial-00001")
    assert not [tag for tag in goes_on.Tags()["scalars"] if tag.startswith("best/")]
