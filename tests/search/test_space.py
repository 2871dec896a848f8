"""Loading a space file and trying it out."""

import os
from pathlib import Path
from typing import Any, Literal

import pytest

from galaxy_models.cli import EndedBySignal
from galaxy_models.data.manifest import Manifest
from galaxy_models.models import check_network
from galaxy_models.task import Task
from search.cluster import ended_by_signals
from search.errors import SpaceError
from search.preflight import fixed_parameters
from search.space import load_space, probe_space

HEAD = "from galaxy_models.config import CnnConfig, TrainConfig\n"
GOOD = HEAD + (
    "named = [{'lr': 1e-3, 'norm': 'batch'}]\n"
    "def space(trial):\n"
    "    norm = trial.suggest_categorical('norm', ['batch', 'group'])\n"
    "    lr = trial.suggest_float('lr', 1e-4, 1e-1, log=True)\n"
    "    drop = trial.suggest_float('drop', 0.0, 0.5) if norm == 'group' else 0.0\n"
    "    return TrainConfig(backbone='cnn', cnn=CnnConfig(norm=norm), learning_rate=lr, drop_rate=drop)\n"
)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(text)
    return path


def test_probing_runs_named_configurations_first_and_finds_every_branch(tmp_path: Path) -> None:
    probe = probe_space(load_space(write(tmp_path, GOOD)), seed=0, fixed={})
    assert probe.configs[0].learning_rate == 1e-3
    assert sorted(probe.distributions) == ["drop", "lr", "norm"]
    assert {config.cnn.norm for config in probe.configs if config.cnn} == {"batch", "group"}


def test_fixed_parameters_hold_in_named_and_random_configurations(tmp_path: Path) -> None:
    probe = probe_space(load_space(write(tmp_path, GOOD)), seed=0, fixed={"norm": "group"})
    assert {config.cnn.norm for config in probe.configs if config.cnn} == {"group"}


WEIGHTS = HEAD + (
    "named = [{'weights': 'imagenet', 'stages': 2, 'lr': 1e-4, 'batch': 32}, {'weights': 'none', 'lr': 1e-2}]\n"
    "def space(trial):\n"
    "    weights = trial.suggest_categorical('weights', ['imagenet', 'none', 'mine.pt'])\n"
    "    stages = trial.suggest_int('stages', 0, 5) if weights == 'imagenet' else None\n"
    "    lr = trial.suggest_float('lr', 1e-5, 1e-1, log=True)\n"
    "    batch = trial.suggest_categorical('batch', [16, 32])\n"
    "    return TrainConfig(backbone='resnet50', weights=weights, trainable_stages=stages, learning_rate=lr,\n"
    "                       batch_size=batch)\n"
)


@pytest.mark.parametrize(
    ("fixed", "rates"),
    [
        ({}, [1e-4, 1e-2]),
        ({"weights": "imagenet"}, [1e-4]),
        ({"weights": "none", "batch": 16}, [1e-2]),
        ({"batch": 16}, [1e-4, 1e-2]),
        # Nothing was named for these, and something hand-picked is better than nothing.
        ({"weights": "mine.pt"}, [1e-4, 1e-2]),
    ],
)
def test_what_was_named_for_other_weights_than_those_fixed_is_left_out(
    tmp_path: Path, fixed: dict[str, object], rates: list[float]
) -> None:
    space = load_space(write(tmp_path, WEIGHTS))
    named = space.named_with(fixed)
    assert [item["lr"] for item in named] == rates
    assert all(item.items() >= fixed.items() for item in named)
    first = probe_space(space, seed=0, fixed=fixed).configs[: len(rates)]
    assert [config.learning_rate for config in first] == rates


def test_what_was_named_without_weights_runs_with_any(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, WEIGHTS.replace("'weights': 'none', ", "")))
    assert space.named_with({"weights": "none"}) == [{"weights": "none", "lr": 1e-2}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def space(trial:\n", r"mine\.py: line 1: .*syntax"),
        ("# coding: nonsense\n", r"mine\.py: line 1: unknown encoding: nonsense"),
        ("x = 1\n", "defines no function 'space'"),
        ("space = 3\n", "defines no function 'space'"),
        ("raise SystemExit\n", r"line 1: SystemExit"),
        ("def space(trial):\n    exit(3)\n", r"line 2: SystemExit: 3"),
        ("import no_such_module_here\n", r"line 1: ModuleNotFoundError"),
        ("def space(trial):\n    return {'lr': 1}\n", "returned {'lr': 1}, expected a TrainConfig"),
        ("def space(trial):\n    return 1 / 0\n", r"line 2: ZeroDivisionError"),
        (
            HEAD + "def space(trial):\n    return TrainConfig(backbone='resnet5')\n",
            "backbone: got 'resnet5', expected one",
        ),
        (HEAD + "def space(trial):\n    return TrainConfig(backbone='cnn')\n", "expected a CnnConfig"),
        (
            HEAD + "def space(trial):\n    return TrainConfig(backbone='vgg16', dropout=1)\n",
            "line 3: TypeError.*dropout",
        ),
        (GOOD.replace("'lr': 1e-3", "'lrr': 1e-3"), r"named\[0\] gives 'lrr', but space\(\) does not ask for it"),
        (GOOD.replace("'lr': 1e-3", "'lr': 7.0"), "lr with value 7.0 is out of range"),
        (GOOD.replace("named = [{", "named = {").replace("}]", "}"), "'named' is .* expected a list of dictionaries"),
        (
            HEAD + "import random\ndef space(trial):\n    trial.suggest_float('x', 0, 1)\n"
            "    return TrainConfig(backbone='vgg16', learning_rate=random.uniform(1e-4, 1e-3))\n",
            "two different configurations for the same values",
        ),
    ],
)
def test_a_wrong_space_is_refused_with_its_reason(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpaceError, match=message):
        probe_space(load_space(path), seed=0, fixed={})


def test_a_space_written_anew_within_its_second_is_loaded_anew(tmp_path: Path) -> None:
    path = write(tmp_path, "def space(trial): return 1\n")
    before = path.stat()
    assert load_space(path).suggest(None) == 1  # type: ignore[arg-type]
    path.write_text("def space(trial): return 2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert load_space(path).suggest(None) == 2  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"nowhere\.py: no such file"):
        load_space(tmp_path / "nowhere.py")


def test_fixing_an_unknown_parameter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"--fix learningrate: .* expected one of drop, lr, norm"):
        probe_space(load_space(write(tmp_path, GOOD)), seed=0, fixed={"learningrate": 1})


def test_fixing_a_parameter_outside_its_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"--fix norm: got 'layer', expected one of 'batch', 'group'"):
        probe_space(load_space(write(tmp_path, GOOD)), seed=0, fixed={"norm": "layer"})


def survey_of(kind: Literal["classes", "votes"], *, px: int = 64) -> Manifest:
    return Manifest(1, "none", False, Task(kind, ("a", "b")), px, {}, 0, 0, {})


@pytest.mark.parametrize(
    ("sizes", "px", "fixed"),
    [
        ("None, 48", 32, {"image_px": None}),
        ("None, 48", 48, {"image_px": None}),
        ("None, 48", 64, {}),
        ("None, 48", 128, {}),
        ("96, None, 48", 64, {}),
        ("48, 64", 32, {}),
    ],
)
def test_images_are_seen_as_stored_where_a_space_offers_that_and_nothing_smaller(
    tmp_path: Path, sizes: str, px: int, fixed: dict[str, Any]
) -> None:
    text = GOOD.replace("    drop =", f"    trial.suggest_categorical('image_px', [{sizes}])\n    drop =")
    free = probe_space(load_space(write(tmp_path, text)), seed=0, fixed={})
    assert fixed_parameters(free, {}, survey_of("classes", px=px)) == fixed
    asked = {"image_px": 48}
    assert fixed_parameters(free, asked, survey_of("classes", px=px)) == asked


def test_a_network_with_weights_of_its_own_may_enlarge_a_survey(tmp_path: Path) -> None:
    text = WEIGHTS.replace("    lr =", "    px = trial.suggest_categorical('image_px', [None, 128])\n    lr =")
    free = probe_space(load_space(write(tmp_path, text)), seed=0, fixed={})
    assert fixed_parameters(free, {}, survey_of("classes", px=64)) == {}
    random = {"weights": "none"}
    assert fixed_parameters(free, random, survey_of("classes", px=128)) == {**random, "image_px": None}


def test_weights_that_are_fixed_for_other_spaces_say_nothing_of_one_that_has_no_choice(tmp_path: Path) -> None:
    text = GOOD.replace("    drop =", "    px = trial.suggest_categorical('image_px', [None, 128])\n    drop =")
    text = text.replace(
        "backbone='cnn', cnn=CnnConfig(norm=norm)", "backbone='resnet50', weights='imagenet', image_px=px"
    )
    free = probe_space(load_space(write(tmp_path, text)), seed=0, fixed={})
    assert fixed_parameters(free, {"weights": "none"}, survey_of("classes", px=64)) == {}


@pytest.mark.parametrize("where", ["while it is loaded", "while it is asked"])
def test_a_signal_is_no_mistake_of_a_space(tmp_path: Path, where: str) -> None:
    sent = "import signal; signal.raise_signal(signal.SIGTERM)"
    text = f"{sent}\n{GOOD}" if where == "while it is loaded" else GOOD.replace("    norm =", f"    {sent}\n    norm =")
    path = write(tmp_path, text)
    with pytest.raises(EndedBySignal, match=r"^143$"), ended_by_signals():
        probe_space(load_space(path), seed=0, fixed={})


def test_the_custom_network_never_enlarges_a_survey() -> None:
    space = load_space(Path(__file__).parents[2] / "spaces" / "cnn.py")
    free = probe_space(space, seed=0, fixed={})
    for px, sizes in ((32, {None}), (48, {None}), (64, {None, 48}), (128, {None, 48})):
        fixed = fixed_parameters(free, {}, survey_of("classes", px=px))
        configs = probe_space(space, seed=0, fixed=fixed).configs
        assert {config.image_px for config in configs} == sizes
        for config in configs:
            check_network(config, px=config.image_px or px)


def test_what_has_no_effect_on_votes_is_not_searched_for_them(tmp_path: Path) -> None:
    text = GOOD.replace("    drop =", "    trial.suggest_float('label_smoothing', 0.0, 0.1)\n    drop =")
    free = probe_space(load_space(write(tmp_path, text)), seed=0, fixed={})
    votes, classes = survey_of("votes"), survey_of("classes")
    assert fixed_parameters(free, {"norm": "batch", "elsewhere": 1}, classes) == {"norm": "batch"}
    assert fixed_parameters(free, {"norm": "batch"}, votes) == {"norm": "batch", "label_smoothing": 0.0}
    assert fixed_parameters(free, {"label_smoothing": 0.1}, votes) == {"label_smoothing": 0.1}
