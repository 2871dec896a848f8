"""The command line that trains one configuration."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shapes_survey import copy_altered, make_shapes, small_config

from galaxy_models.errors import ConfigError
from galaxy_models.train import main, read_config
from galaxy_models.training.checkpoint import load_model
from galaxy_models.training.loop import Trainer


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("command") / "shapes", sizes=(96, 40, 0))


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(small_config(epochs=2).to_dict()))
    return path


def _arguments(config: Path, shapes: Path, out: Path, *more: str) -> list[str]:
    return [str(config), "--data", str(shapes), "--out", str(out), "--threads", "1", "--device", "cpu", *more]


def test_training_writes_weights_and_metrics(config_file: Path, shapes: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new" / "out"
    assert main(_arguments(config_file, shapes, out, "--seed", "5")) == 0
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "weights.safetensors"]
    written = json.loads((out / "metrics.json").read_text())
    assert written["config"] == json.loads(json.dumps(small_config(epochs=2, seed=5).to_dict()))
    assert written["simulated"] is True
    losses = [row["val_nll"] for row in written["epochs"]]
    assert len(losses) == 2
    assert written["best_epoch"] == 1 + losses.index(min(losses))
    _, config, task = load_model(out / "weights.safetensors")
    assert config == small_config(epochs=2, seed=5)
    assert task.names == ("bar", "disk", "ring")
    lines = capsys.readouterr().out.splitlines()
    assert "(simulated): 96 galaxies to train on, 40 to validate on; always answering the commonest" in lines[0]
    assert lines[1].startswith("epoch 1/2  train_loss ")
    assert f"val_nll {losses[1]:.4f}" in lines[2]
    assert lines[3].startswith(f"best nll {min(losses):.4f} in epoch {written['best_epoch']}:")


def test_weights_are_those_of_the_best_epoch(config_file: Path, shapes: Path, tmp_path: Path, monkeypatch) -> None:
    values = iter([0.9, 0.5, 0.7])
    saved: list[int] = []
    run_epoch, save_weights = Trainer.run_epoch, Trainer.save_weights
    monkeypatch.setattr(Trainer, "run_epoch", lambda self: {**run_epoch(self), "val_nll": next(values)})
    monkeypatch.setattr(
        Trainer, "save_weights", lambda self, path: (saved.append(self.epoch), save_weights(self, path))
    )
    assert main(_arguments(config_file, shapes, tmp_path / "out", "--epochs", "3")) == 0
    assert saved == [1, 2]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["best_epoch"] == 2


def test_existing_output_is_refused_and_kept(config_file: Path, shapes: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    assert main(_arguments(config_file, shapes, out)) == 2
    assert "it exists, expected a new folder" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["precious"]


def test_diverged_training_says_so(shapes: Path, tmp_path: Path, capsys) -> None:
    path = tmp_path / "config.json"
    config = small_config(learning_rate=100.0, optimizer="sgd", momentum=0.99, warmup_epochs=0.0, weight_decay=10.0)
    path.write_text(json.dumps(config.to_dict()))
    assert main(_arguments(path, shapes, tmp_path / "out", "--epochs", "40")) == 2
    assert "training diverged in epoch" in capsys.readouterr().err
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["epochs"][-1]["diverged"] == 1.0
    assert written["epochs"][-1]["val_nll"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--epochs", "0"], "epochs: got 0, expected a whole number from 1"),
        (["--threads", "0"], "threads: got 0, expected at least 1"),
        (["--device", "abacus"], "device: got 'abacus', expected 'cpu'"),
        (["--data", "nowhere"], "nowhere: found no manifest.json"),
        (["--backbone", "vgg16"], "--backbone: got 'vgg16', but .* is a configuration of 'cnn'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_end_with_2_and_write_nothing(
    changes: list[str], message: str, config_file: Path, shapes: Path, tmp_path: Path, capsys
) -> None:
    assert main(_arguments(config_file, shapes, tmp_path / "out", *changes)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert re.search(message, captured.err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_altered_shard_is_not_trained_on(split: str, config_file: Path, shapes: Path, tmp_path: Path, capsys) -> None:
    altered = copy_altered(shapes, tmp_path / "altered", split)
    assert main(_arguments(config_file, altered, tmp_path / "out")) == 2
    assert re.search(rf"{split}-00000\.arrow: digest sha256:\w+, manifest says sha256:", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_test_galaxies_are_not_looked_at(config_file: Path, tmp_path: Path, capsys) -> None:
    survey = make_shapes(tmp_path / "shapes", sizes=(40, 20, 20))
    altered = copy_altered(survey, tmp_path / "altered", "test")
    assert main(_arguments(config_file, altered, tmp_path / "out", "--epochs", "1")) == 0
    assert (tmp_path / "out" / "weights.safetensors").is_file()


def _best_configs(path: Path) -> Path:
    entries = {name: {"config": small_config(seed=number).to_dict(), "trial": 3} for number, name in enumerate("ab")}
    path.write_text(json.dumps(entries))
    return path


def test_backbone_picks_from_best_configs(tmp_path: Path) -> None:
    path = _best_configs(tmp_path / "best_configs.json")
    assert read_config(path, backbone="b") == small_config(seed=1)
    with pytest.raises(ConfigError, match=r"--backbone: got None, expected one of those in .*: a, b"):
        read_config(path)
    with pytest.raises(ConfigError, match=r"--backbone: got 'c', expected one of those in .*: a, b"):
        read_config(path, backbone="c")


def test_only_configuration_needs_no_choice(tmp_path: Path) -> None:
    path = tmp_path / "best_configs.json"
    path.write_text(json.dumps({"cnn": {"config": small_config().to_dict()}}))
    assert read_config(path) == small_config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a configuration as JSON"),
        ("[1]", "got a list, expected a configuration"),
        ("{}", "it has none"),
        ('{"backbone": "cnn", "colour": 1}', "unknown field 'colour'"),
    ],
)
def test_unreadable_configurations_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path)


def test_missing_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "none.json")


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['train', '--help']\n"
        "from galaxy_models.train import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'timm' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False False False"
