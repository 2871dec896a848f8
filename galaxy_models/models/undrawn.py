"""Random weights drawn once: while a network is built, only those numbers are drawn that stay.

torch draws the weights of a layer when it makes it, timm draws them again, and a file may then replace both. Of the
47 million numbers that are drawn for ResNet50 so, 23 million are used, or none.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# A method of a tensor, and what it is called with after the tensor.
_Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
# What fills a tensor, one after another.
Draws = list[_Call]

# As many as torch works on without starting threads, which take longer to start than to finish.
_PART_VALUES = 32_768
# Different normal deviates that there are: one for each number of 16 bits.
_NUM_DEVIATES = 2**16

# The draws that wait. torch's other functions of `nn.init` come down to these.
_DRAWS = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}
# They change each number by itself, so that they may wait with the draw that they follow.
_ELEMENTWISE = {Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.sub_, Tensor.div_, Tensor.clamp_}
# They give every number a value, so that those that wait are never needed.
_OVERWRITES = {Tensor.zero_, Tensor.fill_, Tensor.copy_, nn.init.constant_}
# They read no numbers; nor does any getter of a tensor's properties.
_BLIND = {
    Tensor.dim,
    Tensor.size,
    Tensor.numel,
    Tensor.stride,
    Tensor.detach,
    Tensor.is_contiguous,
    Tensor.is_floating_point,
    torch.empty,
    torch.zeros,
    torch.ones,
    torch.full,
    torch._C._set_grad_enabled,
}


class Undrawn(TorchFunctionMode):
    """While it is active, draws into whole tensors wait until someone needs their numbers.

    A draw that is overwritten before is never made. Any function of torch that is given a tensor whose numbers wait,
    and is not known to leave them alone, has them drawn first, so that what a network computes from its weights while
    it is built is as ever. Distributions are those that were asked for; the numbers that come from a seed are others
    than without this mode. Normal deviates are drawn at half of torch's cost, from 65,536 different ones that end
    at 4.4 standard deviations: finer than the 8 bits to which bf16 rounds them.

    On the meta device, where tensors have no numbers, draws do nothing at all.
    """

    def __init__(self) -> None:
        super().__init__()
        # By the address of their memory, which aliases such as `.data` share: a tensor that keeps the memory alive,
        # and what fills it; in the order of their last draws.
        self._waiting: dict[int, tuple[Tensor, Draws]] = {}
        self._bits: np.random.SFC64 | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let a draw wait, or run a function once the numbers that it may read are drawn."""
        kwargs = kwargs or {}
        if func in _BLIND or getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        target: Any = kwargs["tensor"] if "tensor" in kwargs else args[0] if args else None
        if (func in _DRAWS or func in _ELEMENTWISE) and isinstance(target, Tensor) and target.is_meta:
            return target
        if func in _DRAWS and kwargs.get("generator") is None and is_whole(target):
            address = _address(target)
            self._waiting.pop(address, None)
            self._waiting[address] = (target, [_as_call(func, target, args[1:], kwargs)])
            return target
        if self._waiting and func in _ELEMENTWISE and is_whole(target) and not _tensors((args[1:], kwargs)):
            address = _address(target)
            if address in self._waiting:
                self._waiting[address][1].append((func, args[1:], kwargs))
                return target
        if self._waiting:
            overwrites = func in _OVERWRITES and is_whole(target)
            self._draw_for([tensor for tensor in _tensors((args, kwargs)) if tensor is not target or not overwrites])
            if overwrites:
                self._waiting.pop(_address(target), None)
        return func(*args, **kwargs)

    def wait(self, tensor: Tensor, draws: Draws) -> None:
        """Let draws that were asked for in another tensor wait for this one, which covers all of its memory."""
        self._waiting[_address(tensor)] = (tensor, list(draws))

    def waiting(self) -> dict[int, Draws]:
        """Say what waits, by the addresses of the tensors' memory, in the order in which it was asked for."""
        return {address: draws for address, (_, draws) in self._waiting.items()}

    def lay_out(self, module: nn.Module, memory_format: torch.memory_format) -> None:
        """Give filters that wait another layout in memory, while there is nothing to copy.

        Args:
            module: whose four-dimensional parameters are meant.
            memory_format: of the memory that they get.
        """
        parameters = [parameter for parameter in module.parameters() if parameter.ndim == 4]
        addresses = [_address(parameter) for parameter in parameters]
        for parameter, address in zip(parameters, addresses, strict=True):
            # Parameters that share their memory go on sharing it.
            if address in self._waiting and addresses.count(address) == 1:
                _, calls = self._waiting.pop(address)
                parameter.data = torch.empty_like(parameter, memory_format=memory_format)
                self._waiting[_address(parameter)] = (parameter.data, calls)

    def draw(self) -> None:
        """Draw all that waits, in the order in which it was asked for."""
        for address in list(self._waiting):
            self._make(address)

    def _draw_for(self, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if tensor.layout == torch.strided and _address(tensor) in self._waiting:
                self._make(_address(tensor))

    def _make(self, address: int) -> None:
        tensor, calls = self._waiting.pop(address)
        with torch.no_grad():
            # As one row, since numbers that are drawn alike may lie in any order; in parts that stay in the cache.
            row = torch.as_strided(tensor, (tensor.numel(),), (1,), 0)
            for part in row.split(_PART_VALUES):
                for func, args, kwargs in _simplify(calls):
                    if func is Tensor.normal_ and part.dtype == torch.float32:
                        self._fill_normal(part, *args, **kwargs)
                    else:
                        func(part, *args, **kwargs)

    def _fill_normal(self, row: Tensor, mean: float = 0.0, std: float = 1.0) -> None:
        if self._bits is None:
            # torch's own bits take three times as long as these.
            self._bits = np.random.SFC64(int(torch.empty((), dtype=torch.int64).random_()))
        raw = self._bits.random_raw(-(-len(row) // 4)).view(np.uint16)[: len(row)]
        torch.index_select(_deviates(), 0, torch.from_numpy(raw).to(torch.int32), out=row).mul_(std)
        if mean:
            row.add_(mean)


@cache
def _deviates() -> Tensor:
    """Means of a standard normal distribution's 65,536 equally likely parts, scaled to variance 1.

    Returns:
        (65536,) float32, ascending, from -4.39 to 4.39.
    """
    edges = torch.special.ndtri(torch.linspace(0, 1, _NUM_DEVIATES + 1, dtype=torch.float64))
    # The integral of x exp(-x² / 2) is -exp(-x² / 2), so this is each part's mean but for a factor.
    means = -torch.exp(-(edges**2) / 2).diff()
    return (means / means.square().mean().sqrt()).float()


def _as_call(func: Callable[..., Any], target: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
    """Say a draw as the method that fills a row with it."""
    if func in (Tensor.normal_, Tensor.uniform_):
        return func, args, {key: value for key, value in kwargs.items() if key != "generator"}
    if func is nn.init.normal_:
        return Tensor.normal_, (kwargs["mean"], kwargs["std"]), {}
    if func is nn.init.uniform_:
        return Tensor.uniform_, (kwargs["a"], kwargs["b"]), {}
    # As torch documents kaiming_uniform_, He et al. 2015: bound = gain * sqrt(3 / fan).
    fan = nn.init._calculate_correct_fan(target, kwargs["mode"])
    bound = nn.init.calculate_gain(kwargs["nonlinearity"], kwargs["a"]) * math.sqrt(3 / fan)
    return Tensor.uniform_, (-bound, bound), {}


def _simplify(calls: Draws) -> Draws:
    """Draw a normal deviate in one step where a cut one is drawn that is cut nowhere, 20 deviations out."""
    if [func for func, *_ in calls[:2]] == [Tensor.uniform_, Tensor.erfinv_] and calls[0][1] == (-1.0, 1.0):
        return [(Tensor.normal_, (0.0, math.sqrt(0.5)), {}), *calls[2:]]
    return calls


def is_whole(tensor: Any) -> bool:
    """Whether it is a tensor that covers all of its memory, on the processor."""
    return (
        isinstance(tensor, Tensor)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and 0 < tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
    )


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in a value and the tuples, lists and dictionaries in it."""
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    found = []
    for item in items:
        # Most are plain numbers.
        if isinstance(item, Tensor | tuple | list | dict):
            found += _tensors(item)
    return found
