"""How fast a training step is in three ways, and whether they learn the same.

Float32 with channels first is what a beginner writes; float32 with channels last and bf16 with channels last are what
the loop does on a processor without and with bf16. The ways are interleaved in rounds, so that other work on the
machine touches all alike, and compared by the median of the rounds' ratios. Images are noise that depends on the class.

    python benchmarks/precision.py --threads 2 --rounds 5 --loss-steps 300
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from galaxy_models.config import CnnConfig, TrainConfig
from galaxy_models.models.backbones import min_px
from galaxy_models.models.galaxy_model import build_model
from galaxy_models.task import Task
from galaxy_models.training.losses import class_loss
from galaxy_models.training.optim import make_optimizer
from galaxy_models.training.runtime import Precision, Runtime, resolve_precision

WAYS = {
    "float32 NCHW": ("float32", torch.contiguous_format),
    "float32 channels_last": ("float32", torch.channels_last),
    "bf16 channels_last": ("bf16", torch.channels_last),
}
MODELS = {
    "cnn": {"backbone": "cnn", "cnn": CnnConfig()},
    "resnet18": {"backbone": "timm:resnet18"},
    "resnet50": {"backbone": "resnet50"},
    "inception_v3": {"backbone": "inception_v3"},
    "vgg16": {"backbone": "vgg16"},
    "xception": {"backbone": "xception"},
    "lite0": {"backbone": "timm:tf_efficientnet_lite0"},
}
NUM_CLASSES = 4


@dataclass
class Way:
    """One model trained one way."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: Precision
    layout: torch.memory_format

    def step(self, images: torch.Tensor, targets: torch.Tensor) -> float:
        """One step of training; returns its loss."""
        images = images.contiguous(memory_format=self.layout)
        with self.precision.autocast():
            logits = self.model(images)
        loss = class_loss(logits, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def make_ways(name: str, px: int, device: torch.device) -> dict[str, Way]:
    """The same initial network, once for each way."""
    config = TrainConfig(**MODELS[name], learning_rate=1e-3, batch_size=64)
    ways = {}
    for label, (precision, layout) in WAYS.items():
        model = build_model(config, Task("classes", tuple("abcd")), px=px).to(memory_format=layout)
        ways[label] = Way(model, make_optimizer(config, model), resolve_precision(precision, device), layout)
    return ways


def draw_batches(batch_size: int, px: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Noise with a stripe pattern of each class, faint enough to take some steps to learn."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(NUM_CLASSES, 3, px, px, generator=generator) - 0.5
    while True:
        targets = torch.randint(NUM_CLASSES, (batch_size,), generator=generator)
        noise = torch.randn(batch_size, 3, px, px, generator=generator)
        yield (0.5 + 0.2 * noise + 0.15 * patterns[targets]).clamp(0, 1), targets


def measure_rates(ways: dict[str, Way], *, batch_size: int, px: int, rounds: int) -> dict[str, list[float]]:
    """Images per second of each way in each round, the ways taking turns."""
    images, targets = next(draw_batches(batch_size, px))
    rates: dict[str, list[float]] = {label: [] for label in ways}
    for number in range(rounds + 1):
        for label, way in ways.items():
            start = time.perf_counter()
            way.step(images, targets)
            way.step(images, targets)
            if number > 0:  # the first round warms up
                rates[label].append(2 * batch_size / (time.perf_counter() - start))
    return rates


def compare_losses(name: str, *, px: int, device: torch.device, steps: int) -> dict[str, float]:
    """Mean loss of the last fifth of a short training from equal weights on equal batches, each way."""
    ways = make_ways(name, px, device)
    losses: dict[str, list[float]] = {label: [] for label in ways}
    batches = draw_batches(32, px)
    for _ in range(steps):
        images, targets = next(batches)
        for label, way in ways.items():
            losses[label].append(way.step(images, targets))
    tail = max(1, steps // 5)
    return {label: statistics.fmean(values[-tail:]) for label, values in losses.items()}


def main() -> None:
    """Print a table of rates and ratios, then the losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--px", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--loss-steps", type=int, default=300, help="0 leaves the losses out")
    options = parser.parse_args()
    device = Runtime(threads=options.threads).activate()
    print(f"'auto' is {resolve_precision('auto', device).dtype} here; {options.threads} threads; images per second")
    base = next(iter(WAYS))
    for name in options.models:
        smallest = min_px(str(MODELS[name]["backbone"]))
        for px in sorted({max(px, smallest) for px in options.px}):
            ways = make_ways(name, px, device)
            rates = measure_rates(ways, batch_size=options.batch_size, px=px, rounds=options.rounds)
            for label, values in rates.items():
                ratio = statistics.median(a / b for a, b in zip(values, rates[base], strict=True))
                print(f"{name:12} {px:4} px  {label:22} {statistics.median(values):8.1f}  x{ratio:.2f}", flush=True)
        if options.loss_steps:
            losses = compare_losses(name, px=max(32, smallest), device=device, steps=options.loss_steps)
            print(f"{name:12} loss after {options.loss_steps} steps: " + ", ".join(
                f"{label} {value:.4f}" for label, value in losses.items()
            ), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
