"""Batch norms over a batch in two processes, against torch's own over the whole batch in one."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from galaxy_models.training.shared_norm import SharedNorms


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + 2


def alone(vector: Tensor) -> Tensor:
    return vector[None]


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4, 3), (1, 5, 2, 2)])
@pytest.mark.parametrize("affine", [True, False])
def test_in_one_process_it_is_torchs_batch_norm(shape: tuple[int, ...], affine: bool) -> None:
    results = []
    for shared in (False, True):
        make = nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d
        norm = make(5, affine=affine, momentum=0.3)
        images = noise(*shape).requires_grad_()
        if affine:
            nn.init.uniform_(norm.weight, 0.5, 2.0, generator=torch.Generator().manual_seed(2))
        with SharedNorms(alone) if shared else torch.enable_grad():
            answers = functional.relu(norm(images), inplace=True)
        (answers * noise(*shape, seed=1)).sum().backward()
        gradients = [parameter.grad for parameter in norm.parameters()]
        results.append([answers, images.grad, *gradients, *norm.buffers()])
    for expected, found in zip(*results, strict=True):
        # Some 70 values of size 3 added in another order, in float32.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_half_of_a_batch_is_normalised_by_the_whole() -> None:
    whole = noise(7, 5, 4, 4).to(memory_format=torch.channels_last)
    ours, theirs = whole[:3], whole[3:]
    var, mean = torch.var_mean(theirs, (0, 2, 3), correction=0)
    told = torch.cat([mean, var, torch.tensor([4 * 16.0])])
    norm, expected = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    with SharedNorms(lambda vector: torch.stack([vector, told])):
        found = norm(ours)
    torch.testing.assert_close(found, expected(whole)[:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, expected.running_mean)
    torch.testing.assert_close(norm.running_var, expected.running_var)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_what_is_not_being_trained_is_left_to_torch() -> None:
    def never(vector: Tensor) -> Tensor:
        raise AssertionError("nothing is to be exchanged")

    norm = nn.BatchNorm2d(5).eval()
    images = noise(2, 5, 3, 3)
    with SharedNorms(never):
        assert torch.equal(norm(images), functional.batch_norm(images, norm.running_mean, norm.running_var))


def test_half_precision_comes_back_as_it_went_in() -> None:
    images = noise(4, 5, 3, 3).to(torch.bfloat16)
    norm = nn.BatchNorm2d(5)
    with SharedNorms(alone):
        found = norm(images)
    assert found.dtype == torch.bfloat16
    expected = nn.BatchNorm2d(5)(images.float())
    # bfloat16 has eight binary digits.
    torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=1e-2)
