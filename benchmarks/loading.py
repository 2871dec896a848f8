"""How fast and how lean galaxies are served.

`python benchmarks/loading.py --data DIR` makes shards of a folder of images in a temporary place and prints, against
their goals: batches from shards against torchvision's ImageFolder, the gather against np.memmap, augmentation against
a training step, and the memory that several readers of the same shards cost. Contenders take turns in rounds; ratios
are medians over the rounds. On one thread all times are processor time, which other work on the machine disturbs less.
"""

import argparse
import multiprocessing
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from galaxy_models.config import AugmentConfig, CnnConfig, TrainConfig
from galaxy_models.data.augment import draw_variations, prepare, vary
from galaxy_models.data.batches import iterate_batches
from galaxy_models.data.manifest import Manifest, SplitEntry
from galaxy_models.data.order import batch_slices, epoch_order
from galaxy_models.data.shards import ShardWriter, Split
from galaxy_models.models import build_model
from galaxy_models.task import Task
from galaxy_models.training.runtime import keep_freed_memory

DEFAULT_DATA = Path(__file__).parents[2] / "shared" / "data" / "kaggle_4class"
AUGMENTATIONS = {
    "nothing": AugmentConfig(symmetries=False),
    "symmetries": AugmentConfig(),
    "+ rotation, shift, zoom": AugmentConfig(rotation_deg=180, shift=0.05, zoom=1.2),
    "+ brightness": AugmentConfig(rotation_deg=180, shift=0.05, zoom=1.2, brightness=0.2),
    "+ noise": AugmentConfig(rotation_deg=180, shift=0.05, zoom=1.2, brightness=0.2, noise=0.02),
}


def image_folder(data: Path, px: int) -> ImageFolder:
    """The usual pipeline: decode, crop the middle half, shrink, float32 in [0, 1]."""
    half = transforms.Lambda(lambda image: transforms.functional.center_crop(image, [s // 2 for s in image.size[::-1]]))
    return ImageFolder(str(data), transforms.Compose([half, transforms.Resize((px, px)), transforms.ToTensor()]))


def make_shards(folder: ImageFolder, directory: Path, *, px: int, num_rows: int) -> Manifest:
    """Write the folder's images as shards, over again until there are `num_rows`."""
    task = Task("classes", tuple(folder.classes))
    writer = ShardWriter(directory, "train", px=px, task=task)
    images = [(image.mul(255).byte().permute(1, 2, 0).numpy(), label) for image, label in folder]
    counts = [0] * len(task.names)
    for row, (pixels, label) in enumerate(islice(cycle(images), num_rows)):
        writer.add(f"{row}", pixels, label)
        counts[label] += 1
    empty = SplitEntry(0, (), (0,) * len(counts))
    splits = {"train": SplitEntry(num_rows, writer.close(), tuple(counts)), "val": empty, "test": empty}
    manifest = Manifest(1, "benchmark", False, task, px, splits, 0, 0, {})
    manifest.write(directory)
    return manifest


def rate(work: Callable[[], int]) -> float:
    """Images per second of processor time in one run of `work`, which returns how many it served."""
    start = time.process_time()
    num_images = work()
    return num_images / (time.process_time() - start)


def compare(contenders: dict[str, Callable[[], int]], num_rounds: int) -> dict[str, list[float]]:
    """Rates of every contender in each round, in turns, after one round to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(num_rounds + 1):
        for name, work in contenders.items():
            value = rate(work)
            if number:
                rates[name].append(value)
    return rates


def ratio(rates: dict[str, list[float]], name: str, other: str) -> float:
    """Median over the rounds of one contender's rate over another's in the same round."""
    return statistics.median(a / b for a, b in zip(rates[name], rates[other], strict=True))


def print_goal(text: str, value: float, *, low: float | None = None, high: float | None = None, unit: str = "") -> None:
    """One figure with its goal and whether it is met."""
    met = (low is None or value >= low) and (high is None or value <= high)
    goal = f"at least {low:g}" if low is not None else f"at most {high:g}"
    print(f"  {text:<58} {value:9.2f}{unit}  goal {goal}{unit}: {'met' if met else 'MISSED'}")


def bench_loading(folder: ImageFolder, split: Split, *, batch_size: int, num_rounds: int) -> None:
    """Batches from shards against ImageFolder and np.memmap."""
    pixels = np.empty((split.num_rows, split.px, split.px, 3), np.uint8)
    split.gather(np.arange(split.num_rows), pixels)
    with tempfile.NamedTemporaryFile() as file:
        pixels.tofile(file.name)
        memmap = np.memmap(file.name, np.uint8, "r", shape=pixels.shape)
        del pixels
        order = epoch_order(split.num_rows, seed=0, epoch=0)
        buffers = np.empty((2, batch_size, split.px, split.px, 3), np.uint8)
        sampler = RandomSampler(folder, num_samples=4 * batch_size, generator=torch.Generator().manual_seed(0))
        loader = DataLoader(folder, batch_size=batch_size, sampler=sampler)

        def gather_all(gather: Callable[[np.ndarray, np.ndarray], object]) -> int:
            for number, part in enumerate(batch_slices(len(order), batch_size)):
                gather(order[part], buffers[number % 2, : part.stop - part.start])
            return len(order)

        def from_memmap(rows: np.ndarray, out: np.ndarray) -> None:
            # Any mode but "raise" lets numpy write into `out` without a buffer.
            np.take(memmap, rows, axis=0, out=out, mode="clip")

        def from_shards_float() -> int:
            batches = iterate_batches(split, order, batch_size=batch_size)
            return sum(len(prepare(batch.images, image_px=split.px)) for batch in batches)

        rates = compare(
            {
                "ImageFolder, float32": lambda: sum(len(images) for images, _ in loader),
                "shards, float32": from_shards_float,
                "shards, uint8": lambda: sum(len(b.rows) for b in iterate_batches(split, order, batch_size=batch_size)),
                "gather from shards": lambda: gather_all(split.gather),
                "gather from np.memmap, equal buffers": lambda: gather_all(from_memmap),
            },
            num_rounds,
        )
    print(f"\nBatches of {batch_size} at {split.px} px, one core, shuffled; images per second")
    for name, values in rates.items():
        print(f"  {name:<58} {statistics.median(values):9,.0f}  ({min(values):,.0f} to {max(values):,.0f})")
    print_goal("shards / ImageFolder, float32", ratio(rates, "shards, float32", "ImageFolder, float32"), low=10)
    print_goal(
        "gather, shards / np.memmap",
        ratio(rates, "gather from shards", "gather from np.memmap, equal buffers"),
        low=0.85,
    )


def training_step(split: Split, task: Task, px: int) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """One step of the default small CNN in bf16 and channels_last."""
    config = TrainConfig(backbone="cnn", cnn=CnnConfig())
    model = build_model(config, task, px=px).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step(images: torch.Tensor, targets: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bench_augmentation(split: Split, task: Task, *, image_px: int, batch_size: int, num_rounds: int) -> None:
    """What loading and each augmentation cost against the training step that waits for them."""
    step = training_step(split, task, image_px)
    order = epoch_order(split.num_rows, seed=0, epoch=0)[: 4 * batch_size]
    order = np.tile(order, num_rounds + 1)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    print(f"\nData waits of the small CNN in bf16, {split.px} px shards to {image_px} px, batches of {batch_size}")
    for name, config in AUGMENTATIONS.items():
        waits, steps = [], []
        lengths = [part.stop - part.start for part in batch_slices(len(order), batch_size)]
        generator = torch.Generator().manual_seed(0)
        start = clock()
        variations = draw_variations(lengths, config=config, image_px=image_px, generator=generator)
        drawing = (clock() - start) / len(order)
        batches: Iterator = iterate_batches(split, order, batch_size=batch_size)
        while True:
            start = clock()
            batch = next(batches, None)
            if batch is None:
                break
            own = variations.of(batch.place)
            images, targets = vary(batch.images, batch.targets, own, image_px=image_px, mirror_order=None)
            loaded = clock()
            step(images, targets)
            waits.append((loaded - start) / len(batch.rows))
            steps.append((clock() - loaded) / len(batch.rows))
        wait, work = drawing + statistics.median(waits[4:]), statistics.median(steps[4:])
        text = f"{name}: {1e6 * wait:.0f} us an image beside {1e6 * work:.0f} us"
        print_goal(text, 100 * wait / work, high=5, unit=" %")


def _memory(pattern: str | None = None) -> float:
    """Proportional set size of this process, or of its maps whose file matches, in MB."""
    if pattern is None:
        text = Path("/proc/self/smaps_rollup").read_text()
    else:
        maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
        text = "".join(entry for entry in maps if pattern in entry.split("\n", 1)[0])
    return sum(int(kilobytes) for kilobytes in re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)) * 1024 / 1e6


def read_everything(split_of: tuple[str, Manifest], barrier: Barrier, queue: multiprocessing.Queue) -> None:
    """One reader: serve an epoch, then weigh itself while every other reader still holds its maps."""
    torch.set_num_threads(1)
    directory, manifest = split_of
    barrier.wait()
    before = _memory()
    barrier.wait()
    split = Split.open(directory, manifest, "train")
    for batch in iterate_batches(split, epoch_order(split.num_rows, seed=0, epoch=0), batch_size=64):
        assert len(batch.rows)
    barrier.wait()
    queue.put((_memory() - before, _memory(directory)))
    barrier.wait()


def bench_memory(directory: Path, manifest: Manifest, num_readers: int) -> None:
    """Proportional set size that the data costs each of several readers."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(num_readers), context.Queue()
    arguments = ((str(directory), manifest), barrier, queue)
    readers = [context.Process(target=read_everything, args=arguments) for _ in range(num_readers)]
    for reader in readers:
        reader.start()
    weights = [queue.get(timeout=300) for _ in readers]
    for reader in readers:
        reader.join()
    data = sum(shard.num_bytes for shard in manifest.splits["train"].shards) / 1e6
    growth, mapped = (statistics.mean(column) for column in zip(*weights, strict=True))
    print(f"\n{num_readers} readers of {data:,.0f} MB of shards; proportional set size, MB")
    print(f"  {'of the mapped shards in all readers together':<58} {mapped * num_readers:9.0f}  ({mapped:.0f} in each)")
    print_goal("of its own: a reader's growth beyond its share of the data", growth - data / num_readers, high=50)


def main() -> None:
    """Parse the options, make the shards and run the four parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="images, one folder a class")
    parser.add_argument("--px", type=int, default=128, help="side of the stored images")
    parser.add_argument(
        "--num-rows", type=int, default=8192, help="rows of the shards; images are repeated to fill them"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for augmentation and training")
    options = parser.parse_args()
    if not options.data.is_dir():
        parser.error(f"--data: found no folder {options.data}, expected one folder of images per class")
    torch.set_num_threads(1)
    keep_freed_memory()
    folder = image_folder(options.data, options.px)
    with tempfile.TemporaryDirectory() as place:
        manifest = make_shards(folder, Path(place), px=options.px, num_rows=options.num_rows)
        bench_memory(Path(place), manifest, options.readers)
        split = Split.open(place, manifest, "train")
        bench_loading(folder, split, batch_size=64, num_rounds=options.rounds)
        torch.set_num_threads(options.threads)
        for image_px in dict.fromkeys((options.px // 2, options.px)):
            bench_augmentation(split, manifest.task, image_px=image_px, batch_size=64, num_rounds=options.rounds)


if __name__ == "__main__":
    main()
