"""What an answer costs: operations, memory, time."""

import gc
import time
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from galaxy_models.data.batches import iterate_batches
from galaxy_models.data.shards import Split
from galaxy_models.inference.answers import answer_images
from galaxy_models.models.galaxy_model import GalaxyModel
from galaxy_models.task import Task
from galaxy_models.training.evaluation import EVAL_BATCH
from galaxy_models.training.memory import MicroBatch
from galaxy_models.training.runtime import Precision, give_back_memory

# Galaxies that are answered to measure the speed; fewer in a smaller split.
SPEED_ROWS = 2048
_MEGABYTE = 10**6
_PROCESS = Path("/proc/self")
# What Linux takes as the order to forget how much memory a process held at most (man 5 proc, clear_refs).
_FORGET_PEAK = "5"


def count_flops(model: GalaxyModel, *, image_px: int) -> float | None:
    """Count the floating-point operations of an answer for one image.

    Convolutions and matrix products are counted, an addition and a multiplication each; the rest, which is little, is
    not.

    Args:
        model: the network in evaluation mode.
        image_px: side of the image, in pixels.

    Returns:
        The operations, or None where torch cannot count them.
    """
    image = torch.zeros(1, 3, image_px, image_px, device=model.mean.device)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(image)
    except (RuntimeError, NotImplementedError, ValueError):
        return None
    return float(counter.get_total_flops()) or None


def measure_speed(model: GalaxyModel, split: Split, task: Task, *, image_px: int, precision: Precision) -> float:
    """Count the galaxies that are answered in a second, in batches of `EVAL_BATCH` or what fits, without averaging.

    The first `SPEED_ROWS` of a split are answered. Reading their images and bringing them to the device is timed, but
    not a batch beforehand, in which torch prepares itself.
    """
    model.eval()

    micro_batch = MicroBatch(EVAL_BATCH, precision.device)

    def answer_batch(images: Tensor, most: int) -> None:
        for part in images.split(most):
            # Brought to the processor, since a graphics card says that it is done before it is.
            answer_images(model, part, task, image_px=image_px, precision=precision, average=False).plain.cpu()

    def answer(rows: npt.NDArray[np.int64]) -> None:
        for batch in iterate_batches(split, rows, batch_size=EVAL_BATCH):
            micro_batch.run(partial(answer_batch, batch.images), len(batch.rows))

    rows = np.arange(min(SPEED_ROWS, split.num_rows))
    answer(rows[:EVAL_BATCH])
    start = time.perf_counter()
    answer(rows)
    return len(rows) / (time.perf_counter() - start)


def measure_memory_mb(model: GalaxyModel, *, image_px: int, precision: Precision) -> float | None:
    """Measure the memory that a network and its answers for a batch of `EVAL_BATCH` images take at most.

    On a graphics card this is what torch allocated. On a processor it is the size of the network, and how far the
    resident memory of this process rose above where it was before the batch, after what had been freed was given back
    to the system. That is within a few megabytes, and only where nothing else happens in the process meanwhile.

    Args:
        model: the network, on the device of `precision`.
        image_px: side of the images, in pixels.
        precision: number format to compute in.

    Returns:
        Megabytes (10^6 bytes); None where the system does not tell, which only Linux does, or the batch does not fit.
    """
    model.eval()
    gc.collect()
    images = torch.zeros(EVAL_BATCH, 3, image_px, image_px).to(memory_format=torch.channels_last)
    try:
        measure = _peak_on_card if precision.device.type == "cuda" else _peak_in_process
        return measure(model, images, precision) / _MEGABYTE
    except (OSError, AttributeError, KeyError, RuntimeError):
        return None


def _peak_on_card(model: GalaxyModel, images: Tensor, precision: Precision) -> int:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(precision.device)
    _answer(model, images.to(precision.device), precision)
    return torch.cuda.max_memory_allocated(precision.device)


def _peak_in_process(model: GalaxyModel, images: Tensor, precision: Precision) -> int:
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    # What was freed, but kept by the C library for the next to ask, would hide what the batch takes.
    give_back_memory()
    (_PROCESS / "clear_refs").write_text(_FORGET_PEAK)
    before = _status_bytes("VmRSS")
    _answer(model, images, precision)
    return weights + _status_bytes("VmHWM") - before


def _answer(model: GalaxyModel, images: Tensor, precision: Precision) -> None:
    with torch.inference_mode(), precision.autocast():
        model(images)


def _status_bytes(name: str) -> int:
    lines = (line.partition(":") for line in (_PROCESS / "status").read_text().splitlines())
    return int({key: value for key, _, value in lines}[name].split()[0]) * 1024
