"""A search of ours and one as Ray Tune's documentation shows it, side by side: the same space, survey and time.

The stock search is a function trainable with a plain float32 loop over torchvision's ImageFolder, `OptunaSearch` over
the same space, and `ASHAScheduler`. Both get the same pixels: the folder's images are the shards' own, cut and shrunk
beforehand, which is to the stock search's favour. The configurations that the space file names are known to ours; with
`--named` the stock search begins with them, too. Each has one processor, on which it is pinned, and one trial at a
time; they run at the same time, and change places from seed to seed, so that other work on the machine touches both.

    python benchmarks/against_stock.py --data shards/gz1 --out /tmp/stock --minutes 10 --seeds 3
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SPACE = Path(__file__).parents[1] / "spaces" / "cnn.py"
MAX_EPOCHS = 27


def write_folders(data: Path, out: Path) -> None:
    """Write the shards' training and validation images as PNG files, a folder a class."""
    from PIL import Image

    from galaxy_models.data.manifest import Manifest
    from galaxy_models.data.shards import Split

    manifest = Manifest.load(data)
    for name in ("train", "val"):
        split = Split.open(data, manifest, name)
        for index in range(0, len(split.targets), 256):
            rows = np.arange(index, min(index + 256, len(split.targets)))
            pixels = np.empty((len(rows), manifest.px, manifest.px, 3), dtype=np.uint8)
            split.gather(rows, pixels)
            for row, image in zip(rows, pixels, strict=True):
                folder = out / name / f"{split.targets[row]:02d}"
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f"{row}.png")


def stock_trial(params: dict[str, Any]) -> None:
    """Train one configuration, as a beginner writes it."""
    import optuna
    import torch
    from ray import tune
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    from galaxy_models.config import AugmentConfig, TrainConfig
    from galaxy_models.data.manifest import Manifest
    from galaxy_models.models.galaxy_model import build_model
    from galaxy_models.training.losses import balance_weights, class_loss
    from galaxy_models.training.optim import Schedule, make_optimizer
    from search.space import load_space

    folder, data = Path(params.pop("folder")), Path(params.pop("data"))
    config: TrainConfig = load_space(SPACE).config(optuna.trial.FixedTrial(params))
    manifest, vary = Manifest.load(data), config.augment
    assert isinstance(vary, AugmentConfig)
    # Of PIL images antialiased; of those that have this size already nothing is done.
    px = config.image_px or manifest.px
    resize = transforms.Resize(px)
    steps = [
        resize,
        transforms.RandomAffine(180 if vary.rotation_deg else 0, (vary.shift,) * 2, (1.0, vary.zoom)),
        transforms.ColorJitter(brightness=vary.brightness),
        transforms.ToTensor(),
    ]
    train = datasets.ImageFolder(folder / "train", transforms.Compose(steps))
    loader = DataLoader(train, batch_size=config.batch_size, shuffle=True, drop_last=True)
    val = DataLoader(
        datasets.ImageFolder(folder / "val", transforms.Compose([resize, transforms.ToTensor()])), batch_size=64
    )
    model = build_model(config, manifest.task, px=px)
    optimizer = make_optimizer(config, model)
    schedule = Schedule(config, optimizer, updates_per_epoch=len(loader))
    weights = None
    if config.class_balance == "loss":
        weights = balance_weights(np.array(train.targets), num_classes=len(train.classes))
    for epoch in range(MAX_EPOCHS):
        model.train()
        for update, (images, labels) in enumerate(loader, start=epoch * len(loader)):
            schedule.set_rates(update)
            loss = class_loss(model(images), labels, label_smoothing=config.label_smoothing, class_weights=weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        total = 0.0
        with torch.inference_mode():
            for images, labels in val:
                total += float(class_loss(model(images), labels)) * len(labels)
        tune.report({"val_nll": total / len(val.dataset)})  # type: ignore[arg-type]


def define(constants: dict[str, str], trial: Any) -> dict[str, str]:
    """Ask for one configuration, and pass on what is the same for all trials."""
    from search.space import load_space

    load_space(SPACE).config(trial)
    return constants


def stock_search(data: Path, folder: Path, out: Path, *, seconds: float, seed: int, named: bool) -> None:
    """Run the stock search, and write when which value was reported."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    from search.space import load_space

    begin = time.monotonic()

    class Times(tune.Callback):  # type: ignore[misc]
        """Takes down when each result and each end came."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            rows.append((time.monotonic() - begin, trial.trial_id, float(result["val_nll"])))

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            ended.append(trial.trial_id)

    rows: list[tuple[float, str, float]] = []
    ended: list[str] = []
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, address="local")
    tuner = tune.Tuner(
        stock_trial,
        tune_config=tune.TuneConfig(
            metric="val_nll",
            mode="min",
            num_samples=-1,
            time_budget_s=seconds,
            search_alg=OptunaSearch(
                partial(define, {"folder": str(folder.resolve()), "data": str(data.resolve())}),
                metric="val_nll",
                mode="min",
                seed=seed,
                points_to_evaluate=list(load_space(SPACE).named) if named else None,
            ),
            scheduler=ASHAScheduler(max_t=MAX_EPOCHS, grace_period=1, reduction_factor=3),
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(out.resolve()), callbacks=[Times()], verbose=0),
    )
    tuner.fit()
    rows = [row for row in rows if row[0] <= seconds]
    record = {"rows": rows, "trials": len(set(ended) & {row[1] for row in rows})}
    (out / "stock.json").write_text(json.dumps(record), encoding="utf-8")


def read_ours(run_dir: Path, seconds: float) -> tuple[list[tuple[float, float]], int]:
    """When which value was reported, and how many trials ended."""
    from optuna.trial import TrialState

    from search.entry import epoch_metrics
    from search.study import load_studies

    (study,) = load_studies(run_dir).values()
    trials = study.get_trials()
    rows = [(one["elapsed_s"], one["val_nll"]) for trial in trials for one in epoch_metrics(trial).values()]
    ended = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    return sorted(row for row in rows if row[0] <= seconds), ended


def start(words: list[str], core: int, log: Path) -> "subprocess.Popen[bytes]":
    """Start a process on one processor."""
    with log.open("wb") as file:
        return subprocess.Popen(["taskset", "-c", str(core), sys.executable, *words], stdout=file, stderr=file)


def compare(
    data: Path, out: Path, *, minutes: float, seed: int, cores: tuple[int, int], named: bool
) -> dict[str, float]:
    """Run both with one seed."""
    folder, seconds = out / "folders", minutes * 60
    place = out / f"seed-{seed}"
    place.mkdir(parents=True)
    common = ["--data", str(data), "--out", str(place), "--minutes", str(minutes), "--seed", str(seed)]
    helped = ["--named"] if named else []
    stock = start([__file__, "--stock", *common, *helped], cores[0], place / "stock.txt")
    words = ["-m", "search.run", "--space", str(SPACE), "--data", str(data), "--runs-dir", str(place), "--name", "ours"]
    words += ["--num-trials", "100000", "--max-epochs", str(MAX_EPOCHS), "--time-budget", f"{minutes * 60:.0f}s"]
    words += ["--seed", str(seed), "--max-concurrent", "1", "--cpus-per-trial", "1", "--final-seeds", "1"]
    ours = start(words, cores[1], place / "ours.txt")
    if stock.wait() != 0:
        sys.exit(f"stock: exit code {stock.returncode}, expected 0: see {place / 'stock.txt'}")
    # Its search is over, too; its final training does not count.
    ours.send_signal(signal.SIGTERM)
    if ours.wait() not in (0, 128 + signal.SIGTERM):
        sys.exit(f"ours: exit code {ours.returncode}, expected 0 or 143: see {place / 'ours.txt'}")
    assert folder.is_dir()
    record = json.loads((place / "stock.json").read_text(encoding="utf-8"))
    mine, num_mine = read_ours(place / "ours", seconds)
    values = [(at_s, value) for at_s, _, value in record["rows"]]
    goal = min(value for _, value in values)
    reached_s = next((at_s for at_s, value in values if value == goal), float("nan"))
    return {
        "seed": seed,
        "stock best": goal,
        "stock reached it after s": reached_s,
        "ours reached it after s": next((at_s for at_s, value in mine if value <= goal), float("inf")),
        "ours best": min(value for _, value in mine),
        "stock trials": record["trials"],
        "ours trials": num_mine,
        "stock epochs": len(values),
        "ours epochs": len(mine),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="shards of a survey of classes")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--named", action="store_true", help="let the stock search begin with the space's named ones")
    parser.add_argument("--stock", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stock:
        folder, seconds = asked.out.parent / "folders", asked.minutes * 60
        stock_search(asked.data, folder, asked.out, seconds=seconds, seed=asked.seed, named=asked.named)
        return
    asked.out.mkdir(parents=True)
    write_folders(asked.data, asked.out / "folders")
    cores = sorted(os.sched_getaffinity(0))[:2]
    rows = []
    for seed in range(asked.seeds):
        order = (cores[seed % 2], cores[1 - seed % 2])
        rows.append(compare(asked.data, asked.out, minutes=asked.minutes, seed=seed, cores=order, named=asked.named))
        print(pd.DataFrame(rows).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
