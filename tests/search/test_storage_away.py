"""A storage that does not answer for a while costs time: no trial and no retraining is lost or done again."""

from pathlib import Path
from typing import Any

import pytest
from shapes_survey import make_shapes, small_config

from galaxy_models.data.manifest import Manifest
from search import run_files, trial
from search.errors import StorageError, UnheardError
from search.finalist import FinalJob, FinalSetting
from search.lean import pack_own
from search.places import CACHE_VARIABLE, cache_dir
from search.pulse import Pulse
from search.results import load_result
from search.retrain import attempt
from search.shards import Shards
from search.storage import Storage
from search.trial import GalaxyTrial


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("away") / "shapes", sizes=(32, 16, 16))


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(trial, "WAIT_S", 0.001)
    monkeypatch.setattr(run_files, "WAIT_S", 0.001)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every call to a storage fails the first time; which ones did."""
    failed: list[str] = []

    def fail_first(call: str) -> None:
        plain = getattr(Storage, call)

        def once_more(self: Storage, name: str = "", *arguments: Any) -> Any:
            made = f"{call} {self.uri}/{name}"
            if made in failed:
                return plain(self, name, *arguments)
            failed.append(made)
            raise StorageError(f"{self.uri}: away")

        monkeypatch.setattr(Storage, call, once_more)

    for call in ("write", "read", "get", "remove", "names"):
        fail_first(call)
    return failed


def shards_of(folder: Path) -> Shards:
    return Shards("", Manifest.load(folder).digest, folder.as_uri())


def make_trial(tmp_path: Path, shards: Shards, **more: Any) -> GalaxyTrial:
    config = small_config(epochs=2, precision="float32", seed=1)
    constants = {
        "run_dir": "runs/a", "storage": (tmp_path / "kept").as_uri(), "software": None, "threads": 1, "processes": 1,
        "device": "cpu", "gpu_share": 1.0, "weights_dir": None, "metric": "nll", "direction": "min", "timeout_s": None,
        "silence_s": None,
    }  # fmt: skip
    own = {
        "train": config.to_dict(),
        "space": "cnn",
        "number": 3,
        "known_epochs": 0,
        "micro_batch": None,
        "parent": None,
        "branched_after": 0,
    }
    told = {**constants, **own, "value_to_beat": float("nan"), "shards": vars(shards), **more}
    return GalaxyTrial(pack_own(told))


def epochs_of(one: GalaxyTrial, num: int) -> tuple[list[dict[str, Any]], int]:
    """The results of so many epochs, and how often the trial only said that it waits."""
    results: list[dict[str, Any]] = []
    waited = 0
    while len(results) < num:
        result = one.step()
        assert "fault" not in result, result
        if "waiting" in result:
            assert "waiting for the storage: file://" in result["waiting"]
            waited += 1
            assert waited < 200
        else:
            results.append(result)
    return results, waited


def test_a_trial_waits_and_another_machine_goes_on_with_it(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: list[str]
) -> None:
    whole, _ = epochs_of(make_trial(tmp_path / "whole", shards_of(shapes)), 2)
    first = make_trial(tmp_path, shards_of(shapes))
    begun, waited = epochs_of(first, 1)
    assert waited
    assert [one for one in refused if one.startswith(f"write {tmp_path.as_uri()}/kept/states")]
    # The machine is lost, with all that it had.
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "another"))
    ended, _ = epochs_of(make_trial(tmp_path, shards_of(shapes), known_epochs=1), 1)
    assert [one["objective"] for one in begun + ended] == [one["objective"] for one in whole]
    assert [one["epoch"] for one in begun + ended] == [1, 2]


def test_a_trial_writes_nothing_while_it_cannot_be_known_whether_it_has_another_worker(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def confirm(_: Pulse) -> None:
        asked.append(1)
        if len(asked) < 3:
            raise UnheardError("the cluster's head does not answer")

    monkeypatch.setattr(Pulse, "confirm", confirm)
    one = make_trial(tmp_path, shards_of(shapes))
    for _ in range(2):
        assert one.step()["waiting"] == "waiting: the cluster's head does not answer"
        assert not [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    assert one.step()["epoch"] == 1
    assert one.step()["epoch"] == 2
    kept = sorted(path.name for path in (tmp_path / "kept").rglob("*") if path.is_file())
    # Earlier weights are the driver's to remove: a worker that is cut off must not take them from its successor.
    assert kept == [
        "trial-00003-epoch-0001.safetensors",
        "trial-00003-epoch-0002.safetensors",
        "trial-00003.pt",
    ]
    # Of its own it keeps none.
    assert [path.name for path in (cache_dir() / "workers").rglob("*") if path.is_file()] == ["trial-00003.pt"]


def test_a_survey_that_has_changed_is_not_waited_for(shapes: Path, tmp_path: Path) -> None:
    shards = Shards("", "sha256:" + "0" * 64, shapes.as_uri())
    result = make_trial(tmp_path, shards).step()
    assert "the survey has changed since the search began" in result["fault"]
    assert result["fault_exit_code"] == 2


def test_a_retraining_waits(shapes: Path, tmp_path: Path, refused: list[str]) -> None:
    setting = FinalSetting(
        run_dir=Path("runs/a"), shards=shards_of(shapes), threads=1, device="cpu", weights_dir=None, metric="nll",
        direction="min", storage=(tmp_path / "kept").as_uri(),
    )  # fmt: skip
    config = small_config(epochs=2, precision="float32", seed=1)
    result = attempt(FinalJob(backbone="cnn", trial=7, rank=0, seed_index=0, config=config), setting)
    assert result.failure == ""
    assert result.epochs == 2
    assert any("remove" in one and "state.pt" in one for one in refused)
    kept = tmp_path / "kept" / "final" / "cnn" / "config-0-seed-0"
    assert load_result(kept / "result.json") == result
    assert {path.name for path in kept.iterdir()} == {"result.json", "predictions.parquet", "weights.safetensors"}
    # Nothing is left of the worker's own copies.
    assert not [path for path in (cache_dir() / "workers").rglob("*") if path.is_file()]
