"""Networks made again: how one is put together is kept, and each further one gets numbers of its own.

To put Inception v3 together takes almost as long as to draw its weights: nearly five hundred modules, each with
a dozen dictionaries, are made one after another as they were made the last time. The frame of a network is kept as a
pickle, which never leaves the object that wrote it; reading it again is ten times as fast as `copy.deepcopy`.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from galaxy_models.models.undrawn import Undrawn, is_whole


class BlueprintError(Exception):
    """A network has no blueprint: it has to be put together each time."""


class Blueprint:
    """A network without the numbers that are drawn for it."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        """Put a network together once, and draw nothing.

        Args:
            make: makes a network on the processor, the same each time but for the numbers that it draws.

        Raises:
            BlueprintError: it reads numbers that it draws, shares memory between tensors, or cannot be copied.
        """
        undrawn = Undrawn()
        # The numbers of the network that comes next are not to depend on whether this one drew any.
        with torch.random.fork_rng(devices=[]):
            before = torch.get_rng_state()
            with undrawn:
                network = make()
            if not torch.equal(torch.get_rng_state(), before):
                raise BlueprintError("it draws numbers before it is complete")
        parts = _Parts()
        try:
            parts.dump(network)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise BlueprintError(f"it cannot be copied: {error}") from error
        self._frame = parts.frame.getvalue()
        places = {_address(tensor): place for place, tensor in enumerate(parts.tensors)}
        # In the order in which they were asked for; what is no part of the network any more is left out.
        self._draws = {places[address]: draws for address, draws in undrawn.waiting().items() if address in places}
        if len(places) < len(parts.tensors) or not all(is_whole(parts.tensors[place]) for place in self._draws):
            raise BlueprintError("tensors of it share their memory")
        # Of what is drawn only the shape is kept, and no memory.
        self._tensors = [
            _renew(tensor, device="meta") if place in self._draws else tensor
            for place, tensor in enumerate(parts.tensors)
        ]

    def build(self, undrawn: Undrawn) -> nn.Module:
        """Make a network that shares nothing with any other.

        Args:
            undrawn: not active; what is to be drawn waits in it.
        """
        tensors = [_renew(tensor) for tensor in self._tensors]
        for place, draws in self._draws.items():
            undrawn.wait(tensors[place], draws)
        network: nn.Module = _Joiner(self._frame, tensors).load()
        return network


class _Parts(pickle.Pickler):
    """Takes a network apart: its tensors, and a frame that names them by number."""

    def __init__(self) -> None:
        self.frame = io.BytesIO()
        self.tensors: list[Tensor] = []
        self._places: dict[int, int] = {}
        super().__init__(self.frame)

    def persistent_id(self, part: Any) -> int | None:
        """Give the number of a tensor; None for all else."""
        if not isinstance(part, Tensor):
            return None
        if id(part) not in self._places:
            if type(part) not in (Tensor, nn.Parameter) or not part.is_leaf or part.numel() == 0:
                raise pickle.PicklingError(f"a tensor of the kind {type(part).__name__}")
            self._places[id(part)] = len(self.tensors)
            self.tensors.append(part)
        return self._places[id(part)]


class _Joiner(pickle.Unpickler):
    """Joins tensors by a frame that this process took apart itself."""

    def __init__(self, frame: bytes, tensors: list[Tensor]) -> None:
        super().__init__(io.BytesIO(frame))
        self._tensors = tensors

    def persistent_load(self, place: int) -> Tensor:
        """Give a tensor by its number."""
        return self._tensors[place]


def _renew(tensor: Tensor, *, device: str = "cpu") -> Tensor:
    """A tensor of the same kind, with the same values if there are any and it is not moved."""
    same = tensor.device == torch.device(device)
    values = tensor.detach().clone() if same else torch.empty_like(tensor, device=device)
    if isinstance(tensor, nn.Parameter):
        values = nn.Parameter(values, requires_grad=tensor.requires_grad)
    values.__dict__.update(tensor.__dict__)
    return values


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
