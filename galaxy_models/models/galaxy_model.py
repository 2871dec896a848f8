"""A backbone and a head that take plain images and give logits."""

from pathlib import Path

import torch
from torch import Tensor, nn

from galaxy_models.config import TrainConfig
from galaxy_models.models.backbones import create_backbone
from galaxy_models.models.freezing import freeze, hold_frozen_modules
from galaxy_models.models.heads import Head, make_head
from galaxy_models.models.pretrained import load_weights_into
from galaxy_models.models.undrawn import Undrawn
from galaxy_models.seeds import derive_seed
from galaxy_models.task import Task


class GalaxyModel(nn.Module):
    """A network for one task; images are normalised inside, as its initial weights expect.

    Attributes:
        backbone: from normalised images to features.
        head: from features to logits.
        mean, std: (1, 3, 1, 1) buffers of the normalisation, kept with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
        self.register_buffer("std", torch.full((1, 3, 1, 1), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        """Compute raw logits: (B, 3, px, px) floats in [0, 1] to (B, num_outputs)."""
        logits: Tensor = self.head(self.backbone((images - self.mean) / self.std))
        return logits

    def outputs(self, logits: Tensor) -> Tensor:
        """Turn logits into float32 answers: class probabilities, or vote fractions that obey the decision tree."""
        return self.head.outputs(logits)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The backbone's parameters that are trained; none where it is frozen."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def head_parameters(self) -> list[nn.Parameter]:
        """The head's parameters; all of them are trained."""
        return list(self.head.parameters())

    def train(self, mode: bool = True) -> "GalaxyModel":
        """Switch to training; what is frozen stays in evaluation mode, batch statistics included."""
        super().train(mode)
        if mode:
            hold_frozen_modules(self.backbone)
        return self


def build_model(config: TrainConfig, task: Task, *, px: int, weights_dir: Path | None = None) -> GalaxyModel:
    """Build the network of a configuration, with its initial weights.

    Random weights come from `config.seed`; torch's global generator is left as it was.

    Args:
        config: the trial's configuration.
        task: what the head answers.
        px: side of the images it will see, in pixels (`config.image_px`, or that of the shards).
        weights_dir: a folder of `<timm name>.safetensors`, looked in before the network for ImageNet weights.

    Returns:
        The model on the processor, its filters in channels_last, in training mode.

    Raises:
        ConfigError: a backbone, an image size or a number of stages that does not exist.
        WeightsError: weights that cannot be had or do not fit.
    """
    undrawn = Undrawn()
    with torch.random.fork_rng(devices=[]):
        # Only the processor's generator: torch.manual_seed would also seed the graphics cards'.
        torch.default_generator.manual_seed(derive_seed(config.seed, "initial weights"))
        backbone, width = create_backbone(config, px=px, undrawn=undrawn)
        with undrawn:
            model = GalaxyModel(backbone, make_head(width, task, drop_rate=config.drop_rate))
        undrawn.lay_out(model, torch.channels_last)
        if config.weights != "none":
            with undrawn:
                normalisation = load_weights_into(backbone, config, weights_dir=weights_dir)
            model.mean.copy_(torch.tensor(normalisation.mean).view(1, 3, 1, 1))
            model.std.copy_(torch.tensor(normalisation.std).view(1, 3, 1, 1))
        undrawn.draw()
    freeze(backbone, config.trainable_stages)
    return model.train()
