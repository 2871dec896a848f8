"""TensorBoard files of a run: every metric per epoch and trial, and HParams with the best value reached."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2 as hparams_summary

from search.entry import Entry
from search.event_file import EventFile
from search.ledger import Ledger
from search.recorder import Recorder

_SCALARS = {"learning_rate": "train/learning_rate", "images_per_s": "speed/images_per_s"}


def _tag(metric: str) -> str | None:
    for split in ("train", "val"):
        if metric.startswith(f"{split}_"):
            return f"{split}/{metric.removeprefix(f'{split}_')}"
    return _SCALARS.get(metric)


def _scalars(values: Mapping[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def _hparams(entry: Entry) -> dict[str, Any]:
    values = {name: "none" if value is None else value for name, value in entry.params.items()}
    return {"backbone": entry.space, **values}


class TensorBoard(Callback):
    """Writes below `<run>/tensorboard/<space>/trial-<number>/`. It comes after the recorder among Tune's callbacks.

    Args:
        ledger: the run's ledger.
        recorder: knows the trials by Tune's names.
        folder: the run's TensorBoard folder.
        parameters: names of all parameters of all spaces, which become the columns of the HParams page.
    """

    def __init__(self, ledger: Ledger, recorder: Recorder, folder: Path, parameters: list[str]) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._folder = folder
        self._files: dict[str, tuple[Entry, EventFile]] = {}
        self._num_replaced: Counter[str] = Counter()
        self._write_columns(parameters)

    def _write_columns(self, parameters: list[str]) -> None:
        # One declaration for the whole run: TensorBoard takes its columns from the first it meets, and a trial knows
        # only the parameters of its own branch of a conditional space.
        columns = [hparams_summary.HParam(name) for name in ("backbone", *parameters)]
        metrics = [hparams_summary.Metric(tag) for tag in (f"best/{self._ledger.objective}", "best/epoch")]
        with contextlib.closing(EventFile(self._folder)) as file:
            file.add(hparams_summary.hparams_config_pb(columns, metrics))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Write one epoch, all of its values at once."""
        values = {tag: value for metric, value in result.items() if (tag := _tag(metric)) is not None}
        if not values:
            return
        with self._dropped_on_a_full_disk(trial.trial_id):
            if trial.trial_id not in self._files:
                found = self._recorder.entry(trial)
                self._files[trial.trial_id] = found, EventFile(self._trial_folder(found))
            self._files[trial.trial_id][1].add(_scalars(values), int(result["epoch"]))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Write the trial's line of the HParams page."""
        self._close(trial.trial_id)
        self._write_replaced()

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Write the trial's line of the HParams page."""
        self._close(trial.trial_id)
        self._write_replaced()

    def close(self) -> None:
        """Close what the search's end left open; a trial that did not end gets its line when it does."""
        for key in list(self._files):
            self._close(key)
        self._write_replaced()

    def _close(self, key: str) -> None:
        if key not in self._files:
            return
        found, file = self._files.pop(key)
        with self._dropped_on_a_full_disk(key), contextlib.closing(file):
            if found.outcome is not None and found.number not in self._ledger.accounts[found.space].replaced:
                self._write_line(found, file)

    def _write_replaced(self) -> None:
        """Write the lines of those that made way for others of their population, which nobody runs then."""
        for name, account in self._ledger.accounts.items():
            for entry in list(account.replaced.values())[self._num_replaced[name] :]:
                self._num_replaced[name] += 1
                with contextlib.suppress(OSError), contextlib.closing(EventFile(self._trial_folder(entry))) as file:
                    self._write_line(entry, file)

    def _trial_folder(self, entry: Entry) -> Path:
        return self._folder / entry.space / f"trial-{entry.number:05d}"

    def _write_line(self, found: Entry, file: EventFile) -> None:
        name = f"{found.space}/trial-{found.number:05d}"
        file.add(hparams_summary.hparams_pb(_hparams(found), trial_id=name))
        if found.best_epoch:
            best = {f"best/{self._ledger.objective}": found.best_value, "best/epoch": float(found.best_epoch)}
            file.add(_scalars(best), found.best_epoch)

    @contextlib.contextmanager
    def _dropped_on_a_full_disk(self, key: str) -> Iterator[None]:
        """Go without a curve whose file could not be written: it must not end a search, and the study has it all."""
        try:
            yield
        except OSError:
            self._files.pop(key, None)

    def __getstate__(self) -> dict[str, Any]:
        """Tune snapshots its callbacks; nothing reads that, since the study is the record."""
        return {}
