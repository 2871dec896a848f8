"""The contract that every space file passes."""

import ast
import importlib.util
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import optuna
import pytest
from shapes_survey import make_shapes

from galaxy_models.config import NAMED_BACKBONES, CnnConfig, TrainConfig
from galaxy_models.models import check_network, min_px
from galaxy_models.models.backbones import create_backbone
from galaxy_models.models.freezing import list_stages
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData
from search.space import load_space, probe_space

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "spaces").glob("*.py"))
# Those that begin with weights of ImageNet, or with random ones.
TRANSFERRED = sorted(set(NAMED_BACKBONES) - {"cnn"})
NUM_SAMPLES = 200
# Sides of the images that surveys are commonly converted to; a space must do with the smallest.
SURVEY_PX = 64
# What a network scores that knows the shares of the drawn shapes and nothing else.
SHAPES_ENTROPY = -sum(share * math.log(share) for share in (0.2, 0.5, 0.3))


@pytest.fixture(scope="module", params=SPACES, ids=lambda path: path.stem)
def space_file(request) -> ModuleType:
    path: Path = request.param
    spec = importlib.util.spec_from_file_location(f"space_under_test_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.stem = path.stem
    return module


@pytest.fixture(scope="module")
def samples(space_file) -> list[tuple[TrainConfig, dict]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for _ in range(NUM_SAMPLES):
        trial = study.ask()
        drawn.append((space_file.space(trial), trial.params))
    return drawn


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> SurveyData:
    return SurveyData(make_shapes(tmp_path_factory.mktemp("spaces") / "shapes"))


def test_every_backbone_has_a_space():
    assert {path.stem for path in SPACES} >= set(NAMED_BACKBONES)


def test_samples_are_configurations_of_networks_that_exist(space_file, samples):
    for config, _ in samples:
        assert isinstance(config, TrainConfig)
        px = config.image_px or SURVEY_PX
        assert px >= min_px(config.backbone)
        check_network(config, px=px)


def test_the_backbone_is_the_one_the_file_is_named_for(space_file, samples):
    assert {config.backbone.removeprefix("timm:tf_") for config, _ in samples} == {space_file.stem}


def test_named_configurations_lie_in_the_space(space_file):
    assert space_file.named, "trial 0 is hand-picked"
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for values in space_file.named:
        study.enqueue_trial(values)
        trial = study.ask()
        config = space_file.space(trial)
        check_network(config, px=config.image_px or SURVEY_PX)
        assert trial.params == {**trial.params, **values}
        for name, value in values.items():
            assert trial.distributions[name]._contains(trial.distributions[name].to_internal_repr(value)), name


def test_what_is_named_is_chosen_in_full(space_file):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for values in space_file.named:
        study.enqueue_trial(values)
        trial = study.ask()
        space_file.space(trial)
        assert trial.params.keys() == values.keys()


@pytest.mark.parametrize("weights", ["imagenet", "none"])
@pytest.mark.parametrize("backbone", TRANSFERRED)
def test_a_search_with_the_weights_fixed_begins_with_what_was_named_for_them(backbone, weights):
    space = load_space(ROOT / "spaces" / f"{backbone}.py")
    (named,) = [item for item in space.named if item["weights"] == weights]
    assert space.named_with({"weights": weights}) == [named]
    first = probe_space(space, seed=0, fixed={"weights": weights}).configs[0]
    assert (first.weights, first.image_px, first.learning_rate) == (weights, named["image_px"], named["learning_rate"])


@pytest.mark.parametrize("backbone", TRANSFERRED)
def test_what_is_named_for_random_weights_learns_from_them(backbone, shapes):
    first = probe_space(load_space(ROOT / "spaces" / f"{backbone}.py"), seed=0, fixed={"weights": "none"}).configs[0]
    px = max(32, min_px(backbone))
    result = Trainer(replace(first, image_px=px, epochs=1), shapes, runtime=Runtime(threads=1)).run_epoch()
    assert result["val_accuracy"] > 0.65  # half of them are disks
    assert result["val_nll"] < SHAPES_ENTROPY


def test_the_same_values_give_the_same_configuration(space_file, samples):
    for config, params in samples[:20]:
        assert space_file.space(optuna.trial.FixedTrial(params)) == config


def test_parameters_that_do_nothing_are_not_asked_for(samples):
    for config, params in samples:
        assert ("trainable_stages" in params) == (config.weights == "imagenet" and config.backbone != "cnn")
        assert ("backbone_lr_scale" in params) == bool(params.get("trainable_stages"))
        assert ("momentum" in params) == (config.optimizer == "sgd")
        if config.cnn is not None:
            assert ("kernel" in params) == (config.cnn.convs_per_stage == 1)
            is_dear = config.cnn.convs_per_stage == 2 or config.cnn.kernel == 5
            assert config.cnn.width in ((24, 28, 32) if is_dear else (32, 40, 48))


def test_no_shape_is_much_dearer_than_the_named_one(space_file, samples):
    shapes = [config.cnn for config, _ in samples if config.cnn is not None]
    if not shapes:
        assert space_file.stem != "cnn"
        return
    named = load_space(ROOT / "spaces" / "cnn.py").named[0]
    own = count_multiplications(CnnConfig(width=named["width"], depth=named["depth"]))
    costs = [count_multiplications(cnn) / own for cnn in shapes]
    assert min(costs) >= 1
    assert 3 < max(costs) < 4.5


def count_multiplications(cnn):
    """Of an image's convolutions: 64 pixels, three colours, the width doubled up to 512 after each pool."""
    before, px, found = 3, 64, 0
    for stage in range(cnn.depth):
        channels = min(512, cnn.width * 2**stage)
        for _ in range(cnn.convs_per_stage):
            found += before * channels * cnn.kernel**2 * px**2
            before = channels
        px //= 2
    return found


def test_every_number_of_stages_can_be_drawn(space_file, samples):
    if not hasattr(space_file, "NUM_STAGES"):
        assert space_file.stem == "cnn"
        return
    backbone, _ = create_backbone(samples[0][0], px=samples[0][0].image_px)
    assert len(list_stages(backbone)) == space_file.NUM_STAGES
    drawn = {config.trainable_stages for config, _ in samples if config.weights == "imagenet"}
    assert drawn <= set(range(space_file.NUM_STAGES + 1))
    assert {0, space_file.NUM_STAGES} <= drawn


def test_a_space_imports_the_configuration_alone():
    for path in SPACES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        assert imported <= {"__future__", "typing", "galaxy_models.config", "optuna"}, path.name


def test_a_space_is_loaded_without_torch():
    code = "import sys, runpy; [runpy.run_path(p) for p in sys.argv[1:]]; print({'torch', 'optuna'} & set(sys.modules))"
    command = [sys.executable, "-c", code, *map(str, SPACES)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "set()"
