"""Halving: what counts as out of memory, and that work is repeated from its start on fewer images."""

import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

from galaxy_models.errors import GalaxyError, OutOfMemoryError
from galaxy_models.training.memory import MicroBatch, halve, indivisible, is_out_of_memory

CPU = torch.device("cpu")


def _error(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("it fitted")


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: np.empty(2**60, np.uint8),
        lambda: bytearray(2**62),
    ],
    ids=["torch", "numpy", "Python"],
)
def test_more_than_any_machine_has_is_out_of_memory(work: Callable[[], object]) -> None:
    assert is_out_of_memory(_error(work))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_messages_of_allocators(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        OSError(12, "Cannot allocate memory"),
        OutOfMemoryError("memory of cpu: a single image does not fit"),
        ValueError("not enough memory"),
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert not is_out_of_memory(error)


def _limited(limit: int, tried: list[int]) -> Callable[[int], str]:
    def work(size: int) -> str:
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return f"done {size} at a time"

    return work


@pytest.mark.parametrize(
    ("num_images", "limit", "expected"),
    [(64, 64, [64]), (64, 7, [64, 32, 16, 8, 4]), (61, 16, [61, 31, 16]), (3, 1, [3, 2, 1])],
)
def test_halves_until_it_fits_and_remembers(num_images: int, limit: int, expected: list[int]) -> None:
    micro_batch, tried, undone = MicroBatch(64, CPU), [], []
    result = micro_batch.run(_limited(limit, tried), num_images, undo=lambda: undone.append(len(tried)))
    assert (result, tried) == (f"done {expected[-1]} at a time", expected)
    assert undone == list(range(1, len(expected)))
    assert micro_batch.size == (expected[-1] if len(expected) > 1 else 64)
    micro_batch.run(_limited(limit, tried := []), 64)
    assert tried == [micro_batch.size]


def test_a_smaller_batch_alone_does_not_lower_the_size() -> None:
    micro_batch, tried = MicroBatch(64, CPU), []
    micro_batch.run(_limited(64, tried), 10)
    assert (tried, micro_batch.size) == ([10], 64)


def test_a_single_image_that_does_not_fit_ends_it() -> None:
    micro_batch, tried = MicroBatch(4, CPU), []
    with pytest.raises(OutOfMemoryError, match=r"cpu: a single image does not fit .*CUDA out of memory.*: use"):
        micro_batch.run(_limited(0, tried), 4)
    assert tried == [4, 2, 1]
    assert issubclass(OutOfMemoryError, GalaxyError)
    assert OutOfMemoryError.exit_code == 1


def test_other_errors_pass_through_at_once() -> None:
    tried: list[int] = []

    def work(size: int) -> None:
        tried.append(size)
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        MicroBatch(64, CPU).run(work, 64)
    assert tried == [64]


def test_repetition_draws_what_the_first_attempt_drew() -> None:
    drawn: list[list[float]] = []

    def work(size: int) -> None:
        drawn.append(torch.rand(3).tolist())
        if size > 16:
            raise MemoryError

    with torch.random.fork_rng():
        MicroBatch(64, CPU).run(work, 64)
        after = torch.rand(1).item()
    assert len(drawn) == 3
    assert drawn[0] == drawn[1] == drawn[2]
    assert after not in drawn[0]


def test_a_failed_attempt_leaves_no_tensor_behind() -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def work(size: int) -> None:
        alive.append(sum(reference() is not None for reference in kept))
        activations = torch.zeros(size)
        kept.append(weakref.ref(activations))
        if size > 16:
            raise MemoryError

    MicroBatch(64, CPU).run(work, 64)
    assert alive == [0, 0, 0]


def test_halves_hold_all_images() -> None:
    assert [halve(size) for size in (64, 61, 3, 2)] == [32, 31, 2, 1]


def test_what_cannot_be_divided_is_named() -> None:
    with pytest.raises(OutOfMemoryError, match="memory of cpu: the optimizer's state does not fit"):  # noqa: SIM117
        with indivisible("the optimizer's state", CPU):
            raise MemoryError
    with pytest.raises(KeyError), indivisible("the optimizer's state", CPU):
        raise KeyError
