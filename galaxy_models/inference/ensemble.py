"""Several networks that answer the same question, such as one configuration trained with several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from galaxy_models.errors import WeightsError
from galaxy_models.inference.answers import answer_in_parts
from galaxy_models.inference.network import Network, load_network
from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task
from galaxy_models.training.memory import MicroBatch
from galaxy_models.training.runtime import Runtime, resolve_precision

# More images than a batch has: all at once, until memory runs out.
_WHOLE_BATCH = 2**30


@dataclass(frozen=True)
class Opinion:
    """What the networks answer for B images, on the processor.

    Attributes:
        mean: (B, A) float32, class probabilities or vote fractions, the mean over networks.
        network_sd: (B, A) float32, their standard deviation over networks (divisor: their number less 1); None for one.
        symmetry_sd: (B, A) float32, the standard deviation over the eight symmetries, root mean square over networks;
            None if answers were not averaged over them.
        entropy: (B,) float32, in nats: of the class probabilities, or of the answers to the first question of the
            decision tree.
    """

    mean: Tensor
    network_sd: Tensor | None
    symmetry_sd: Tensor | None
    entropy: Tensor


class Ensemble:
    """Networks of one task, trained on images that were made alike.

    Attributes:
        networks: at least one.
        task: what they answer, in the order of the first.
        stored_px: side of the images that their surveys stored, in pixels.
        crop: share of the side that those images kept; None where no network says.
    """

    def __init__(self, paths: Sequence[Path], runtime: Runtime) -> None:
        """Load the networks.

        Args:
            paths: their weights files.
            runtime: where they will compute.

        Raises:
            WeightsError: a file cannot be used, or two do not belong together.
        """
        self.networks = [load_network(path) for path in paths]
        first = self.networks[0]
        self.task = first.task
        self.stored_px = first.stored_px
        for other in self.networks[1:]:
            _check_alike(first, other)
        self.crop = next((network.crop for network in self.networks if network.crop is not None), None)
        device = runtime.activate()
        self._precisions = [resolve_precision(network.config.precision, device) for network in self.networks]
        self._micro_batches = [MicroBatch(_WHOLE_BATCH, device) for _ in self.networks]
        self._orders = [torch.tensor([net.task.names.index(name) for name in self.task.names]) for net in self.networks]
        for network in self.networks:
            network.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def answer(self, images: Tensor, *, average: bool) -> Opinion:
        """Answer for a batch.

        Args:
            images: (B, 3, px, px) uint8.
            average: whether each network's answers are averaged over the eight symmetries.
        """
        means, spreads = [], []
        for number, (network, order) in enumerate(zip(self.networks, self._orders, strict=True)):
            found = answer_in_parts(
                network.model,
                images,
                network.task,
                image_px=network.px,
                precision=self._precisions[number],
                average=average,
                micro_batch=self._micro_batches[number],
            )
            means.append((found.plain if found.averaged is None else found.averaged)[:, order])
            if found.spread is not None:
                spreads.append(found.spread[:, order])
        stacked = torch.stack(means)
        mean = stacked.mean(dim=0)
        return Opinion(
            mean=mean,
            network_sd=stacked.std(dim=0) if len(means) > 1 else None,
            symmetry_sd=torch.stack(spreads).square().mean(dim=0).sqrt() if spreads else None,
            entropy=torch.special.entr(_exclusive(mean, self.task)).sum(dim=1),
        )


def _exclusive(answers: Tensor, task: Task) -> Tensor:
    """The answers that exclude one another and sum to 1."""
    return answers if task.kind == "classes" else answers[:, GZ2.questions[0].columns]


def _check_alike(first: Network, other: Network) -> None:
    if first.task.kind != other.task.kind or set(first.task.names) != set(other.task.names):
        raise WeightsError(
            f"weights {other.path}: they answer with {', '.join(other.task.names[:8])}, those of {first.path} with "
            f"{', '.join(first.task.names[:8])}: give networks of one task"
        )
    found, expected = ((one.stored_px, one.crop) for one in (other, first))
    if found[0] != expected[0] or (None not in (found[1], expected[1]) and found[1] != expected[1]):
        raise WeightsError(
            f"weights {other.path}: they were trained on images of {found[0]} px made with --crop {found[1]}, those of "
            f"{first.path} on {expected[0]} px and {expected[1]}: give networks of one survey, or predict twice"
        )
