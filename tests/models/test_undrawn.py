"""Networks whose weights are drawn late start from the distributions that timm gives them."""

from collections.abc import Callable

import pytest
import timm
import torch
from scipy.stats import ks_2samp, kstest
from torch import Tensor, nn

from galaxy_models.config import CnnConfig, TrainConfig
from galaxy_models.models import build_model
from galaxy_models.models.undrawn import Undrawn
from galaxy_models.task import Task

TASK = Task("classes", ("smooth", "disk", "merger"))
# Between them: normal, uniform and cut normal weights, and weights that are drawn by torch alone.
NETWORKS = ["resnet50", "inception_v3", "legacy_xception", "vit_tiny_patch16_224", "convnext_atto", "mixer_s32_224"]
NUM_COMPARED = 5_000
# About 600 tensors are compared; one of them has so small a probability once in 1,700 runs of other seeds.
MIN_PROBABILITY = 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_starts_as_timm_starts_it(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    got = build_model(TrainConfig(backbone=f"timm:{name}"), TASK, px=224).backbone.state_dict()
    assert list(got) == list(expected)
    for key, tensor in expected.items():
        assert got[key].shape == tensor.shape, key
        if bool((tensor == tensor.flatten()[0]).all()):
            assert torch.equal(got[key], tensor), key
        elif tensor.is_floating_point():
            ours, theirs = (sample(values) for values in (got[key], tensor))
            assert ks_2samp(ours, theirs, method="asymp").pvalue > MIN_PROBABILITY, key


def sample(values: Tensor) -> Tensor:
    return values.flatten()[:: max(1, values.numel() // NUM_COMPARED)]


def test_filters_lie_in_channels_last_from_the_start() -> None:
    model = build_model(TrainConfig(backbone="cnn", cnn=CnnConfig()), TASK, px=32)
    filters = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    assert filters
    assert all(parameter.is_contiguous(memory_format=torch.channels_last) for parameter in filters)


def draw(fill: Callable[[Tensor], object]) -> tuple[Tensor, bool]:
    """What a tensor holds once all is drawn, and whether anything was."""
    tensor, undrawn = torch.full((400, 300), torch.nan), Undrawn()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        with undrawn:
            fill(tensor)
        undrawn.draw()
        return tensor, not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "overwrite",
    [
        lambda t: t.zero_(),
        lambda t: t.data.fill_(0.0),
        nn.init.zeros_,
        lambda t: t.copy_(torch.zeros(400, 300)),
    ],
    ids=["zero", "fill an alias", "init", "copy"],
)
def test_what_is_overwritten_is_never_drawn(overwrite: Callable[[Tensor], object]) -> None:
    tensor, drew = draw(lambda t: (nn.init.kaiming_uniform_(t), overwrite(t)))
    assert not drew
    assert not tensor.any()


@pytest.mark.parametrize(
    ("fill", "mean", "std"),
    [
        (lambda t: t.normal_(3.0, 2.0), 3, 2),
        (lambda t: t.uniform_(1.0, 4.0), 2.5, 3 / 12**0.5),
        (lambda t: t.uniform_().normal_(), 0, 1),
        (lambda t: t.normal_().mul_(2).add_(1), 1, 2),
        (lambda t: nn.init.trunc_normal_(t, std=0.1), 0, 0.1),
        (lambda t: timm.layers.trunc_normal_(t, std=0.1), 0, 0.1),
        # A standard normal cut at one deviation: variance 1 - 2 phi(1) / (2 Phi(1) - 1) = 0.29112.
        (lambda t: timm.layers.trunc_normal_(t, a=-1.0, b=1.0), 0, 0.29112**0.5),
        # He et al. 2015: std = sqrt(2 / fan), fan_in being the number of columns.
        (lambda t: nn.init.kaiming_normal_(t, nonlinearity="relu"), 0, (2 / 300) ** 0.5),
        (lambda t: nn.init.kaiming_uniform_(t, nonlinearity="relu"), 0, (2 / 300) ** 0.5),
        # Glorot and Bengio 2010: std = sqrt(2 / (fan_in + fan_out)).
        (nn.init.xavier_uniform_, 0, (2 / 700) ** 0.5),
    ],
)
def test_draws_that_waited_have_their_distribution(fill: Callable[[Tensor], object], mean: float, std: float) -> None:
    tensor, drew = draw(fill)
    assert drew
    # Five standard deviations of the mean and, at most, of the deviation of 120,000 numbers.
    assert tensor.mean().item() == pytest.approx(mean, abs=5 * std / 120_000**0.5)
    assert tensor.std().item() == pytest.approx(std, rel=5 / 240_000**0.5)


def test_normal_draws_are_normal_and_independent() -> None:
    tensor, _ = draw(lambda t: t.normal_())
    values = tensor.flatten().double()
    assert kstest(values.numpy(), "norm").pvalue > MIN_PROBABILITY
    # Five standard deviations of a fourth moment, and of a correlation, of 120,000 numbers.
    assert (values**4).mean().item() == pytest.approx(3, abs=5 * (96 / 120_000) ** 0.5)
    for lag in (1, 2, 3, 4, 300, 2**15):
        assert abs((values[lag:] * values[:-lag]).mean().item()) < 5 / 120_000**0.5


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t * 1,
        lambda t: t.clone(),
        lambda t: t.data + 0,
        lambda t: t.view(-1).clone().view(400, 300),
        lambda t: torch.from_numpy(t.numpy().copy()),
        lambda t: torch.stack([t, t])[1],
        lambda t: torch.empty(400, 300).copy_(t),
        lambda t: torch.add(input=t, other=0),
        lambda t: t.data.copy_(t).clone(),
    ],
)
def test_who_reads_a_tensor_that_waits_reads_what_stays_in_it(read: Callable[[Tensor], Tensor]) -> None:
    seen: list[Tensor] = []
    tensor, _ = draw(lambda t: (t.normal_(5.0, 1.0), seen.append(read(t))))
    assert tensor.min() > -1
    assert torch.equal(seen[0], tensor)


def test_a_part_that_is_overwritten_keeps_its_value() -> None:
    def fill(tensor: Tensor) -> None:
        tensor.normal_()
        tensor[:10].fill_(7.0)

    tensor, _ = draw(fill)
    assert (tensor[:10] == 7).all()
    assert tensor[10:].std().item() == pytest.approx(1, rel=0.02)


def test_a_draw_from_a_generator_of_its_own_is_made_at_once() -> None:
    got, drew = draw(lambda t: t.normal_(generator=torch.Generator().manual_seed(4)))
    assert not drew
    assert torch.equal(got, torch.empty(400, 300).normal_(generator=torch.Generator().manual_seed(4)))
