"""The energy that training took, read from the counters of the processors and the graphics card.

A counter counts for a whole device, whoever uses it. Of a processor package a training is given the share of the
machine's processors that it computes with; what idle processors draw is part of their own share and counted for
nobody. Of a graphics card it is given the fraction that was reserved for it.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from galaxy_models.training.runtime import Runtime

POWERCAP = Path("/sys/class/powercap")
# The name of an epoch's energy in joules, and the end of those of its parts.
ENERGY = "energy_j"
# A counter of 2^32 steps of 15 microjoules, the smallest there is, goes round in 130 s at 500 W.
_INTERVAL_S = 20.0


@dataclass(frozen=True)
class Counter:
    """A device's running total of energy.

    Attributes:
        read: gives the total as it is now, in microjoules; OSError or ValueError if it cannot be read.
        share: of the energy that is the training's.
        turn: where the total begins at 0 again, in microjoules; 0 = never.
    """

    read: Callable[[], int]
    share: float
    turn: int = 0


def find_counters(
    runtime: "Runtime", device: "torch.device", *, powercap: Path = POWERCAP
) -> dict[str, tuple[Counter, ...]]:
    """The counters of the devices of a training that this process may read.

    Args:
        runtime: how much of the machine the training has.
        device: where it computes.
        powercap: Linux's folder of processor counters, in most systems for the administrator alone.

    Returns:
        `cpu` and `gpu`, each only where there is something to read.
    """
    share = min(1.0, runtime.threads / (os.cpu_count() or runtime.threads))
    found = {"cpu": _packages(powercap, share)}
    if device.type == "cuda":
        found["gpu"] = _card(device, runtime.gpu_share)
    return {kind: counters for kind, counters in found.items() if counters}


@contextmanager
def measured_energy(counters: Mapping[str, Sequence[Counter]]) -> Iterator[dict[str, float]]:
    """Measure what a block takes.

    Args:
        counters: of each kind of device.

    Yields:
        A dictionary that has, after the block, `<kind>_energy_j` for each kind and their sum, `energy_j`: joules.
        A kind of which a counter could not be read throughout, or did not move, is absent; without any so is the sum.
    """
    found: dict[str, float] = {}
    meters = {kind: [_Meter(counter) for counter in of_kind] for kind, of_kind in counters.items()}
    with _watched([meter for of_kind in meters.values() for meter in of_kind]):
        yield found
    for kind, of_kind in meters.items():
        parts = [meter.joules for meter in of_kind if meter.joules is not None]
        # Virtual machines have counters that stand still.
        if len(parts) == len(of_kind) and sum(parts) > 0:
            found[f"{kind}_{ENERGY}"] = sum(parts)
    if found:
        found[ENERGY] = sum(found.values())


class _Meter:
    """What was added to a counter since the meter was made.

    Attributes:
        joules: the training's share of it; None once the counter could not be read.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.joules: float | None = 0.0
        self._last = self._now()

    def read(self) -> None:
        """Add what came since the last reading."""
        before, self._last = self._last, self._now()
        if self.joules is None:
            return
        added = self._last - before
        if added < 0:
            added += self._counter.turn
        self.joules = self.joules + added * self._counter.share / 1e6 if added >= 0 else None

    def _now(self) -> int:
        try:
            return self._counter.read()
        except (OSError, ValueError):
            self.joules = None
            return 0


@contextmanager
def _watched(meters: Sequence[_Meter]) -> Iterator[None]:
    """Read meters so often within a block that no counter goes round twice between two readings, and after it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_INTERVAL_S):
            for meter in meters:
                meter.read()

    thread = threading.Thread(target=watch, daemon=True)
    if meters:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if meters:
            thread.join()
    for meter in meters:
        meter.read()


def _packages(powercap: Path, share: float) -> tuple[Counter, ...]:
    """Packages and the memory beside them (cores and graphics are parts of a package, psys holds all); all or none."""
    found = []
    try:
        for zone in sorted(powercap.glob("intel-rapl:*")):
            name = (zone / "name").read_text(encoding="ascii")
            if name.startswith("package") or name.strip() == "dram":
                turn = _whole_number(zone / "max_energy_range_uj")
                found.append(Counter(partial(_whole_number, zone / "energy_uj"), share, turn))
                found[-1].read()
    except (OSError, ValueError):
        return ()
    return tuple(found)


def _card(device: "torch.device", share: float) -> tuple[Counter, ...]:
    """The counter of a graphics card; none without nvidia-ml-py, or on a card that has none."""
    import torch

    try:
        import pynvml
    except ImportError:
        return ()

    def total() -> int:
        try:
            return 1000 * int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))  # of millijoules
        except pynvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from None

    try:
        pynvml.nvmlInit()
        # By its name: torch numbers the cards that this process may use, NVML those that there are.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        total()
    except (pynvml.NVMLError, OSError):
        return ()
    return (Counter(total, share),)


def _whole_number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
