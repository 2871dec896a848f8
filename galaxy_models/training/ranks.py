"""The processes that train one network together: what each computes, and how they agree.

A batch is shared out, each process passes its part through the network, and torch's DistributedDataParallel takes
the mean of their gradients. What one process cannot go on from, ends that attempt in all of them: whoever meets it
writes the reason into the store that they share, and leaves the group, so that nobody waits for an answer in vain.
"""

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from galaxy_models.data.order import WHOLE, Share
from galaxy_models.errors import MachineError
from galaxy_models.training.memory import is_out_of_memory
from galaxy_models.training.shared_norm import SharedNorms

# Longest that a process waits for the others; longer than a slow disk makes one of them late.
TIMEOUT_S = 120.0
_WATCH_S = 0.1
MEMORY = "memory"


class PeerError(MachineError):
    """Another process of the same training met a fault, or is gone."""


class Alone:
    """A single process, which has nobody to agree with: everything is as it is.

    Attributes:
        share: this process's part of a batch.
    """

    share = WHOLE

    @property
    def is_first(self) -> bool:
        """Whether this is the process that keeps the record."""
        return self.share.index == 0

    def session(self) -> AbstractContextManager[None]:
        """Around all that the processes do in step with each other: a fault in one ends it in all."""
        return nullcontext()

    def attempt(self) -> AbstractContextManager[None]:
        """Around the forward and backward passes of a batch: where memory runs out in one it does so in all."""
        return nullcontext()

    def network(self, model: nn.Module) -> nn.Module:
        """The network whose gradients are the mean over the processes."""
        return model

    def adding(self, network: nn.Module, *, more: bool) -> AbstractContextManager[None]:
        """Around a micro-batch: where more are to come, gradients are kept, not yet exchanged."""
        return nullcontext()

    def total(self, value: float) -> float:
        """The sum of a number over the processes, the same in all of them."""
        return value

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows (N, ...) of all processes, one process's after the other's."""
        return rows

    def share_buffers(self, model: nn.Module) -> None:
        """Give all the first process's buffers."""

    def first_state(self, state: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """The first process's state, for the others; None for itself."""
        return None


class Team(Alone):
    """One of several processes, which meet at a store.

    Args:
        store: connected to the others; see `open_store` and `join_store`.
        index: this process's number; 0 keeps the record.
        num: how many there are.
        timeout_s: longest that it waits for the others.
    """

    def __init__(self, store: TCPStore, *, index: int, num: int, timeout_s: float = TIMEOUT_S) -> None:
        self.share = Share(index, num)
        self._store = store
        self._timeout = timedelta(seconds=timeout_s)
        self._number = -1
        self._over: threading.Event | None = None
        self._network: DistributedDataParallel | None = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """See `Alone`."""
        try:
            self._meet()
            yield
        except Exception as error:
            raise self._left(error) from None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """See `Alone`."""
        try:
            self._meet()
            with SharedNorms(self.gather_vectors):
                yield
            # Nobody goes on before all have come through: whose memory ran out would try again alone.
            self.total(0.0)
        except Exception as error:
            raise self._left(error) from None

    def network(self, model: nn.Module) -> nn.Module:
        """See `Alone`."""
        if self._network is None:
            # Some networks have parameters that an answer does not depend on.
            self._network = DistributedDataParallel(model, find_unused_parameters=True, gradient_as_bucket_view=True)
        return self._network

    def adding(self, network: nn.Module, *, more: bool) -> AbstractContextManager[None]:
        """See `Alone`."""
        assert isinstance(network, DistributedDataParallel)
        return network.no_sync() if more else nullcontext()

    def total(self, value: float) -> float:
        """See `Alone`."""
        summed = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.item()

    def gather_vectors(self, vector: Tensor) -> Tensor:
        """The vectors (L,) of all processes, as (P, L)."""
        rows = [torch.empty_like(vector) for _ in range(self.share.num)]
        dist.all_gather(rows, vector)
        return torch.stack(rows)

    def gathered(self, rows: Tensor) -> Tensor:
        """See `Alone`."""
        lengths = self.gather_vectors(torch.tensor([len(rows)])).flatten().tolist()
        padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = self.gather_vectors(padded.flatten()).unflatten(1, padded.shape)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    def share_buffers(self, model: nn.Module) -> None:
        """See `Alone`."""
        for dtype in sorted({buffer.dtype for buffer in model.buffers()}, key=str):
            buffers = [buffer for buffer in model.buffers() if buffer.dtype == dtype]
            joined = torch.cat([buffer.flatten() for buffer in buffers])
            dist.broadcast(joined, 0)
            for buffer, values in zip(buffers, joined.split([one.numel() for one in buffers]), strict=True):
                buffer.copy_(values.view_as(buffer))

    def first_state(self, state: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """See `Alone`."""
        written = io.BytesIO()
        if self.is_first:
            torch.save(state(), written)
        length = int(self.total(float(len(written.getvalue()))))
        data = torch.zeros(length, dtype=torch.uint8)
        if self.is_first:
            data = torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)
        dist.broadcast(data, 0)
        if self.is_first:
            return None
        found: dict[str, Any] = torch.load(io.BytesIO(data.numpy().tobytes()), map_location="cpu", weights_only=True)
        return found

    def close(self) -> None:
        """Leave the others for good."""
        if self._over is not None:
            self._over.set()
            self._over = self._network = None
            dist.destroy_process_group()

    def fail(self, reason: str) -> str:
        """Say that this attempt is over in all processes.

        Args:
            reason: `MEMORY`, or any other word.

        Returns:
            What was said first, here or elsewhere, and by which process: `<reason> <number>`.
        """
        try:
            said = self._store.compare_set(self._key, "", f"{reason} {self.share.index}")
        except RuntimeError:
            # The store went with the first process.
            return "fault 0"
        return str(said.decode())

    @property
    def _key(self) -> str:
        return f"over-{self._number}"

    def _meet(self) -> None:
        """Join the others in a group; after an attempt that failed in a new one."""
        if self._over is not None:
            return
        self._number += 1
        store = PrefixStore(str(self._number), self._store)
        # Numbers that lie in the host's memory are exchanged over TCP, even where gradients take a faster way.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=store, rank=self.share.index, world_size=self.share.num, timeout=self._timeout
        )
        self._over = threading.Event()
        threading.Thread(target=self._watch, args=(dist.group.WORLD, self._key, self._over), daemon=True).start()

    def _watch(self, group: Any, key: str, over: threading.Event) -> None:
        """End what this process waits for on a graphics card once another has said that the attempt is over."""
        while not over.wait(_WATCH_S):
            try:
                said = self._store.check([key])
            except RuntimeError:
                said = True
            if said and not over.is_set():
                group.abort()
                return

    def _left(self, error: Exception) -> Exception:
        """Leave the group; what the attempt ended with, seen from this process."""
        if self._over is None:
            return error
        reason, _, number = self.fail(MEMORY if is_out_of_memory(error) else "fault").partition(" ")
        self._over.set()
        self._over = self._network = None
        # Without the others' consent, who may be waiting for this process.
        dist.distributed_c10d._abort_process_group()
        own = int(number) == self.share.index
        if own or isinstance(error, PeerError) or (reason == MEMORY and is_out_of_memory(error)):
            return error
        if reason == MEMORY:
            return MemoryError(f"process {number} of this training ran out of memory")
        return PeerError(f"process {number} of this training met a fault ({' '.join(str(error).split()):.300})")


def open_store(host: str, num: int, *, timeout_s: float = TIMEOUT_S) -> TCPStore:
    """Make the store at which processes meet, on a free port of one of this machine's addresses.

    Args:
        host: the address, which the others can reach.
        num: how many processes there are.
        timeout_s: longest that this process waits for what another is to write.
    """
    with socket.socket() as listener:
        listener.bind((host, 0))
        listener.listen()
        return TCPStore(
            host,
            listener.getsockname()[1],
            num,
            is_master=True,
            timeout=timedelta(seconds=timeout_s),
            wait_for_workers=False,
            # Left to itself it would listen on all addresses.
            master_listen_fd=listener.detach(),
        )


def join_store(host: str, port: int, num: int, *, timeout_s: float = TIMEOUT_S) -> TCPStore:
    """Connect to the store that `open_store` made in another process."""
    return TCPStore(host, port, num, is_master=False, timeout=timedelta(seconds=timeout_s), wait_for_workers=False)
