"""A trained network in terms of torch and timm alone, for those who do not have this project."""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from galaxy_models.config import TrainConfig
from galaxy_models.models.backbones import VGG_FAMILY, pretrained_cfg, timm_name
from galaxy_models.models.cnn import Cnn
from galaxy_models.models.galaxy_model import GalaxyModel
from galaxy_models.seeds import derive_seed

CLASSIFIER = "classifier"
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class PlainNetwork:
    """A network from normalised images to logits.

    Attributes:
        module: the network, with its weights, in evaluation mode.
        imports: the packages that `source` needs.
        source: lines of Python that build the network as `model`, without its weights.
        remark: what is unusual about it; empty if nothing is.
    """

    module: nn.Module
    imports: tuple[str, ...]
    source: tuple[str, ...]
    remark: str = ""


def plain_network(model: GalaxyModel, config: TrainConfig, *, px: int) -> PlainNetwork:
    """Rebuild a trained network without this project.

    A backbone of timm becomes the very network that `timm.create_model(name, num_classes=...)` gives, its tensors by
    timm's names and the classifier with them, if timm's own classifier is one linear layer over the same features.

    Args:
        model: the network.
        config: the configuration it was trained with.
        px: side of the images it sees, in pixels.
    """
    # A copy: whoever fills this network with other tensors leaves the original as it is.
    model = copy.deepcopy(model).to("cpu").eval()
    if isinstance(model.backbone, Cnn):
        return _plain_cnn(model)
    name = timm_name(config.backbone)
    record = pretrained_cfg(config.backbone)
    options: dict[str, Any] = {"img_size": px} if record["fixed_input_size"] else {}
    if record["family"] == VGG_FAMILY:
        return _plain_vgg(model, name)
    # Its random weights, which are replaced at once, are no draws that anything may depend on.
    with torch.random.fork_rng(devices=[]):
        own = _with_own_classifier(model, name, record.get("classifier"), options, px)
    return own or _with_added_classifier(model, name, options)


def _plain_cnn(model: GalaxyModel) -> PlainNetwork:
    stages, linear = model.backbone.get_submodule("stages"), model.head.linear
    assert isinstance(stages, nn.Sequential)
    parts = {"stages": stages, "pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), CLASSIFIER: linear}
    lines = ["model = nn.Sequential(OrderedDict(", "    stages=nn.Sequential("]
    for stage in stages:
        assert isinstance(stage, nn.Sequential)
        lines += ["        nn.Sequential(", *(f"            nn.{_call(layer)}," for layer in stage), "        ),"]
    lines += ["    ),", *(f"    {name}=nn.{part}," for name, part in parts.items() if name != "stages"), "))"]
    imports = ("from collections import OrderedDict", "from torch import nn")
    return PlainNetwork(nn.Sequential(OrderedDict(parts)).eval(), imports, tuple(lines))


def _call(layer: nn.Module) -> str:
    """The call that makes a layer of the custom network, as any torch knows it."""
    if isinstance(layer, nn.BatchNorm2d):
        return f"BatchNorm2d({layer.num_features}, eps={layer.eps})"
    if isinstance(layer, nn.GroupNorm):
        return f"GroupNorm({layer.num_groups}, {layer.num_channels}, eps={layer.eps})"
    return repr(layer)  # torch prints the call, for all but norms with the same options in every version


def _plain_vgg(model: GalaxyModel, name: str) -> PlainNetwork:
    with torch.random.fork_rng(devices=[]):
        plain = timm.create_model(name, pretrained=False, num_classes=0, mlp_ratio=1 / 4096)
        plain.pre_logits = nn.Identity()
        plain.head.fc = nn.Linear(model.head.linear.in_features, model.head.linear.out_features)
    _fill(plain, model, "head.fc")
    source = (
        f'model = timm.create_model("{name}", num_classes=0, mlp_ratio=1 / 4096)',
        "model.pre_logits = nn.Identity()",
        f"model.head.fc = nn.{model.head.linear}",
    )
    remark = (
        "VGG's two fully connected layers, which hold nine tenths of its weights, are left out: its features are the "
        "average of its convolutions. Hence the two lines after `create_model`."
    )
    return PlainNetwork(plain.eval(), ("import timm", "from torch import nn"), source, remark)


def _with_own_classifier(
    model: GalaxyModel, name: str, classifier: object, options: dict[str, Any], px: int
) -> PlainNetwork | None:
    """Timm's network with its classifier; None if that is another one than ours."""
    linear = model.head.linear
    plain = timm.create_model(name, pretrained=False, num_classes=linear.out_features, **options)
    if not isinstance(classifier, str) or not isinstance(plain.get_submodule(classifier), nn.Linear):
        return None
    try:
        _fill(plain, model, classifier)
    except RuntimeError:
        return None
    plain.eval()
    generator = torch.Generator().manual_seed(derive_seed(0, "plain network"))
    images = torch.randn(2, 3, px, px, generator=generator)
    with torch.inference_mode():
        same = torch.allclose(plain(images), linear(model.backbone(images)), rtol=_TOLERANCE, atol=_TOLERANCE)
    if not same:
        return None
    words = "".join(f", {key}={value}" for key, value in options.items())
    return PlainNetwork(
        plain, ("import timm",), (f'model = timm.create_model("{name}", num_classes={linear.out_features}{words})',)
    )


def _with_added_classifier(model: GalaxyModel, name: str, options: dict[str, Any]) -> PlainNetwork:
    words = "".join(f", {key}={value}" for key, value in options.items())
    plain = nn.Sequential(OrderedDict(backbone=model.backbone, classifier=model.head.linear))
    source = (
        "model = nn.Sequential(OrderedDict(",
        f'    backbone=timm.create_model("{name}", num_classes=0{words}),',
        f"    {CLASSIFIER}=nn.{model.head.linear},",
        "))",
    )
    remark = "timm's own classifier of this network is no single linear layer, so one is put behind its features."
    imports = ("import timm", "from collections import OrderedDict", "from torch import nn")
    return PlainNetwork(plain.eval(), imports, source, remark)


def _fill(plain: nn.Module, model: GalaxyModel, classifier: str) -> None:
    tensors: dict[str, Tensor] = dict(model.backbone.state_dict())
    tensors |= {f"{classifier}.{name}": tensor for name, tensor in model.head.linear.state_dict().items()}
    plain.load_state_dict(tensors)
