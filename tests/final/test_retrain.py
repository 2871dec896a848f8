"""One retraining: its files, its numbers, and how it goes on after an interruption."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shapes_survey import PX, VOTES, make_shapes, small_config
from sklearn.metrics import accuracy_score, f1_score, log_loss

from galaxy_models.config import TrainConfig
from galaxy_models.inference.network import load_network
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData
from search.finalist import FinalJob, FinalSetting, is_done
from search.results import FinalRun, load_results
from search.retrain import attempt, retrain
from search.shards import Shards

SIZES = (96, 40, 30)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("final") / "shapes", sizes=SIZES)


def _setting(run_dir: Path, data: Path, metric: str = "nll") -> FinalSetting:
    return FinalSetting(
        run_dir=run_dir,
        shards=Shards.at(data),
        threads=1,
        device="cpu",
        weights_dir=None,
        metric=metric,
        direction="max" if metric in ("accuracy", "auroc") else "min",
    )


def _job(**changes: object) -> FinalJob:
    config = small_config(**{"epochs": 4, "precision": "float32", "seed": 11, **changes})
    return FinalJob(backbone="cnn", trial=7, rank=1, seed_index=2, config=config)


@pytest.fixture(scope="module")
def finished(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FinalRun]:
    run_dir = tmp_path_factory.mktemp("run")
    return run_dir, retrain(_job(), _setting(run_dir, shapes))


def _table(run_dir: Path) -> pd.DataFrame:
    return pd.read_parquet(run_dir / "final" / "cnn" / "config-1-seed-2" / "predictions.parquet")


def test_folder_holds_the_three_files_and_the_result_reads_back(finished: tuple[Path, FinalRun]) -> None:
    run_dir, result = finished
    folder = run_dir / "final" / "cnn" / "config-1-seed-2"
    assert sorted(path.name for path in folder.iterdir()) == [
        "predictions.parquet",
        "result.json",
        "weights.safetensors",
    ]
    assert load_results(run_dir) == [replace(result, config=json.loads(json.dumps(result.config)))]
    assert (result.backbone, result.trial, result.rank, result.seed_index, result.seed) == ("cnn", 7, 1, 2, 11)
    assert result.failure == ""
    assert result.epochs == 4
    assert result.flops > 0
    assert result.images_per_s > 0
    assert result.memory_mb > 0


def test_best_epoch_is_that_of_a_plain_training(finished: tuple[Path, FinalRun], shapes: Path) -> None:
    trainer = Trainer(_job().config, SurveyData(shapes), runtime=Runtime())
    values = [trainer.run_epoch()["val_nll"] for _ in range(4)]
    assert finished[1].best_epoch == 1 + int(np.argmin(values))
    assert finished[1].metrics["val"]["nll"] == pytest.approx(min(values), abs=1e-5)
    assert finished[1].num_parameters == sum(parameter.numel() for parameter in trainer.model.parameters())


def test_metrics_are_those_of_the_predictions(finished: tuple[Path, FinalRun]) -> None:
    run_dir, result = finished
    table, names = _table(run_dir), ("bar", "disk", "ring")
    assert table["split"].value_counts().to_dict() == dict(zip(("train", "val", "test"), SIZES, strict=True))

    def check(part: pd.DataFrame, prefix: str, metrics: dict[str, float]) -> None:
        answers = part[[f"{prefix}_{name}" for name in names]].to_numpy().astype(float)
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-6)
        chosen = answers.argmax(axis=1)
        assert metrics["accuracy"] == pytest.approx(accuracy_score(part["target"], chosen))
        assert metrics["f1"] == pytest.approx(f1_score(part["target"], chosen, average="macro", zero_division=0))
        exact = answers / answers.sum(axis=1, keepdims=True)
        assert metrics["nll"] == pytest.approx(log_loss(part["target"], exact, labels=[0, 1, 2]), abs=1e-5)

    for split in ("train", "val", "test"):
        part = table[table["split"] == split]
        check(part, "p", result.metrics[split])
        assert part["tta_bar"].isna().all() == (split != "test")
    assert list(result.metrics_tta) == ["test"]
    check(table[table["split"] == "test"], "tta", result.metrics_tta["test"])


def test_targets_and_ids_are_the_surveys(finished: tuple[Path, FinalRun], shapes: Path) -> None:
    table, survey = _table(finished[0]), SurveyData(shapes)
    for split in ("train", "val", "test"):
        part = table[table["split"] == split]
        assert part["id"].tolist() == survey.split(split).ids
        assert part["target"].tolist() == survey.split(split).targets.tolist()


def test_weights_say_how_images_were_made(finished: tuple[Path, FinalRun], shapes: Path) -> None:
    network = load_network(finished[0] / "final" / "cnn" / "config-1-seed-2" / "weights.safetensors")
    assert (network.px, network.stored_px, network.crop) == (PX, PX, None)
    assert (network.survey, network.simulated) == ("shapes", True)
    assert network.survey_digest == SurveyData(shapes).manifest.digest


class Killed(BaseException):
    """Stands for a process that dies in the middle of an epoch."""


def test_interrupted_training_goes_on_where_it_was(
    finished: tuple[Path, FinalRun], shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_epoch, epochs = Trainer.run_epoch, []

    def dying(self: Trainer) -> dict[str, float]:
        if self.epoch == 2 and epochs.count(3) == 0:
            epochs.append(3)
            raise Killed
        metrics = run_epoch(self)
        epochs.append(self.epoch)
        return metrics | {"energy_j": 2.0}

    monkeypatch.setattr(Trainer, "run_epoch", dying)
    setting = _setting(tmp_path, shapes)
    with pytest.raises(Killed):
        retrain(_job(), setting)
    folder = setting.folder(_job())
    assert not (folder / "result.json").exists()
    (folder / ".state.pt.123").write_bytes(b"half")
    result = retrain(_job(), setting)
    assert epochs == [1, 2, 3, 3, 4]
    assert {"state.pt", ".state.pt.123"}.isdisjoint(path.name for path in folder.iterdir())
    whole = finished[1]
    assert (result.metrics, result.metrics_tta) == (whole.metrics, whole.metrics_tta)
    assert (result.best_epoch, result.epochs, result.energy_j) == (whole.best_epoch, 4, 8.0)
    pd.testing.assert_frame_equal(_table(tmp_path), _table(finished[0]))


def test_state_of_another_configuration_is_not_gone_on_from(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = _setting(tmp_path, shapes)
    retrain(_job(), setting)
    state, unlink = setting.folder(_job()) / "state.pt", Path.unlink
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, **_: None if self == state else unlink(self, **_))
        retrain(_job(epochs=2), setting)
    assert state.exists()
    epochs, run_epoch = [], Trainer.run_epoch
    monkeypatch.setattr(Trainer, "run_epoch", lambda self: (epochs.append(self.epoch), run_epoch(self))[1])
    retrain(_job(epochs=3), setting)
    assert epochs == [0, 1, 2]


def test_votes_are_evaluated_too(tmp_path: Path) -> None:
    data = make_shapes(tmp_path / "votes", task=VOTES, sizes=(60, 20, 20))
    result = retrain(_job(epochs=1, class_balance="none"), _setting(tmp_path, data, "rmse"))
    part = _table(tmp_path).query("split == 'test'")
    targets = part[[f"target_{name}" for name in VOTES.names]].to_numpy()
    for prefix, metrics in (("p", result.metrics), ("tta", result.metrics_tta)):
        errors = part[[f"{prefix}_{name}" for name in VOTES.names]].to_numpy() - targets
        assert metrics["test"]["rmse"] == pytest.approx(float(np.sqrt((errors**2).mean())), abs=1e-6)


def test_divergence_is_a_result_without_metrics(shapes: Path, tmp_path: Path) -> None:
    config = {"learning_rate": 100.0, "optimizer": "sgd", "momentum": 0.99, "warmup_epochs": 0.0, "weight_decay": 10.0}
    result = retrain(_job(epochs=40, **config), _setting(tmp_path, shapes))
    assert result.failure.startswith("training diverged in epoch ")
    assert result.metrics == {}
    assert load_results(tmp_path)[0].failure == result.failure
    assert not (tmp_path / "final" / "cnn" / "config-1-seed-2" / "state.pt").exists()


def test_objective_that_is_never_finite_is_a_failure(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_epoch = Trainer.run_epoch
    monkeypatch.setattr(Trainer, "run_epoch", lambda self: {**run_epoch(self), "val_auroc": float("nan")})
    result = retrain(_job(epochs=2), _setting(tmp_path, shapes, "auroc"))
    assert result.failure == "val_auroc was never a finite number"


def test_fault_becomes_a_failure_and_leaves_a_log(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Trainer) -> dict[str, float]:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Trainer, "run_epoch", broken)
    result = attempt(_job(), _setting(tmp_path, shapes))
    assert result.failure == "ZeroDivisionError: planted"
    assert load_results(tmp_path)[0].failure == result.failure
    assert "Traceback" in (tmp_path / "errors" / "final-cnn-1-2.txt").read_text()


def test_missing_initial_weights_are_named(shapes: Path, tmp_path: Path) -> None:
    config = TrainConfig(backbone="resnet50", weights=str(tmp_path / "none.safetensors"), epochs=1)
    job = FinalJob(backbone="resnet50", trial=0, rank=0, seed_index=0, config=config)
    assert "there is no such file" in attempt(job, _setting(tmp_path, shapes)).failure
    assert not (tmp_path / "errors").exists()


def test_done_means_this_configuration_seed_trial_and_survey(
    finished: tuple[Path, FinalRun], shapes: Path, tmp_path: Path
) -> None:
    setting = _setting(finished[0], shapes)
    assert is_done(_job(), setting)
    assert not is_done(_job(seed=12), setting)
    assert not is_done(_job(learning_rate=0.02), setting)
    assert not is_done(replace(_job(), trial=8), setting)
    assert not is_done(_job(), replace(setting, shards=Shards(str(shapes), "sha256:other")))
    assert not is_done(_job(), _setting(tmp_path, shapes))
