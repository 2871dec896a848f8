"""`python -m search.evaluate`: any checkpoint on any survey of the same task."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file
from shapes_survey import CLASSES, VOTES, copy_altered, make_shapes, small_config
from sklearn.metrics import accuracy_score, log_loss, recall_score

from galaxy_models.data.manifest import Manifest
from galaxy_models.inference.network import read_description
from galaxy_models.task import Task
from search.checkpoint_scores import with_intervals
from search.evaluate import main
from search.finalist import FinalJob, FinalSetting
from search.results import FinalRun
from search.retrain import retrain
from search.shards import Shards

NAMES = CLASSES.names


def _trained(folder: Path, data: Path, metric: str) -> tuple[Path, FinalRun]:
    job = FinalJob(
        backbone="cnn", trial=0, rank=0, seed_index=0, config=small_config(epochs=2, precision="float32", seed=2)
    )
    setting = FinalSetting(
        run_dir=folder,
        shards=Shards.at(data),
        threads=1,
        device="cpu",
        weights_dir=None,
        metric=metric,
        direction="min",
    )
    return setting.folder(job) / "weights.safetensors", retrain(job, setting)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("evaluate") / "shapes", sizes=(120, 40, 50))


@pytest.fixture(scope="module")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FinalRun]:
    return _trained(tmp_path_factory.mktemp("run"), shapes, "nll")


def _main(*words: object) -> int:
    return main([*map(str, words), "--threads", "1", "--device", "cpu"])


def _renamed(shapes: Path, folder: Path, names: tuple[str, ...], survey: str) -> Path:
    """The same shards under a manifest that gives its classes other names."""
    folder.mkdir()
    for path in shapes.glob("*.arrow"):
        (folder / path.name).symlink_to(path)
    replace(Manifest.load(shapes), task=Task("classes", names), survey=survey, simulated=False).write(folder)
    return folder


def test_numbers_are_those_of_the_final_evaluation(trained, shapes: Path, tmp_path: Path, capsys) -> None:
    weights, result = trained
    out = tmp_path / "new" / "out"
    assert _main(weights, "--data", shapes, "--tta", "--out", out) == 0
    written = json.loads((out / "metrics.json").read_text())
    for part, expected in (("metrics", result.metrics["test"]), ("averaged", result.metrics_tta["test"])):
        assert {name: score["value"] for name, score in written[part].items()} == pytest.approx(expected, abs=1e-6)
    assert (written["split"], written["num_galaxies"], written["classes"]) == ("test", 50, list(NAMES))
    table = pd.read_parquet(out / "predictions.parquet")
    before = pd.read_parquet(weights.with_name("predictions.parquet")).query("split == 'test'").reset_index(drop=True)
    pd.testing.assert_frame_equal(table, before)
    lines = capsys.readouterr().out.splitlines()
    score = written["metrics"]["accuracy"]
    cells = f"accuracy +{score['value']:.4f} +{score['low']:.4f} to {score['high']:.4f} +"
    assert any(pd.Series([line]).str.match(cells)[0] for line in lines)
    share = (table["target"] == 1).mean()
    assert f"baseline always answering disk: accuracy {share:.4f}" in lines
    assert "note     SIMULATED SKY: these galaxies were drawn, not observed." in lines
    assert not any("flatter" in line for line in lines)


@pytest.mark.parametrize(
    ("split", "words"), [("train", "trained on these very galaxies"), ("val", "chose the network")]
)
def test_galaxies_that_it_learned_from_are_named(trained, shapes: Path, capsys, split: str, words: str) -> None:
    assert _main(trained[0], "--data", shapes, "--split", split) == 0
    assert words in capsys.readouterr().out


def test_classes_in_another_order_are_the_same_classes(trained, shapes: Path, tmp_path: Path, capsys) -> None:
    # What was a bar is now called a ring, and so on: the network is wrong where it was right, in a known way.
    other = _renamed(shapes, tmp_path / "other", ("ring", "bar", "disk"), "hubble")
    out = tmp_path / "out"
    assert _main(trained[0], "--data", other, "--out", out) == 0
    table = pd.read_parquet(out / "predictions.parquet")
    before = pd.read_parquet(trained[0].with_name("predictions.parquet")).query("split == 'test'")
    assert table["target"].tolist() == [(2, 0, 1)[target] for target in before["target"]]
    np.testing.assert_allclose(table["p_bar"], before["p_bar"], atol=1e-6)
    chosen = table[[f"p_{name}" for name in NAMES]].to_numpy().argmax(axis=1)
    written = json.loads((out / "metrics.json").read_text())
    assert written["metrics"]["accuracy"]["value"] == pytest.approx(accuracy_score(table["target"], chosen))
    printed = capsys.readouterr().out
    assert "The network was trained on shapes; whether some of its galaxies" in printed
    assert "the network was trained on galaxies that were drawn" in printed


def test_other_classes_are_refused(trained, shapes: Path, tmp_path: Path, capsys) -> None:
    other = _renamed(shapes, tmp_path / "other", ("bar", "disk", "spiral"), "hubble")
    assert _main(trained[0], "--data", other) == 2
    message = capsys.readouterr().err
    assert "found 'spiral' but not 'ring' among its classes" in message
    assert "bar, disk, ring" in message


def test_votes_are_evaluated_and_no_classes(trained, tmp_path: Path, capsys) -> None:
    votes = make_shapes(tmp_path / "votes", task=VOTES, sizes=(40, 20, 20))
    assert _main(trained[0], "--data", votes) == 2
    assert "its galaxies have 37 vote fractions, the network answers with 3 classes" in capsys.readouterr().err
    weights, result = _trained(tmp_path / "run", votes, "rmse")
    # The baseline is made of the training galaxies' votes.
    assert _main(weights, "--data", copy_altered(votes, tmp_path / "altered", "train")) == 2
    assert "train-00000.arrow: digest sha256:" in capsys.readouterr().err
    assert _main(weights, "--data", votes, "--tta", "--out", tmp_path / "out") == 0
    score = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]["rmse"]
    assert score["value"] == pytest.approx(result.metrics["test"]["rmse"], abs=1e-6)
    assert score["low"] < score["value"] < score["high"]
    table = pd.read_parquet(weights.with_name("predictions.parquet"))
    targets = table[[f"target_{name}" for name in VOTES.names]]
    mean = targets[table["split"] == "train"].mean()
    rmse = float(np.sqrt(((targets[table["split"] == "test"] - mean) ** 2).to_numpy().mean()))
    assert f"the mean of the training galaxies: rmse {rmse:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_altered_shard_is_not_evaluated(trained, shapes: Path, tmp_path: Path, capsys, split: str) -> None:
    altered = copy_altered(shapes, tmp_path / "altered", split)
    assert _main(trained[0], "--data", altered, "--split", split, "--out", tmp_path / "out") == 2
    assert f"{split}-00000.arrow: digest sha256:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    # Another split is none the worse for it.
    assert _main(trained[0], "--data", altered, "--split", "val" if split == "test" else "test") == 0


def test_existing_output_is_refused_before_anything_is_read(tmp_path: Path, capsys) -> None:
    assert _main(tmp_path / "none", "--data", tmp_path / "none", "--out", tmp_path) == 2
    assert "it exists, expected a new name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, weights: path.with_name("none.safetensors"), "there is no such file: check the path"),
        (lambda path, weights: path.write_bytes(weights.read_bytes()[:5000]), "expected a safetensors file"),
        (lambda path, weights: path.write_bytes(b"PK\x03\x04 a zip"), "expected a safetensors file"),
        (lambda path, weights: save_file(load_file(weights), path), "got the format None"),
        (
            lambda path, weights: save_file(load_file(weights), path, {"format": "galaxy-search-1"}),
            "their description is damaged (KeyError: 'config')",
        ),
        (
            lambda path, weights: save_file(
                load_file(weights),
                path,
                {**read_description(weights), "task": '{"kind": "classes", "names": ["a", "b"]}'},
            ),
            "their description is damaged",
        ),
        (
            lambda path, weights: path.with_name("empty").mkdir() or path.with_name("empty"),
            "no .safetensors file below",
        ),
    ],
)
def test_checkpoints_that_are_none_are_refused(
    make, message: str, trained, shapes: Path, tmp_path: Path, capsys
) -> None:
    path = tmp_path / "weights.safetensors"
    made = make(path, trained[0])
    assert _main(made if isinstance(made, Path) else path, "--data", shapes) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


def test_folder_of_several_checkpoints_is_refused(trained, shapes: Path, tmp_path: Path, capsys) -> None:
    for name in "ab":
        (tmp_path / f"{name}.safetensors").write_bytes(trained[0].read_bytes())
    assert _main(tmp_path, "--data", shapes) == 2
    assert "found 2 weights files, expected one" in capsys.readouterr().err


def test_intervals_are_those_of_a_bootstrap_by_hand() -> None:
    generator = np.random.default_rng(4)
    targets = generator.integers(0, 3, 300)
    answers = generator.dirichlet((1, 1, 1), 300)
    answers[np.arange(300), targets] += 0.7
    answers = (answers / answers.sum(axis=1, keepdims=True)).astype(np.float32)
    chosen = answers.argmax(axis=1)
    exact = answers / answers.sum(axis=1, keepdims=True, dtype=float)

    def metrics(rows: np.ndarray) -> tuple[float, float, float]:
        return (
            accuracy_score(targets[rows], chosen[rows]),
            recall_score(targets[rows], chosen[rows], average="macro"),
            log_loss(targets[rows], exact[rows], labels=[0, 1, 2]),
        )

    names = ("accuracy", "recall", "nll")
    values = dict(zip(names, metrics(np.arange(300)), strict=True))
    draws = np.array([metrics(generator.integers(0, 300, 300)) for _ in range(1000)])
    found = with_intervals(values, targets, answers, seed=1)
    for name, low, high in zip(names, *np.quantile(draws, [0.025, 0.975], axis=0), strict=True):
        # Two bootstraps of 1,000 draws agree to a tenth of the width.
        assert found[name].low == pytest.approx(low, abs=0.1 * (high - low)), name
        assert found[name].high == pytest.approx(high, abs=0.1 * (high - low)), name
    assert with_intervals(values, targets, answers, seed=1) == found
