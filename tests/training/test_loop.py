"""The training loop on drawn shapes: it learns, repeats itself and stops when it diverges."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapes_survey import VOTES, make_shapes, small_config

from galaxy_models.config import AugmentConfig, TrainConfig
from galaxy_models.data.order import balanced_order
from galaxy_models.errors import ConfigError, DataError
from galaxy_models.seeds import derive_seed
from galaxy_models.task import METRICS
from galaxy_models.training import feed, loop
from galaxy_models.training.checkpoint import load_model
from galaxy_models.training.evaluation import evaluate, predict
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData

RUNTIME = Runtime(threads=1)
ENERGY = {"energy_j", "cpu_energy_j", "gpu_energy_j"}
TIMES = {"epoch_s", "data_wait_share", "images_per_s", *ENERGY}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> SurveyData:
    return SurveyData(make_shapes(tmp_path_factory.mktemp("loop") / "shapes"))


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> SurveyData:
    return SurveyData(make_shapes(tmp_path_factory.mktemp("loop") / "votes", task=VOTES, sizes=(120, 40, 0)))


def _run(config: TrainConfig, survey: SurveyData, *, epochs: int | None = None) -> tuple[Trainer, list[dict[str, Any]]]:
    trainer = Trainer(config, survey, runtime=RUNTIME)
    return trainer, [trainer.run_epoch() for _ in range(epochs or config.epochs)]


def _same_numbers(found: dict[str, float], expected: dict[str, float]) -> None:
    assert {name: value for name, value in found.items() if name not in TIMES} == {
        name: value for name, value in expected.items() if name not in TIMES
    }


def _same_weights(found: Trainer, expected: Trainer) -> None:
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(tensor, found.model.state_dict()[name]), name


def test_network_learns_the_shapes(shapes: SurveyData) -> None:
    _, history = _run(small_config(class_balance="loss", drop_rate=0.0, batch_size=8, epochs=3), shapes)
    assert history[-1]["val_accuracy"] > 0.8  # always answering "disk" is right half the time
    assert history[-1]["val_nll"] < history[0]["val_nll"] < 1.2
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_results_have_every_name_and_sane_values(shapes: SurveyData) -> None:
    _, (result,) = _run(small_config(), shapes, epochs=1)
    names = [f"{part}_{name}" for part in ("train", "val") for name in ("loss", *METRICS["classes"])]
    # The machine may offer counters of energy, or not.
    assert [name for name in result if name not in ENERGY] == [
        "epoch", *names, "learning_rate", "epoch_s", "data_wait_share", "images_per_s", "micro_batch", "diverged"
    ]  # fmt: skip
    assert all(math.isfinite(value) for value in result.values())
    assert result["epoch"] == 1
    assert result["diverged"] == 0.0
    assert result["micro_batch"] == 32
    assert 0 < result["data_wait_share"] < 1
    assert 0 < result["learning_rate"] <= 0.01


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_same_configuration_gives_the_same_bits(shapes: SurveyData, precision: str) -> None:
    config = small_config(precision=precision, epochs=2)
    first, expected = _run(config, shapes)
    torch.rand(7)  # the global generator's state must not matter
    again, found = _run(config, shapes)
    for left, right in zip(found, expected, strict=True):
        _same_numbers(left, right)
    _same_weights(again, first)


@pytest.mark.parametrize("image_px", [None, 16])
def test_batches_are_varied_together_without_a_change_in_any_bit(
    shapes: SurveyData, monkeypatch: pytest.MonkeyPatch, image_px: int | None
) -> None:
    varied: list[int] = []
    vary = feed.vary

    def note_length(images: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        varied.append(len(images))
        return vary(images, *arguments, **options)

    monkeypatch.setattr(feed, "vary", note_length)
    augment = AugmentConfig(rotation_deg=45, shift=0.1, zoom=1.2, brightness=0.2, noise=0.02)
    config = small_config(batch_size=16, image_px=image_px, augment=augment)
    together, expected = _run(config, shapes, epochs=2)
    num_rows = shapes.split("train").num_rows
    assert varied == [num_rows] * 2
    monkeypatch.setattr(feed, "_VARIED_VALUES", 1)
    alone, found = _run(config, shapes, epochs=2)
    assert max(varied[2:]) <= 16
    for left, right in zip(found, expected, strict=True):
        _same_numbers(left, right)
    _same_weights(alone, together)
    # Nor are more gathered than memory should hold of large images.
    monkeypatch.undo()
    monkeypatch.setattr(feed, "vary", note_length)
    stored_px = shapes.split("train").px
    monkeypatch.setattr(feed, "_GATHERED_BYTES", 3 * 16 * 3 * stored_px**2)
    varied.clear()
    _run(config, shapes, epochs=1)
    assert max(varied) == 3 * 16
    assert sum(varied) == num_rows


def test_another_seed_gives_other_numbers(shapes: SurveyData) -> None:
    _, (first,) = _run(small_config(), shapes, epochs=1)
    _, (other,) = _run(small_config(seed=1), shapes, epochs=1)
    assert first["val_nll"] != other["val_nll"]


def test_each_epoch_and_purpose_has_a_seed_of_its_own(shapes: SurveyData, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[tuple[int, int]] = []
    orders: list[np.ndarray] = []
    draw_variations, iterate_batches = feed.draw_variations, feed.iterate_batches

    def note_seeds(lengths: list[int], *, generator: torch.Generator, **options: Any) -> Any:
        seeds.append((generator.initial_seed(), torch.initial_seed()))
        return draw_variations(lengths, generator=generator, **options)

    def note_order(split: Any, order: np.ndarray, **options: Any) -> Any:
        orders.append(order)
        return iterate_batches(split, order, **options)

    monkeypatch.setattr(feed, "draw_variations", note_seeds)
    monkeypatch.setattr(feed, "iterate_batches", note_order)
    _run(small_config(seed=9), shapes, epochs=2)
    assert seeds == [(derive_seed(9, "augment", epoch), derive_seed(9, "dropout", epoch)) for epoch in (0, 1)]
    labels = shapes.split("train").targets
    for epoch in (0, 1):
        np.testing.assert_array_equal(orders[epoch], balanced_order(labels, seed=9, epoch=epoch))


def test_learning_rate_goes_on_from_epoch_to_epoch(shapes: SurveyData) -> None:
    _, history = _run(small_config(schedule="poly", warmup_epochs=0.0, learning_rate=0.01), shapes)
    # 24 updates; a straight line that update 25 would bring to 0, seen in updates 8, 16 and 24.
    expected = [0.01 * (1 - update / 25) for update in (8, 16, 24)]
    assert [row["learning_rate"] for row in history] == pytest.approx(expected)


def test_training_leaves_the_global_generator_alone(shapes: SurveyData) -> None:
    before = torch.get_rng_state()
    _run(small_config(), shapes, epochs=1)
    assert torch.equal(before, torch.get_rng_state())


def test_validation_does_not_depend_on_what_changes_the_training_loss(shapes: SurveyData) -> None:
    # A learning rate of next to nothing, and batch statistics of the same galaxies: the weights are the same.
    still = {"learning_rate": 1e-8, "class_balance": "none", "drop_rate": 0.0, "weight_decay": 0.0, "optimizer": "sgd"}
    _, (plain,) = _run(small_config(**still), shapes, epochs=1)
    _, (other,) = _run(small_config(**{**still, "label_smoothing": 0.4, "class_balance": "loss"}), shapes, epochs=1)
    assert other["val_loss"] != pytest.approx(plain["val_loss"], rel=1e-3)
    assert other["val_nll"] == pytest.approx(plain["val_nll"], rel=1e-5)


def test_same_weights_have_the_same_metrics_under_any_training_loss(shapes: SurveyData) -> None:
    trainer, _ = _run(small_config(class_balance="none"), shapes, epochs=1)
    values = [
        evaluate(trainer.model, shapes, "val", config=small_config(**changes), runtime=RUNTIME)
        for changes in ({"class_balance": "none"}, {"class_balance": "loss", "label_smoothing": 0.3, "drop_rate": 0.9})
    ]
    assert list(values[0]) == [*METRICS["classes"], "images_per_s"]
    for name in METRICS["classes"]:
        assert values[0][name] == values[1][name], name


def test_evaluation_repeats_what_the_epoch_reported(shapes: SurveyData) -> None:
    config = small_config()
    trainer, (result,) = _run(config, shapes, epochs=1)
    trainer.model.train()  # evaluation must not drop anything whatever was done before
    again = evaluate(trainer.model, shapes, "val", config=config, runtime=RUNTIME)
    assert {f"val_{name}": again[name] for name in METRICS["classes"]} == {
        f"val_{name}": result[f"val_{name}"] for name in METRICS["classes"]
    }


def test_saved_weights_answer_as_the_trained_network(shapes: SurveyData, tmp_path: Path) -> None:
    config = small_config(precision="float32")
    trainer, _ = _run(config, shapes, epochs=1)
    trainer.save_weights(tmp_path / "w.safetensors")
    model, found, task = load_model(tmp_path / "w.safetensors")
    assert (found, task) == (config, shapes.task)
    expected = predict(trainer.model, shapes, "test", config=config, runtime=RUNTIME)
    answers = predict(model, shapes, "test", config=found, runtime=RUNTIME)
    assert answers.dtype == np.float32
    assert answers.shape == (60, 3)
    np.testing.assert_array_equal(answers, expected)
    np.testing.assert_allclose(answers.sum(axis=1), 1.0, rtol=1e-5)


def test_votes_are_learnt_and_obey_the_tree(votes: SurveyData) -> None:
    config = small_config(class_balance="loss", label_smoothing=0.3, batch_size=8, learning_rate=0.03)
    trainer, history = _run(config, votes)
    assert set(METRICS["votes"]) == {"rmse"}
    mean_votes = votes.split("train").targets.mean(axis=0)
    rmse_of_mean = np.sqrt(np.mean((votes.split("val").targets - mean_votes) ** 2))
    assert history[-1]["val_rmse"] < 0.6 * rmse_of_mean
    assert history[-1]["val_loss"] == pytest.approx(history[-1]["val_rmse"] ** 2, rel=1e-5)
    answers = predict(trainer.model, votes, "val", config=config, runtime=RUNTIME)
    np.testing.assert_allclose(answers[:, :3].sum(axis=1), 1.0, rtol=1e-5)


def test_training_diverges_at_the_first_infinite_loss(shapes: SurveyData, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(small_config(), shapes, runtime=RUNTIME)
    steps: list[int] = []
    real: Callable[..., None] = trainer._schedule.set_rates

    def spoil(update: int) -> None:
        steps.append(update)
        real(update)
        if update == 2:
            with torch.no_grad():
                trainer.model.head.linear.weight.fill_(math.inf)

    monkeypatch.setattr(trainer._schedule, "set_rates", spoil)
    monkeypatch.setattr(loop, "predict_logits", lambda *_, **__: pytest.fail("validated after diverging"))
    result = trainer.run_epoch()
    assert steps == [0, 1, 2]
    assert result["diverged"] == 1.0
    assert result["epoch"] == 1
    assert trainer.epoch == 0
    assert math.isnan(result["val_nll"])
    assert math.isnan(result["train_loss"])
    assert math.isfinite(result["images_per_s"])


def test_infinite_answer_for_a_validation_galaxy_is_divergence(shapes: SurveyData, monkeypatch) -> None:
    trainer = Trainer(small_config(), shapes, runtime=RUNTIME)
    logits = torch.zeros(90, 3)
    logits[3, 1] = math.nan
    monkeypatch.setattr(loop, "predict_logits", lambda *_, **__: logits)
    result = trainer.run_epoch()
    assert result["diverged"] == 1.0
    assert math.isnan(result["train_loss"])
    assert math.isnan(result["val_nll"])


def test_clipping_bounds_the_step(shapes: SurveyData) -> None:
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0.0, "schedule": "constant"}
    config = small_config(**settings, learning_rate=1.0, clip_grad_norm=1e-3, batch_size=240)
    trainer = Trainer(config, shapes, runtime=RUNTIME)
    before = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    trainer.run_epoch()
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert torch.linalg.norm(after - before).item() == pytest.approx(1e-3, rel=1e-2)


def test_batch_statistics_are_those_of_the_present_weights(shapes: SurveyData) -> None:
    trainer, _ = _run(small_config(precision="float32"), shapes, epochs=1)
    norm = next(module for module in trainer.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert norm.momentum == 0.1
    seen: list[torch.Tensor] = []
    handle = norm.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].double()))
    predict(trainer.model, shapes, "train", config=small_config(precision="float32"), runtime=RUNTIME)
    handle.remove()
    # All 240 training galaxies were looked at; means over four batches of 60 differ a little from those over all.
    values = torch.cat(seen)
    torch.testing.assert_close(norm.running_mean.double(), values.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), values.var(dim=(0, 2, 3)), rtol=0.02, atol=1e-6)


def test_frozen_batch_statistics_stay(shapes: SurveyData, tmp_path: Path) -> None:
    source, _ = _run(small_config(), shapes, epochs=1)
    source.save_weights(tmp_path / "w.safetensors")
    config = small_config(weights=str(tmp_path / "w.safetensors"), trainable_stages=1)
    trainer = Trainer(config, shapes, runtime=RUNTIME)
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.add_(0.1)  # of other galaxies than these
    before = {name: tensor.clone() for name, tensor in trainer.model.backbone.state_dict().items()}
    trainer.run_epoch()
    changed = {
        name.split(".")[1]
        for name, tensor in trainer.model.backbone.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == {"1"}


def test_first_step_is_announced_once(shapes: SurveyData) -> None:
    calls: list[int] = []
    trainer = Trainer(small_config(), shapes, runtime=RUNTIME, on_first_step=lambda: calls.append(trainer.epoch))
    assert calls == []
    trainer.run_epoch()
    trainer.run_epoch()
    assert calls == [0]


def test_smaller_images_than_stored_are_trained_on(shapes: SurveyData) -> None:
    trainer = Trainer(small_config(image_px=16), shapes, runtime=RUNTIME)
    sizes: set[tuple[int, ...]] = set()
    trainer.model.register_forward_hook(lambda _module, inputs, _output: sizes.add(tuple(inputs[0].shape[1:])))
    assert trainer.run_epoch()["diverged"] == 0.0
    assert sizes == {(3, 16, 16)}


def test_plain_configuration_sees_every_galaxy_once(shapes: SurveyData, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(class_balance="none", augment=AugmentConfig(symmetries=False))
    trainer = Trainer(config, shapes, runtime=RUNTIME)
    seen: list[torch.Tensor] = []
    real = feed.vary

    def note(images: torch.Tensor, *others: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(images.flatten(1).long().sum(dim=1))
        return real(images, *others, **options)

    monkeypatch.setattr(feed, "vary", note)
    trainer.run_epoch()
    split = shapes.split("train")
    stored = np.empty((split.num_rows, split.px, split.px, 3), np.uint8)
    split.gather(np.arange(split.num_rows), stored)
    expected = stored.reshape(split.num_rows, -1).sum(axis=1, dtype=np.int64)
    assert sorted(torch.cat(seen).tolist()) == sorted(expected.tolist())


def test_survey_maps_each_split_once(shapes: SurveyData) -> None:
    assert shapes.split("val") is shapes.split("val")


def test_empty_split_is_a_users_mistake(votes: SurveyData) -> None:
    with pytest.raises(DataError, match="no galaxies in the split 'test', expected some: convert the survey again"):
        votes.split("test")


def test_unknown_optimizer_is_found_before_training(shapes: SurveyData) -> None:
    with pytest.raises(ConfigError, match=r"optimizer: got 'adamm'.*adam"):
        Trainer(small_config(optimizer="adamm"), shapes, runtime=RUNTIME)
