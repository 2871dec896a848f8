"""Networks made from a blueprint are those that timm makes, and share nothing."""

import pytest
import torch
from torch import nn

from galaxy_models.config import TrainConfig
from galaxy_models.models import build_model
from galaxy_models.models.backbones import (
    NAMED_FEATURES,
    NAMED_MIN_PX,
    _blueprint,
    _create_timm,
    _num_features,
    timm_name,
)
from galaxy_models.models.blueprint import Blueprint, BlueprintError
from galaxy_models.models.undrawn import Undrawn
from galaxy_models.task import Task

NETWORKS = ["inception_v3", "vgg16", "resnet50", "legacy_xception", "vit_tiny_patch16_224", "convnext_atto"]


def drawn(undrawn: Undrawn, network: nn.Module, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        undrawn.draw()
    return network.eval()


def put_together(name: str, seed: int) -> nn.Module:
    undrawn = Undrawn()
    with undrawn:
        network = _create_timm(name, 224)
    return drawn(undrawn, network, seed)


def build(blueprint: Blueprint, seed: int) -> nn.Module:
    undrawn = Undrawn()
    return drawn(undrawn, blueprint.build(undrawn), seed)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_blueprint_gives_the_network_that_it_was_taken_from(name: str) -> None:
    blueprint, expected = Blueprint(lambda: _create_timm(name, 224)), put_together(name, 3)
    first = build(blueprint, 3)
    images = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer = expected(images)
        assert torch.equal(first(images), answer)
        # What is done to one of them does not reach the next.
        for tensor in first.state_dict().values():
            tensor.fill_(7)
        first.requires_grad_(False).train()(images)
        second = build(blueprint, 3)
        assert torch.equal(second(images), answer)
        assert not torch.equal(build(blueprint, 4)(images), answer)
    assert [(key, type(part)) for key, part in second.named_modules()] == [
        (key, type(part)) for key, part in expected.named_modules()
    ]
    wanted = dict(expected.named_parameters())
    assert list(wanted) == [key for key, _ in second.named_parameters()]
    for key, parameter in second.named_parameters():
        assert isinstance(parameter, nn.Parameter)
        assert parameter.requires_grad == wanted[key].requires_grad
        assert torch.equal(parameter, wanted[key]), key


class Tied(nn.Module):
    """Two layers of one weight, and one that goes with its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight


class Views(nn.Module):
    """A buffer that is part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("whole", torch.arange(6.0))
        self.register_buffer("part", self.whole[:2])


class Reads(nn.Module):
    """A layer that depends on the numbers of another."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)
        self.register_buffer("largest", self.linear.weight.detach().max())


class Local(nn.Module):
    """Holds what cannot be named."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)
        self.activation = lambda x: x.relu()


def test_a_weight_that_is_shared_stays_shared() -> None:
    blueprint = Blueprint(Tied)
    network = build(blueprint, 0)
    assert network.first.weight is network.second.weight
    assert network.first.weight.abs().max() > 0.1
    assert build(blueprint, 0).first.weight is not network.first.weight


@pytest.mark.parametrize(
    ("kind", "reason"), [(Views, "share their memory"), (Reads, "before it is complete"), (Local, "cannot be copied")]
)
def test_no_blueprint_of(kind: type[nn.Module], reason: str) -> None:
    with pytest.raises(BlueprintError, match=reason):
        Blueprint(kind)


def test_a_network_without_a_blueprint_begins_each_time_alike() -> None:
    # Its weights for positions are drawn as they are made.
    config, task = TrainConfig(backbone="timm:pit_ti_224"), Task("classes", ("smooth", "disk"))
    first, second = (build_model(config, task, px=224).state_dict() for _ in range(2))
    assert _blueprint("pit_ti_224", 224) is None
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


@pytest.mark.parametrize("backbone", NAMED_FEATURES)
def test_named_features_are_what_the_networks_make(backbone: str) -> None:
    for px in (NAMED_MIN_PX[backbone], 224):
        assert NAMED_FEATURES[backbone] == _num_features(timm_name(backbone), px)
