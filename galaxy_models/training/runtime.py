"""Where a trial computes: device, threads, and the number format that the hardware computes fastest."""

import ctypes
import gc
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from galaxy_models.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_CPUINFO = Path("/proc/cpuinfo")
# Parameters of glibc's mallopt, from its malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The most that it takes, and what older ones take.
_MOST_BYTES = (2**31 - 1, 2**25)


@dataclass(frozen=True)
class Runtime:
    """What the machine gives one trial.

    Attributes:
        device: `cpu`, `cuda` or `cuda:<number>`.
        threads: processors that torch computes with. More than are free costs a factor of five to ten.
        weights_dir: a folder of `<timm name>.safetensors`, looked in first for initial weights.
        gpu_share: of a graphics card's energy, how much is this trial's; less than 1 where several share the card.
    """

    device: str = "cpu"
    threads: int = 1
    weights_dir: Path | None = None
    gpu_share: float = 1.0

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigError(f"threads: got {self.threads}, expected at least 1")

    def activate(self) -> "torch.device":
        """Set torch up for this process, and return the device.

        Raises:
            ConfigError: a device that this machine does not have.
        """
        import torch

        keep_freed_memory()
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise ConfigError(f"device: got {self.device!r}, expected 'cpu', 'cuda' or 'cuda:<number>'") from None
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"device: got {self.device!r}, expected 'cpu', 'cuda' or 'cuda:<number>'")
        if device.type == "cuda":
            num_cards = torch.cuda.device_count()
            if (device.index or 0) >= num_cards:
                raise ConfigError(f"device: got {self.device!r}, but torch sees {num_cards} graphics cards: use 'cpu'")
            # A benchmark would choose other kernels from run to run, and with them other roundings.
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        return device


def give_back_memory() -> None:
    """Give the memory that this process has freed back to the system, where the C library is glibc."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@cache
def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the C library is glibc.

    It would give large blocks back to the system, which clears their pages when they are asked for again: on a
    processor a fifth of the time of the default custom network's steps, and a part of each new network's making.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            any(library.mallopt(parameter, most) for most in _MOST_BYTES)


def pass_over_objects() -> None:
    """Let Python's collections of garbage pass over all objects that there are by now.

    Those of imported modules stay in any case, and there are so many that a collection takes up to 0.2 s. Making a
    large network starts one now and then.
    """
    gc.freeze()


@dataclass(frozen=True)
class Precision:
    """The number format of convolutions and matrix products; weights, losses and metrics are always float32.

    Attributes:
        device: where it is computed.
        dtype: torch.float32, torch.bfloat16 or torch.float16.
    """

    device: "torch.device"
    dtype: "torch.dtype"

    @property
    def scales_gradients(self) -> bool:
        """Whether the loss must be scaled up, because small gradients vanish in float16."""
        import torch

        return self.dtype == torch.float16

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in this format within a `with` block."""
        import torch

        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


def resolve_precision(name: str, device: "torch.device") -> Precision:
    """Choose the number format from what the hardware computes natively, never from a timing.

    Args:
        name: a configuration's `precision`. `auto` is bf16 where the hardware has it, float32 on other processors;
            a graphics card without bf16 computes in float16 for both `auto` and `bf16`.
        device: where it will be computed.
    """
    import torch

    if name == "float32":
        return Precision(device, torch.float32)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(device, torch.bfloat16 if native else torch.float16)
    if name == "bf16" or (torch.backends.mkldnn.is_available() and has_bf16(_read_cpuinfo())):
        return Precision(device, torch.bfloat16)
    return Precision(device, torch.float32)


def has_bf16(cpuinfo: str) -> bool:
    """Whether an x86 processor multiplies bf16 numbers in hardware.

    Args:
        cpuinfo: text of Linux's /proc/cpuinfo; empty where there is none.
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return not BF16_CPU_FLAGS.isdisjoint(value.split())
    return False


def move(tensor: "Tensor", device: "torch.device") -> "Tensor":
    """Bring a batch to the device; to a graphics card without waiting for the copy.

    The pinned copy in between is torch's own to keep until the transfer is over, so the caller may use its buffer
    again at once.
    """
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def _read_cpuinfo() -> str:
    return _CPUINFO.read_text() if platform.system() == "Linux" and _CPUINFO.exists() else ""
