"""The contract that every backbone passes, and what is particular to some."""

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from galaxy_models.config import CnnConfig, TrainConfig
from galaxy_models.errors import ConfigError
from galaxy_models.models import GalaxyModel, build_model, check_network, min_px
from galaxy_models.models.backbones import timm_name
from galaxy_models.models.freezing import list_stages
from galaxy_models.task import Task

TASK = Task("classes", ("smooth", "disk", "merger"))
USUAL_PX = 96
# Stages as the papers count them: convolutions of VGG16, a stem and 4 blocks of ResNet50, a stem, 12 blocks and an
# end of Xception, 2 groups of plain convolutions and 11 mixed blocks of Inception v3, 12 blocks and a stem of ViT-tiny.
NUM_STAGES = {
    "cnn": 4,
    "inception_v3": 13,
    "vgg16": 13,
    "resnet50": 5,
    "xception": 14,
    "timm:tf_efficientnet_lite0": 8,
    "timm:vit_tiny_patch16_224": 13,
}


def make_config(backbone: str, **options: object) -> TrainConfig:
    return TrainConfig(backbone=backbone, cnn=CnnConfig(width=8) if backbone == "cnn" else None, **options)


def draw_images(px: int, *, num: int = 4) -> torch.Tensor:
    return torch.rand(num, 3, px, px, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=list(NUM_STAGES))
def built(request, tmp_path_factory) -> SimpleNamespace:
    """A backbone's model at its smallest size, built once, and a file of its weights."""
    config = make_config(request.param)
    px = max(min_px(request.param), 32)
    model = build_model(config, TASK, px=px)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_model(model, path)
    return SimpleNamespace(backbone=request.param, px=px, model=model, path=path)


class TestContract:
    def test_takes_its_smallest_and_a_usual_size(self, built):
        for px in (min_px(built.backbone), USUAL_PX):
            model = build_model(make_config(built.backbone), TASK, px=px).eval()
            logits = model(draw_images(px))
            assert logits.shape == (4, 3)
            assert torch.isfinite(logits).all()
            torch.testing.assert_close(model.outputs(logits).sum(dim=1), torch.ones(4))

    def test_seed_decides_the_initial_weights_and_leaves_the_global_generator(self, built):
        before = torch.get_rng_state()
        again = build_model(make_config(built.backbone), TASK, px=built.px)
        other = build_model(make_config(built.backbone, seed=1), TASK, px=built.px)
        assert torch.equal(torch.get_rng_state(), before)
        for name, tensor in built.model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name
        assert not torch.equal(other.head.linear.weight, built.model.head.linear.weight)
        assert not torch.equal(next(other.backbone.parameters()), next(built.model.backbone.parameters()))

    def test_a_saved_model_starts_another(self, built):
        loaded = build_model(make_config(built.backbone, weights=str(built.path), seed=2), TASK, px=built.px)
        images = draw_images(built.px)
        with torch.no_grad():
            expected = built.model.eval().backbone(images)
            assert torch.equal(loaded.eval().backbone(images), expected)
        loaded.load_state_dict(built.model.state_dict())
        assert torch.equal(loaded(images), built.model(images))

    @pytest.mark.parametrize("num_trained", [0, 1])
    def test_only_the_last_stages_learn(self, built, num_trained):
        config = make_config(built.backbone, weights=str(built.path), trainable_stages=num_trained)
        model = build_model(config, TASK, px=built.px).train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        trained = set(list_stages(model.backbone)[-1]) if num_trained else set()
        parameters = [*model.backbone_parameters(), *model.head_parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.1)
        nn.functional.cross_entropy(model(draw_images(built.px)), torch.tensor([0, 1, 2, 0])).backward()
        for name, parameter in model.backbone.named_parameters():
            assert (parameter.grad is not None) == (name in trained), name
        assert len(model.backbone_parameters()) == len(trained)
        optimizer.step()
        trained_modules = {name.rpartition(".")[0] for name in trained}
        for name, tensor in model.state_dict().items():
            owner = name.removeprefix("backbone.").rpartition(".")[0]
            if name.startswith("backbone.") and owner not in trained_modules:
                assert torch.equal(tensor, before[name]), f"{name} is frozen, but changed"
            if name.endswith("running_mean") and owner in trained_modules:
                assert not torch.equal(tensor, before[name]), f"{name} is trained, but did not change"
        assert not torch.equal(model.state_dict()["head.linear.weight"], before["head.linear.weight"])

    def test_stages_hold_every_parameter_once(self, built):
        stages = list_stages(built.model.backbone)
        names = [name for stage in stages for name in stage]
        assert len(stages) == NUM_STAGES[built.backbone]
        assert sorted(names) == sorted(name for name, _ in built.model.backbone.named_parameters())

    def test_more_stages_than_there_are(self, built):
        too_many = NUM_STAGES[built.backbone] + 1
        config = make_config(built.backbone, weights=str(built.path), trainable_stages=too_many)
        with pytest.raises(ConfigError, match=rf"got {too_many}, but \w+ has {too_many - 1} stages"):
            check_network(config, px=USUAL_PX)
        with pytest.raises(ConfigError, match=rf"got {too_many}, but \w+ has {too_many - 1} stages"):
            build_model(config, TASK, px=built.px)

    def test_bf16_in_channels_last_agrees_with_float32(self, built):
        # bf16 keeps 8 bits, so each of L layers adds a relative error of about 2**-9, at random: 2**-9 * sqrt(L);
        # the deepest network here has about 100. Three times that leaves room for unlucky layers.
        tolerance = 3 * 2**-9 * math.sqrt(100)
        model = built.model.eval()
        images = draw_images(built.px)
        fast = build_model(make_config(built.backbone), TASK, px=built.px).eval().to(memory_format=torch.channels_last)
        with torch.no_grad():
            expected = model.backbone((images - 0.5) / 0.5)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                got = fast.backbone(((images - 0.5) / 0.5).to(memory_format=torch.channels_last)).float()
        assert torch.linalg.norm(got - expected) < tolerance * torch.linalg.norm(expected)
        assert not torch.equal(got, expected)


@pytest.mark.parametrize("backbone", ["inception_v3", "vgg16", "timm:convnext_atto"])
def test_one_pixel_too_few(backbone):
    smallest = min_px(backbone)
    check_network(make_config(backbone), px=smallest)
    with pytest.raises(ConfigError, match=f"images of {smallest - 1} px .* expected at least {smallest} px"):
        check_network(make_config(backbone), px=smallest - 1)


def test_smallest_images_as_published():
    # torchvision's documentation of inception_v3 asks for 75 px; VGG16 halves its images five times.
    assert min_px("inception_v3") == 75
    assert min_px("vgg16") == 2**5
    assert min_px("timm:vgg16") == min_px("vgg16")


def test_deprecated_xception_stands_for_its_successor():
    assert timm_name("xception") == timm_name("timm:xception") == "legacy_xception"
    assert timm_name("timm:legacy_xception") == "legacy_xception"


@pytest.mark.parametrize(
    ("name", "near"), [("timm:resnet51", "resnet50"), ("timm:resnet50.a1_in1", "resnet50.a1_in1k"), ("timm:?", "")]
)
def test_unknown_timm_model(name, near):
    with pytest.raises(ConfigError, match=rf"timm has no model .* did you mean .*{near}"):
        min_px(name)


@pytest.mark.parametrize("backbone", ["cnn", "vgg16", "inception_v3", "xception"])
def test_no_drop_path(backbone):
    with pytest.raises(ConfigError, match=f"got 0.1, but the backbone {backbone} has no drop-path"):
        build_model(make_config(backbone, drop_path_rate=0.1), TASK, px=USUAL_PX)


def test_drop_path_drops():
    model = build_model(make_config("timm:tf_efficientnet_lite0", drop_path_rate=0.5), TASK, px=32)
    rates = [module.drop_prob for module in model.modules() if type(module).__name__ == "DropPath"]
    assert rates
    assert max(rates) > 0.3


def test_frozen_blocks_drop_nothing(tmp_path):
    backbone = "timm:tf_efficientnet_lite0"
    save_model(build_model(make_config(backbone), TASK, px=32), tmp_path / "model.safetensors")
    weights = str(tmp_path / "model.safetensors")
    config = make_config(backbone, weights=weights, trainable_stages=1, drop_path_rate=0.5)
    model = build_model(config, TASK, px=32).train()
    # Stages: the stem, then blocks.0 to blocks.6; the last of them, with what follows it, is trained.
    modes = {name: module.training for name, module in model.backbone.named_modules() if name.count(".") == 2}
    assert {name for name, training in modes.items() if training} == {n for n in modes if n.startswith("blocks.6")}


def test_normalises_as_the_weights_expect_and_keeps_channels_last():
    model = GalaxyModel(nn.Identity(), nn.Identity())
    model.mean.copy_(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
    model.std.copy_(torch.tensor([0.5, 0.25, 0.125]).view(1, 3, 1, 1))
    images = torch.full((2, 3, 8, 8), 0.6).to(memory_format=torch.channels_last)
    out = model(images)
    torch.testing.assert_close(out[1, :, 4, 4], torch.tensor([1.0, 1.6, 2.4]))
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_vgg_leaves_out_its_fully_connected_layers():
    # Simonyan & Zisserman 2015: 13 convolutions of 3x3; 64, 128, 256, 512 and 512 channels.
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    expected = sum(9 * a * b + b for a, b in pairwise(channels))
    model = build_model(make_config("vgg16"), TASK, px=32)
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) == expected
    assert model.head.linear.in_features == 512


class TestCnn:
    def test_width_doubles_up_to_512(self):
        model = build_model(TrainConfig(backbone="cnn", cnn=CnnConfig(width=96, depth=5)), TASK, px=32)
        convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        assert [c.out_channels for c in convolutions] == [96, 192, 384, 512, 512]

    @pytest.mark.parametrize("norm", ["batch", "group", "none"])
    @pytest.mark.parametrize("pool", ["max", "avg", "stride"])
    @pytest.mark.parametrize("kernel", [3, 5, 7])
    def test_every_stage_halves_the_side(self, norm, pool, kernel):
        cnn = CnnConfig(width=12, depth=3, convs_per_stage=2, kernel=kernel, norm=norm, pool=pool)
        model = build_model(TrainConfig(backbone="cnn", cnn=cnn), TASK, px=32).eval()
        sides = []
        x = draw_images(32)
        for stage in model.backbone.stages:
            x = stage(x)
            sides.append(tuple(x.shape[1:]))
        assert sides == [(12, 16, 16), (24, 8, 8), (48, 4, 4)]
        kinds = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm}
        assert sum(isinstance(m, kinds.get(norm, nn.Linear)) for m in model.backbone.modules()) == 6 * (norm in kinds)

    def test_too_deep_for_its_images(self):
        with pytest.raises(ConfigError, match="got 6 for images of 63 px, expected at least 64 px"):
            build_model(TrainConfig(backbone="cnn", cnn=CnnConfig(depth=6)), TASK, px=63)

    def test_learns_a_simple_sky(self):
        # Discs against rings: the same light, another shape.
        generator = torch.Generator().manual_seed(3)
        labels = torch.randint(0, 2, (64,), generator=generator)
        y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
        radius = torch.hypot(x, y)
        images = torch.where(labels.view(-1, 1, 1) == 0, (radius < 8) * 0.5, ((radius - 8).abs() < 2) * 0.5)
        images = images[:, None] + 0.1 * torch.rand(64, 3, 32, 32, generator=generator)
        model = build_model(make_config("cnn"), Task("classes", ("disc", "ring")), px=32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(30):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert (model.eval()(images).argmax(dim=1) == labels).all()
