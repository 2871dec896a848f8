"""Out of memory: the same work on fewer images at a time, until it fits."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from galaxy_models.errors import OutOfMemoryError
from galaxy_models.training.runtime import give_back_memory

T = TypeVar("T")

# What torch's allocators and libraries say, lower case, where they raise no class of their own.
_MESSAGES = (
    "can't allocate memory",  # torch on Linux and macOS
    "not enough memory",  # torch on Windows
    "std::bad_alloc",
    "cuda error: out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)
# All that oneDNN says when its kernels or scratch pads cannot be allocated. What it lacks it calls a descriptor.
_WHOLE_MESSAGES = ("could not create a primitive", "could not execute a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a graphics card or on the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (text in _WHOLE_MESSAGES or any(words in text for words in _MESSAGES))


class MicroBatch:
    """How many images go through a network at once. It halves when memory runs out, and never grows again.

    Attributes:
        size: the most images at once.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        """Start at a size.

        Args:
            size: at least 1.
            device: where the network lies, whose cached memory is freed before a repetition.
        """
        self.size = size
        self._device = device

    def run(self, work: Callable[[int], T], num_images: int, *, undo: Callable[[], None] | None = None) -> T:
        """Do some work with at most so many images at once as fit, repeating it from its start if they do not.

        Before each repetition torch's global generators are set back to where the work found them, so that what is
        drawn depends on the size that fits, and not on how far a failed attempt came.

        Args:
            work: is given the most images that it may pass through the network at once.
            num_images: how many the work has in all, or at once if never halved.
            undo: drops what a failed attempt left behind, such as gradients.

        Returns:
            What the work returns.

        Raises:
            OutOfMemoryError: a single image does not fit.
        """
        draws = self._generators()
        while True:
            largest = min(self.size, num_images)
            try:
                return work(largest)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if largest <= 1:
                    raise _refusal(error, "a single image", self._device) from None
            # Outside of the handler: the error's traceback would keep the attempt's tensors alive.
            self.size = halve(largest)
            if undo is not None:
                undo()
            self._free()
            self._set_generators(draws)

    def _generators(self) -> list[Tensor]:
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else states

    def _set_generators(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self._device)

    def _free(self) -> None:
        gc.collect()
        # What the process keeps of its own heap is lacking where libraries ask the system for memory.
        give_back_memory()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def halve(size: int) -> int:
    """Half of a number of images, rounded up: 61 become 31, so that two halves hold them all."""
    return -(-size // 2)


@contextmanager
def indivisible(what: str, device: torch.device) -> Iterator[None]:
    """Say what did not fit where fewer images at once would not help.

    Args:
        what: such as "the optimizer's state".
        device: where it should have fitted.

    Raises:
        OutOfMemoryError: instead of torch's error, or Python's.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise _refusal(error, what, device) from None


def _refusal(error: Exception, what: str, device: torch.device) -> OutOfMemoryError:
    found = " ".join(str(error).split()) or type(error).__name__
    return OutOfMemoryError(
        f"memory of {device}: {what} does not fit beside the network ({found:.300}): use a smaller network or "
        "smaller images, run fewer trials at a time, or free memory"
    )
