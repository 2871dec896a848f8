"""Parameter groups, optimisers and learning rates."""

import math
from collections.abc import Iterator

import pytest
import torch
from shapes_survey import CLASSES, small_config

from galaxy_models.config import TrainConfig
from galaxy_models.errors import ConfigError
from galaxy_models.models.galaxy_model import GalaxyModel, build_model
from galaxy_models.training.optim import Schedule, change_optimizer, check_optimizer, make_optimizer


def _model(config: TrainConfig) -> GalaxyModel:
    return build_model(config, CLASSES, px=20)


def _rates(config: TrainConfig, *, updates_per_epoch: int, group: int = 0) -> Iterator[float]:
    optimizer = make_optimizer(config, _model(config))
    schedule = Schedule(config, optimizer, updates_per_epoch=updates_per_epoch)
    for update in range(config.epochs * updates_per_epoch):
        schedule.set_rates(update)
        yield optimizer.param_groups[group]["lr"]


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lion", "nadamw", "rmsprop", "adopt", "muon"])
def test_optimizer_takes_a_step(name: str) -> None:
    config = small_config(optimizer=name)
    model = _model(config)
    optimizer = make_optimizer(config, model)
    before = model.head.linear.weight.detach().clone()
    for _ in range(2):  # adopt only looks in its first step
        model(torch.rand(4, 3, 20, 20)).square().mean().backward()
        optimizer.step()
    assert torch.isfinite(model.head.linear.weight).all()
    assert not torch.equal(before, model.head.linear.weight)


def test_every_trained_parameter_is_in_one_group_of_its_rate_and_decay() -> None:
    config = small_config(learning_rate=0.02, backbone_lr_scale=0.1, weight_decay=0.3)
    model = _model(config)
    groups = make_optimizer(config, model).param_groups
    settings = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(settings)
    for name, parameter in model.named_parameters():
        rate = 0.02 if name.startswith("head.") else pytest.approx(0.002)
        is_plain = name.endswith(".bias") or parameter.ndim == 1
        assert settings[id(parameter)] == (rate, 0.0 if is_plain else 0.3), name
    assert groups[0]["lr"] == 0.02


def test_biases_and_norms_are_not_decayed() -> None:
    config = small_config(optimizer="sgd", momentum=0.0, learning_rate=0.1, weight_decay=0.5)
    model = _model(config)
    optimizer = make_optimizer(config, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if name.endswith("weight") and parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def test_momentum_goes_to_optimizers_that_take_one() -> None:
    for name, key in (("sgd", True), ("adamw", False)):
        config = small_config(optimizer=name, momentum=0.5)
        group = make_optimizer(config, _model(config)).param_groups[0]
        assert ("momentum" in group) is key
        assert group.get("momentum", 0.5) == 0.5


@pytest.mark.parametrize(("name", "near"), [("adamv", "adamw"), ("sdg", "sgd"), ("adahessian", "adan")])
def test_unknown_optimizer_names_near_ones(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"optimizer: got '{name}'.*did you mean.*{near}"):
        check_optimizer(name)


def test_optimizer_that_cannot_be_made_here_says_why() -> None:
    config = small_config(optimizer="bnbadamw")
    with pytest.raises(ConfigError, match=r"'bnbadamw' cannot be made here .*choose another"):
        make_optimizer(config, _model(config))


def test_warm_up_rises_in_a_straight_line_over_a_fraction_of_an_epoch() -> None:
    rates = list(_rates(small_config(learning_rate=1.0, warmup_epochs=0.5), updates_per_epoch=8))
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] < 1.0


def test_cosine_comes_down_to_nearly_nothing_after_the_last_update() -> None:
    rates = list(_rates(small_config(learning_rate=1.0, warmup_epochs=1.0, epochs=5), updates_per_epoch=10))
    expected = [0.5 * (1 + math.cos(math.pi * step / 41)) for step in range(1, 41)]
    assert rates[10:] == pytest.approx(expected)
    assert 0 < rates[-1] < 0.002


def test_poly_is_a_straight_line_down() -> None:
    config = small_config(learning_rate=1.0, warmup_epochs=0.0, epochs=2, schedule="poly")
    assert list(_rates(config, updates_per_epoch=2)) == pytest.approx([0.8, 0.6, 0.4, 0.2])


def test_step_divides_by_ten_after_each_third() -> None:
    config = small_config(learning_rate=1.0, warmup_epochs=0.0, epochs=3, schedule="step")
    expected = [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01]
    assert list(_rates(config, updates_per_epoch=4)) == pytest.approx(expected)


def test_constant_stays_after_the_warm_up() -> None:
    config = small_config(learning_rate=1.0, warmup_epochs=1.0, schedule="constant")
    assert list(_rates(config, updates_per_epoch=2)) == pytest.approx([0.5, 1, 1, 1, 1, 1])


def test_backbone_follows_at_its_own_scale() -> None:
    config = small_config(learning_rate=1.0, warmup_epochs=1.0, backbone_lr_scale=0.1)
    head = list(_rates(config, updates_per_epoch=4))
    backbone = list(_rates(config, updates_per_epoch=4, group=2))
    assert backbone == pytest.approx([0.1 * rate for rate in head])


@pytest.mark.parametrize("schedule", ["cosine", "poly", "step", "constant"])
def test_warm_up_longer_than_the_run_is_cut(schedule: str, caplog: pytest.LogCaptureFixture) -> None:
    config = small_config(learning_rate=1.0, warmup_epochs=9.0, epochs=2, schedule=schedule)
    assert list(_rates(config, updates_per_epoch=2)) == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert not caplog.records


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "muon"])
def test_a_changed_optimizer_has_the_groups_of_a_new_one(name: str) -> None:
    before = small_config(optimizer=name, learning_rate=0.02, backbone_lr_scale=0.1, weight_decay=0.3)
    after = small_config(optimizer=name, learning_rate=0.005, backbone_lr_scale=0.7, weight_decay=0.01)
    model = _model(before)
    changed, new = make_optimizer(before, model), make_optimizer(after, model)
    for optimizer in (changed, new):
        # A schedule notes the rates that it goes by.
        Schedule(before, optimizer, updates_per_epoch=4)
    change_optimizer(changed, after, model)
    for found, expected in zip(changed.param_groups, new.param_groups, strict=True):
        names = ("initial_lr", "weight_decay")
        assert [found[name] for name in names] == [pytest.approx(expected[name]) for name in names]
