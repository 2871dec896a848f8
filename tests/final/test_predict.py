"""`python -m search.predict`: answers for images that no survey has."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import entropy
from shapes_survey import PX, VOTES, copy_altered, draw_shape, make_shapes, small_config

from galaxy_models.data.decode import decode_galaxy
from galaxy_models.data.manifest import Manifest
from galaxy_models.models.galaxy_model import build_model
from galaxy_models.task import Task
from galaxy_models.training.checkpoint import describe_model, describe_survey, load_model, save_weights
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData
from search.predict import main

NAMES = ("cw", "round", "acw")
TASK = Task("classes", NAMES, (("cw", "acw"),))


def _weights(path: Path, *, seed: int = 0, task: Task = TASK, manifest: Manifest | None = None) -> Path:
    """A network with random weights whose answers differ from image to image."""
    config = small_config(seed=seed, precision="float32")
    model = build_model(config, task, px=PX)
    model.head.linear.weight.data.mul_(100)
    described = describe_model(config, task, px=PX, survey_digest="sha256:abc")
    save_weights(path, model, {**described, **(describe_survey(manifest) if manifest else {})})
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of 50 px in two folders, one of them in a folder that is hidden, and two that are none."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(2)
    for name in ("a/1", "a/2", "b/1", "b/3", "4", ".hidden/5"):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.full((50, 50, 3), 30, np.uint8)
        pixels[15:35, 15:35] = draw_shape(int(generator.integers(3)), generator)
        Image.fromarray(pixels).save(path)
    (folder / "a" / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    return folder


def _main(*words: object) -> int:
    return main([*map(str, words), "--threads", "1", "--device", "cpu", "--workers", "1"])


def _answers(weights: Path, path: Path, crop: float) -> np.ndarray:
    """By hand: the network's class probabilities for one image file."""
    pixels = decode_galaxy(path.read_bytes(), px=PX, crop=crop)
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        return load_model(weights)[0](batch).softmax(dim=1)[0].numpy()


def _p(table: pd.DataFrame, prefix: str = "p_") -> np.ndarray:
    return table[[f"{prefix}{name}" for name in NAMES]].to_numpy()


def test_folder_is_answered_image_by_image(images: Path, tmp_path: Path, capsys) -> None:
    weights, out = _weights(tmp_path / "w.safetensors"), tmp_path / "new" / "p.parquet"
    assert _main(weights, images, "--out", out, "--batch-size", "2") == 0
    table = pd.read_parquet(out)
    assert table["id"].tolist() == ["4", "a/1", "a/2", "a/broken", "b/1", "b/3"]
    assert table["path"].tolist() == [
        str(images / name) for name in ("4.png", "a/1.png", "a/2.png", "a/broken.jpg", "b/1.png", "b/3.png")
    ]
    assert list(table.columns) == ["id", "path", "reason", "predicted", "entropy", *(f"p_{name}" for name in NAMES)]
    broken = table[table["id"] == "a/broken"].iloc[0]
    assert broken["reason"].startswith("not a JPEG, PNG, WebP or GIF image")
    assert broken[["predicted", "entropy", "p_cw", "p_round", "p_acw"]].isna().all()
    whole = table[table["id"] != "a/broken"]
    assert whole["reason"].isna().all()
    expected = np.stack([_answers(weights, Path(path), 0.5) for path in whole["path"]])
    np.testing.assert_allclose(_p(whole), expected, atol=1e-6)
    assert whole["predicted"].tolist() == [NAMES[index] for index in expected.argmax(axis=1)]
    np.testing.assert_allclose(whole["entropy"], entropy(expected, axis=1), atol=1e-5)
    captured = capsys.readouterr()
    assert "the central 0.5 of each image's side is kept (the conversion's default, since" in captured.err
    assert captured.out.startswith("6 images in ")
    assert "1 of them unreadable (see the column reason)" in captured.out
    assert [path.name for path in out.parent.iterdir()] == ["p.parquet"]


@pytest.mark.parametrize(
    ("trained", "asked", "used", "words"),
    [(0.8, None, 0.8, "0.8 of each image's side is kept (as in training)"), (0.8, 1.0, 1.0, "1 of each .*(as given)")],
)
def test_crop_is_that_of_the_training(
    trained: float, asked: float | None, used: float, words: str, images: Path, tmp_path: Path, capsys
) -> None:
    survey = make_shapes(tmp_path / "shapes", sizes=(3, 3, 3))
    manifest = replace(Manifest.load(survey), made_by={"crop": trained})
    weights = _weights(tmp_path / "w.safetensors", manifest=manifest)
    more = () if asked is None else ("--crop", asked)
    assert _main(weights, images / "4.png", "--out", tmp_path / "p.parquet", *more) == 0
    np.testing.assert_allclose(
        _p(pd.read_parquet(tmp_path / "p.parquet"))[0], _answers(weights, images / "4.png", used), atol=1e-6
    )
    assert words.rsplit(".*", maxsplit=1)[-1] in capsys.readouterr().err


def test_weights_of_a_training_say_how_images_were_cropped(images: Path, tmp_path: Path, capsys) -> None:
    survey = make_shapes(tmp_path / "shapes", sizes=(30, 5, 5))
    replace(Manifest.load(survey), made_by={"crop": 0.7}).write(survey)
    trainer = Trainer(small_config(precision="float32"), SurveyData(survey), runtime=Runtime(device="cpu", threads=1))
    trainer.save_weights(tmp_path / "w.safetensors")
    assert _main(tmp_path / "w.safetensors", images / "4.png", "--out", tmp_path / "p.parquet") == 0
    assert "the central 0.7 of each image's side is kept (as in training)" in capsys.readouterr().err


def test_several_networks_are_averaged_and_their_spread_told(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "final"
    paths = [_weights(folder / f"config-0-seed-{seed}" / "weights.safetensors", seed=seed) for seed in range(2)]
    other = Task("classes", ("round", "acw", "cw"))
    paths.append(_weights(tmp_path / "other.safetensors", seed=9, task=other))
    out = tmp_path / "p.parquet"
    assert _main(folder, images / "b", "--checkpoint", paths[2], "--out", out) == 0
    table = pd.read_parquet(out)
    order = [other.names.index(name) for name in NAMES]
    for row in range(2):
        path = Path(table["path"][row])
        each = [_answers(paths[0], path, 0.5), _answers(paths[1], path, 0.5), _answers(paths[2], path, 0.5)[order]]
        np.testing.assert_allclose(_p(table)[row], np.mean(each, axis=0), atol=1e-6)
        np.testing.assert_allclose(_p(table, "network_sd_")[row], np.std(each, axis=0, ddof=1), atol=1e-6)


def test_tta_makes_answers_of_a_mirrored_image_the_mirrored_answers(images: Path, tmp_path: Path) -> None:
    weights = _weights(tmp_path / "w.safetensors")
    Image.open(images / "4.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    out = tmp_path / "p.parquet"
    assert _main(weights, images / "4.png", tmp_path / "mirrored.png", "--out", out, "--tta", "--crop", "1") == 0
    table = pd.read_parquet(out)
    assert table["id"].tolist() == ["4", "mirrored"]
    for prefix in ("p_", "symmetry_sd_"):
        first, second = _p(table, prefix)
        np.testing.assert_allclose(first, second[::-1], atol=1e-5)
        assert first.min() > 0


def test_catalogue_without_classes_names_images_and_missing_ones(images: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "survey.csv").write_text("OBJID,where\n17,a/1.png\n18,a/none.png\n19,b/3.png\n")
    weights, out = _weights(tmp_path / "w.safetensors"), tmp_path / "p.parquet"
    options = ("--image-column", "where", "--image-root", images, "--out", out)
    assert _main(weights, tmp_path / "survey.csv", *options) == 0
    table = pd.read_parquet(out)
    assert table["id"].tolist() == ["17", "18", "19"]
    assert table["reason"].fillna("").tolist() == ["", "no such file", ""]
    np.testing.assert_allclose(_p(table)[2], _answers(weights, images / "b" / "3.png", 0.5), atol=1e-6)
    assert "survey.csv: id from OBJID, image where" in capsys.readouterr().err


def test_more_than_half_unreadable_is_a_mistake_with_the_table_written(images: Path, tmp_path: Path, capsys) -> None:
    places = [tmp_path / f"{name}.png" for name in "xy"]
    for place in places:
        place.write_bytes(b"")
    out = tmp_path / "p.parquet"
    assert _main(_weights(tmp_path / "w.safetensors"), *places, images / "4.png", "--out", out) == 2
    assert "error: 2 of 3 images cannot be read, expected at most 50%" in capsys.readouterr().err
    assert pd.read_parquet(out)["reason"].fillna("").tolist() == ["empty file", "empty file", ""]


def test_shards_are_answered_as_they_are(tmp_path: Path, capsys) -> None:
    survey = make_shapes(tmp_path / "votes", task=VOTES, sizes=(70, 10, 5))
    weights, out = _weights(tmp_path / "w.safetensors", task=VOTES), tmp_path / "p.parquet"
    assert _main(weights, survey, "--out", out) == 0
    table = pd.read_parquet(out)
    assert len(table) == 85
    assert table["id"].tolist()[-1] == "test-4"
    assert "predicted" not in table
    first = table[["p_Class1.1", "p_Class1.2", "p_Class1.3"]].to_numpy()
    np.testing.assert_allclose(first.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(table["entropy"], entropy(first, axis=1), atol=1e-5)
    assert "is kept" not in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_altered_shard_is_not_answered_for(tmp_path: Path, capsys, split: str) -> None:
    survey = make_shapes(tmp_path / "votes", task=VOTES, sizes=(7, 5, 5))
    altered = copy_altered(survey, tmp_path / "altered", split)
    weights, out = _weights(tmp_path / "w.safetensors", task=VOTES), tmp_path / "p.parquet"
    assert _main(weights, altered, "--out", out) == 2
    assert f"{split}-00000.arrow: digest sha256:" in capsys.readouterr().err
    assert not out.exists()


def test_real_galaxies_are_read_by_several_processes(real_data: Path, tmp_path: Path) -> None:
    weights, out = _weights(tmp_path / "w.safetensors"), tmp_path / "p.parquet"
    folder = real_data / "kaggle_4class" / "spiral"
    assert main([str(weights), str(folder), "--out", str(out), "--workers", "2", "--threads", "1"]) == 0
    table = pd.read_parquet(out)
    assert table["id"].tolist() == sorted(path.stem for path in folder.iterdir())
    np.testing.assert_allclose(_p(table)[-1], _answers(weights, Path(table["path"].iloc[-1]), 0.5), atol=1e-5)


@pytest.mark.parametrize(
    ("places", "options", "message"),
    [
        (["none"], [], "none: no such file or folder"),
        (["empty"], [], "empty: found no image in it"),
        (["notes.txt"], [], "found the suffix '.txt', expected an image"),
        (["."], ["--crop", "1.5"], "--crop: got 1.5, expected a share above 0, up to 1"),
        (["."], ["--out", "p.csv"], "got the suffix '.csv', expected .parquet"),
        (["."], ["--out", "there.parquet"], "it exists, expected a new name"),
        (["."], ["--out", "notes.txt/p.parquet"], "--out notes.txt/p.parquet: Not a directory, expected a place"),
        (["."], ["--out", "/proc/p.parquet"], "--out /proc/p.parquet: No such file or directory, expected a place"),
        (["."], ["--out", "p" * 300 + ".parquet"], "File name too long, expected a place"),
        (["."], ["--checkpoint", "none.safetensors"], "there is no such file"),
        (["."], ["--checkpoint", "votes.safetensors"], "give networks of one task"),
        (["table.csv"], [], "found no column of image paths"),
    ],
)
def test_mistakes_end_with_2_and_write_nothing(
    places: list[str], options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    _weights(tmp_path / "w.safetensors")
    _weights(tmp_path / "votes.safetensors", task=VOTES)
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "image.png")
    for name in ("notes.txt", "there.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "table.csv").write_text("OBJID\n1\n")
    before = sorted(tmp_path.rglob("*"))
    assert _main("w.safetensors", *places, "--out", "p.parquet", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before
