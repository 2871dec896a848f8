"""A configuration is checked when it is made, frozen, and survives JSON."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_models.config import AugmentConfig, CnnConfig, TrainConfig
from galaxy_models.errors import ConfigError, GalaxyError

CNN: dict[str, Any] = {"backbone": "cnn", "cnn": CnnConfig()}
RESNET: dict[str, Any] = {"backbone": "resnet50", "weights": "imagenet"}
CHANGE = TrainConfig(backbone="vgg16").changed(3, TrainConfig(backbone="vgg16")).changes[0]

augments = st.builds(
    AugmentConfig,
    symmetries=st.booleans(),
    rotation_deg=st.floats(0, 180),
    shift=st.floats(0, 0.25),
    zoom=st.floats(1, 2),
    brightness=st.floats(0, 0.9),
    noise=st.floats(0, 0.5),
)
cnns = st.builds(
    CnnConfig,
    width=st.integers(4, 256),
    depth=st.integers(1, 7),
    convs_per_stage=st.integers(1, 4),
    kernel=st.sampled_from([3, 5, 7]),
    norm=st.sampled_from(["batch", "group", "none"]),
    pool=st.sampled_from(["max", "avg", "stride"]),
)
training: dict[str, Any] = {
    "image_px": st.none() | st.integers(16, 1024),
    "batch_size": st.integers(4, 65536),
    "learning_rate": st.floats(1e-8, 100),
    "weight_decay": st.floats(0, 10),
    "schedule": st.sampled_from(["cosine", "poly", "step", "constant"]),
    "clip_grad_norm": st.none() | st.floats(1e-6, 1e6),
    "class_balance": st.sampled_from(["none", "loss", "sampling"]),
    "augment": augments,
    "seed": st.integers(0, 2**63 - 1),
    "precision": st.sampled_from(["auto", "float32", "bf16"]),
}
configs = st.one_of(
    st.builds(TrainConfig, backbone=st.just("cnn"), cnn=cnns, **training),
    st.builds(
        TrainConfig,
        backbone=st.sampled_from(["inception_v3", "vgg16", "resnet50", "xception", "timm:convnext_tiny"]),
        weights=st.sampled_from(["imagenet", "weights.safetensors", "hf-hub:group/network"]),
        trainable_stages=st.none() | st.integers(0, 1000),
        **training,
    ),
)


@given(configs)
def test_round_trip_through_json(config: TrainConfig) -> None:
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))) == config


@given(configs, configs, st.integers(1, 50), st.integers(1, 50))
def test_changes_come_into_force_after_their_epochs(
    config: TrainConfig, other: TrainConfig, first: int, more: int
) -> None:
    changed = config.changed(first, other).changed(first + more, config)
    assert TrainConfig.from_dict(json.loads(json.dumps(changed.to_dict(), allow_nan=False))) == changed
    between = changed.at(first)
    settings = ("learning_rate", "weight_decay", "clip_grad_norm", "class_balance", "augment")
    assert [getattr(between, name) for name in settings] == [getattr(other, name) for name in settings]
    assert between.backbone == config.backbone
    assert between.seed == config.seed
    assert changed.at(first + more - 1) == between
    assert changed.at(first - 1) == changed.at(first + more) == changed.at(10**6) == config


@pytest.mark.parametrize(
    ("kind", "field", "low", "high"),
    [
        (AugmentConfig, "rotation_deg", 0.0, 180.0),
        (AugmentConfig, "shift", 0.0, 0.25),
        (AugmentConfig, "zoom", 1.0, 2.0),
        (AugmentConfig, "brightness", 0.0, 0.9),
        (AugmentConfig, "noise", 0.0, 0.5),
        (CnnConfig, "width", 4, 256),
        (CnnConfig, "depth", 1, 7),
        (CnnConfig, "convs_per_stage", 1, 4),
        (TrainConfig, "image_px", 16, 1024),
        (TrainConfig, "batch_size", 4, 65536),
        (TrainConfig, "learning_rate", 1e-8, 100.0),
        (TrainConfig, "backbone_lr_scale", 0.0, 10.0),
        (TrainConfig, "momentum", 0.0, 0.9999),
        (TrainConfig, "weight_decay", 0.0, 10.0),
        (TrainConfig, "warmup_epochs", 0.0, 1000.0),
        (TrainConfig, "clip_grad_norm", 1e-6, 1e6),
        (TrainConfig, "drop_rate", 0.0, 0.95),
        (TrainConfig, "drop_path_rate", 0.0, 0.95),
        (TrainConfig, "label_smoothing", 0.0, 0.9),
        (TrainConfig, "trainable_stages", 0, 1000),
        (TrainConfig, "epochs", 1, 100_000),
        (TrainConfig, "seed", 0, 2**63 - 1),
    ],
)
def test_ranges_hold_at_their_ends(kind: type, field: str, low: float, high: float) -> None:
    base = RESNET if kind is TrainConfig else {}
    whole = isinstance(low, int)
    for value in (low, high):
        assert getattr(kind(**base, **{field: value}), field) == value
    below, above = (low - 1, high + 1) if whole else (math.nextafter(low, -math.inf), math.nextafter(high, math.inf))
    for value in (below, above, math.nan, math.inf, True, "1", *([1.5] if whole else [])):
        with pytest.raises(ConfigError, match=rf"{field}: got .*, expected a (whole )?number from "):
            kind(**base, **{field: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CnnConfig(kernel=4), "cnn.kernel: got 4, expected one of 3, 5, 7"),
        (lambda: CnnConfig(kernel=3.0), "cnn.kernel: got 3.0, expected one of 3, 5, 7"),
        (lambda: CnnConfig(norm="layer"), "cnn.norm: got 'layer', expected one of 'batch', 'group', 'none'"),
        (lambda: CnnConfig(pool="min"), "cnn.pool: got 'min', expected one of 'max', 'avg', 'stride'"),
        (lambda: AugmentConfig(symmetries=1), "augment.symmetries: got 1, expected True or False"),
        (lambda: TrainConfig(backbone="resnet51"), "backbone: got 'resnet51', expected one of cnn, inception_v3"),
        (lambda: TrainConfig(backbone="timm:"), "backbone: got 'timm:'"),
        (lambda: TrainConfig(backbone=None), "backbone: got None"),
        (lambda: TrainConfig(**RESNET | {"weights": ""}), "weights: got '', expected 'imagenet', 'none', a file"),
        (lambda: TrainConfig(**RESNET, optimizer=""), "optimizer: got '', expected a timm optimiser's name"),
        (lambda: TrainConfig(**RESNET, schedule="linear"), "schedule: got 'linear', expected one of 'cosine'"),
        (lambda: TrainConfig(**RESNET, class_balance="focal"), "class_balance: got 'focal'"),
        (lambda: TrainConfig(**RESNET, precision="fp16"), "precision: got 'fp16', expected one of 'auto'"),
        (lambda: TrainConfig(**RESNET, augment={}), "augment: got {}, expected an AugmentConfig"),
        (lambda: TrainConfig(**RESNET, cnn=CnnConfig()), "cnn: got a CnnConfig for the backbone 'resnet50'"),
        (lambda: TrainConfig(backbone="cnn"), "cnn: got None for the backbone 'cnn', expected a CnnConfig"),
        (lambda: TrainConfig(**CNN, weights="imagenet"), "weights: got 'imagenet' for the backbone 'cnn'"),
        (lambda: TrainConfig(backbone="vgg16", trainable_stages=0), "trainable_stages: got 0 with weights 'none'"),
        (lambda: TrainConfig(**RESNET, changes=[]), "changes: got [], expected a tuple of Changes"),
        (lambda: TrainConfig(**RESNET, changes=(CHANGE, CHANGE)), "changes[1].after_epoch: got 3, expected a whole "),
        (
            lambda: TrainConfig(**RESNET, changes=(dataclasses.replace(CHANGE, learning_rate=-1.0),)),
            "changes[0].learning_rate: got -1.0, expected a number from 1e-08 to 100",
        ),
    ],
)
def test_contradictions_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, GalaxyError)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "config: got [], expected an object of TrainConfig's fields"),
        ({}, "config: got no 'backbone', expected one"),
        ({"backbone": "vgg16", "lr": 1}, "config: got the unknown field 'lr', expected some of backbone, "),
        ({"backbone": "vgg16", "augment": {"flip": True}}, "config.augment: got the unknown field 'flip'"),
        ({"backbone": "cnn", "cnn": {"widht": 8}}, "config.cnn: got the unknown field 'widht'"),
        ({"backbone": "vgg16", "changes": [{"epoch": 3}]}, "config.changes[0]: got the unknown field 'epoch'"),
        ({"backbone": "vgg16", "changes": [{"after_epoch": 3}]}, "config.changes[0]: got no 'augment', expected one"),
        ({"backbone": "vgg16", "augment": None}, "augment: got None, expected an AugmentConfig"),
    ],
)
def test_objects_of_another_shape_are_refused(values: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_dict(values)
    assert str(caught.value).startswith(message)


def test_from_dict_leaves_its_argument_alone() -> None:
    values = TrainConfig(**CNN).to_dict()
    before = json.dumps(values)
    TrainConfig.from_dict(values)
    assert json.dumps(values) == before


def test_a_configuration_is_frozen() -> None:
    config = TrainConfig(**CNN)
    with pytest.raises(dataclasses.FrozenInstanceError, match="epochs"):
        config.epochs = 3  # type: ignore[misc]
    assert hash(config) == hash(TrainConfig(**CNN))
