"""The project's own convolutional network: small enough for a processor, open to search in its shape."""

from typing import Any

import torch
from torch import Tensor, nn

from galaxy_models.config import CnnConfig

MAX_WIDTH = 512


class Cnn(nn.Module):
    """Stages of convolution, normalisation and ReLU, each halving the image's side, then the mean over the image.

    The first stage has `config.width` channels; each further one has twice as many, up to 512. The last
    stage's average over positions makes the features independent of where in the image an arm lies, and lets
    one network take images of any side from `2 ** config.depth` pixels up.

    Attributes:
        num_features: length of the feature vector of an image.
    """

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = 3
        for index in range(config.depth):
            width = min(config.width * 2**index, MAX_WIDTH)
            stages.append(_make_stage(channels, width, config))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.num_features = channels
        self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        """Compute features: (B, 3, px, px) normalised images to (B, num_features)."""
        return torch.mean(self.stages(images), dim=(2, 3))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Tell which parameters belong to which stage, in timm's notation."""
        return {"stages": r"^stages\.(\d+)"}

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _make_stage(in_channels: int, width: int, config: CnnConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(config.convs_per_stage):
        is_last = index == config.convs_per_stage - 1
        layers.append(
            nn.Conv2d(
                in_channels if index == 0 else width,
                width,
                config.kernel,
                stride=2 if is_last and config.pool == "stride" else 1,
                padding=config.kernel // 2,
                bias=config.norm == "none",
            )
        )
        if is_last and config.pool != "stride":
            # Before normalisation and ReLU, not after: they then touch a quarter of the numbers, and on a
            # processor moving numbers is what a small network waits for.
            layers.append(nn.MaxPool2d(2) if config.pool == "max" else nn.AvgPool2d(2))
        layers.extend(_make_norm(config.norm, width))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _make_norm(norm: str, width: int) -> list[nn.Module]:
    if norm == "batch":
        return [nn.BatchNorm2d(width)]
    if norm == "group":
        # Groups of eight channels where the width divides so; any width has a divisor (1 at worst).
        num_groups = max(groups for groups in range(1, max(1, width // 8) + 1) if width % groups == 0)
        return [nn.GroupNorm(num_groups, width)]
    return []
