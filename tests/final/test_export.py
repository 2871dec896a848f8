"""`python -m search.export`: networks for those who do not have this project."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shapes_survey import PX, VOTES, make_shapes, small_config

from galaxy_models.config import CnnConfig, TrainConfig
from galaxy_models.inference import formats
from galaxy_models.models.galaxy_model import build_model
from galaxy_models.task import Task
from galaxy_models.training.checkpoint import describe_model, load_model, save_weights
from search.export import main
from search.results import FinalRun, save_result

CLASSES = Task("classes", ("bar", "disk", "ring's"))
CNN = small_config(cnn=CnnConfig(width=8, depth=2, norm="group", convs_per_stage=2, pool="avg"), precision="float32")
# Answers for the images in `images.pt` by the card's own lines, where this project cannot be imported.
ALONE = """
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("galaxy_models", "search", "spaces"):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Wall())
import torch
answers = answer(torch.load("images.pt", weights_only=True))
torch.save({"answers": answers, "names": NAMES, "read": read("image.png")}, "answers.pt")
assert not {"galaxy_models", "search", "spaces"} & {name.partition(".")[0] for name in sys.modules}
"""


def _weights(folder: Path, config: TrainConfig, task: Task, px: int) -> Path:
    """A network whose answers and normalisation are far from even."""
    model = build_model(config, task, px=px)
    generator = torch.Generator().manual_seed(5)
    for tensor in model.buffers():
        if tensor.ndim and tensor.is_floating_point():
            tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    model.head.linear.weight.data.mul_(20)
    path = folder / "weights.safetensors"
    save_weights(path, model, describe_model(config, task, px=px, survey_digest="sha256:abc"))
    return path


def _alone(folder: Path, images: torch.Tensor) -> dict[str, object]:
    """Run the Python of a card in a process that has torch and timm, but not this project."""
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)[0]
    code = code[: code.index("for name, value in zip")]
    first, rest = ALONE.split("import torch\n", 1)
    torch.save(images, folder / "images.pt")
    _noise_image(folder / "image.png")
    (folder / "use.py").write_text(first + code + rest)
    done = subprocess.run([sys.executable, "-I", "use.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "answers.pt", weights_only=True)


def _noise_image(path: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(3).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _expected(weights: Path, images: torch.Tensor) -> torch.Tensor:
    model = load_model(weights)[0]
    with torch.inference_mode():
        return model.outputs(model(images))


@pytest.mark.parametrize(
    ("config", "task", "px", "kind", "tensor"),
    [
        (CNN, VOTES, PX, "safetensors", "classifier.weight"),
        (CNN, CLASSES, PX, "onnx", None),
        (CNN, VOTES, PX, "torch-export", None),
        (TrainConfig(backbone="timm:resnet18"), CLASSES, 32, "safetensors", "fc.weight"),
        (TrainConfig(backbone="vgg16"), CLASSES, 32, "safetensors", "head.fc.weight"),
    ],
    ids=lambda value: (
        value.backbone if isinstance(value, TrainConfig) else str(value) if isinstance(value, str) else ""
    ),
)
def test_card_says_how_to_answer_alike_without_this_project(
    config: TrainConfig, task: Task, px: int, kind: str, tensor: str | None, tmp_path: Path, capsys
) -> None:
    weights, out = _weights(tmp_path, config, task, px), tmp_path / "out"
    assert main([str(weights), "--format", kind, "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", formats.FORMATS[kind]]
    printed = capsys.readouterr().out
    assert re.match(
        r"largest difference of an answer from the original network \d\.\de[-+]\d+, on 64 images of no", printed
    )
    images = torch.rand(3, 3, px, px, generator=torch.Generator().manual_seed(1))
    found = _alone(out, images)
    assert found["names"] == list(task.names)
    torch.testing.assert_close(found["answers"], _expected(weights, images), rtol=1e-4, atol=1e-5)
    if tensor is not None:
        assert load_file(out / "model.safetensors")[tensor].shape[0] == task.num_outputs
    # Pillow and torchvision round to neighbouring levels at worst.
    from galaxy_models.data.decode import decode_galaxy

    converted = decode_galaxy((out / "image.png").read_bytes(), px=px, crop=0.5)
    assert np.abs(found["read"][0].permute(1, 2, 0).numpy() * 255 - converted).max() <= 1.01


def test_network_whose_classifier_is_another_gets_one_behind_its_features(tmp_path: Path) -> None:
    config = TrainConfig(backbone="timm:deit_tiny_distilled_patch16_224")
    weights, out = _weights(tmp_path, config, CLASSES, 32), tmp_path / "out"
    assert main([str(weights), "--out", str(out)]) == 0
    assert load_file(out / "model.safetensors")["classifier.weight"].shape[0] == 3
    card = (out / "README.md").read_text()
    assert "no single linear layer" in card
    assert 'timm.create_model("deit_tiny_distilled_patch16_224", num_classes=0, img_size=32)' in card


def test_card_tells_what_is_known(tmp_path: Path, capsys) -> None:
    survey = make_shapes(tmp_path / "shapes", sizes=(30, 5, 5))
    weights = _weights(tmp_path, CNN, CLASSES, PX)
    result = FinalRun(
        backbone="cnn", trial=0, rank=0, seed_index=0, seed=0, config={}, metrics={"test": {"accuracy": 0.8125}},
        metrics_tta={"test": {"accuracy": 0.84375}},
    )  # fmt: skip
    save_result(tmp_path, result)
    weights = weights.replace(result.folder(tmp_path) / "weights.safetensors")
    assert main([str(weights), "--check", str(survey), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for words in (
        "on 30 simulated galaxies of shapes",
        "| test | 0.8125 |",
        "| test, averaged | 0.8438 |",
        "0. `bar`\n1. `disk`\n2. `ring's`",
        f"{PX} by {PX} pixels: the central 0.5 of each image's shorter side (assumed",
        "digest `sha256:abc`",
        "random weights",
        "| learning_rate | 0.01 |",
        "no licence of others' weights binds them",
        "evaluate it on labelled galaxies of the new survey first",
    ):
        assert words in card, words
    assert "on 30 simulated galaxies of shapes" in capsys.readouterr().out


def test_card_tells_the_licence_of_initial_weights_and_scores_of_a_single_training(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    config = TrainConfig(backbone="timm:resnet18", weights="imagenet")
    model = build_model(TrainConfig(backbone="timm:resnet18"), CLASSES, px=32)
    save_weights(path, model, describe_model(config, CLASSES, px=32, survey_digest="sha256:abc"))
    scores = {f"val_{name}": 0.25 for name in ("nll", "accuracy", "balanced_accuracy", "precision")}
    scores |= {f"val_{name}": 0.5 for name in ("recall", "f1", "auroc", "ece")}
    (tmp_path / "metrics.json").write_text(
        json.dumps({"best_epoch": 2.0, "epochs": [{"epoch": 1.0}, {"epoch": 2.0, **scores}]})
    )
    assert main([str(path), "--out", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "timm/resnet18.a1_in1k, whose licence timm gives as apache-2.0" in card
    assert "| val | 0.2500 | 0.2500 | 0.2500 | 0.2500 | 0.5000 | 0.5000 | 0.5000 | 0.5000 |" in card


def test_network_that_answers_otherwise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    weights = _weights(tmp_path, CNN, CLASSES, PX)
    monkeypatch.setattr(formats, "load_file", lambda path: {k: v + 0.1 for k, v in load_file(path).items()})
    assert main([str(weights), "--out", str(tmp_path / "out")]) == 1
    assert "nothing is written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    weights = _weights(tmp_path, CNN, CLASSES, PX)
    monkeypatch.setattr(formats, "ONNX_PACKAGES", ("onnx", "onnx_of_nobody"))
    assert main([str(weights), "--format", "onnx", "--out", str(tmp_path / "out")]) == 2
    assert "the package onnx_of_nobody is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.safetensors"], "there is no such file"),
        (["broken.safetensors"], "expected a safetensors file"),
        (["weights.safetensors", "--out", "."], "it exists, expected a new name"),
        (["weights.safetensors", "--check", "nowhere"], "found no manifest.json"),
    ],
)
def test_mistakes_end_with_2_and_write_nothing(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    _weights(tmp_path, CNN, CLASSES, PX)
    (tmp_path / "broken.safetensors").write_bytes(b"PK")
    assert main([words[0], "--out", "out", *words[1:]]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors", "weights.safetensors"]
