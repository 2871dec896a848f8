"""Answers and their averages over the symmetries of the square."""

from pathlib import Path

import numpy as np
import pytest
import torch
from shapes_survey import PX, VOTES, make_shapes, small_config
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from galaxy_models.data.shards import Split
from galaxy_models.inference.answers import answer_images, answer_split, measure_answers
from galaxy_models.models.galaxy_model import GalaxyModel, build_model
from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task
from galaxy_models.training.evaluation import predict
from galaxy_models.training.runtime import Precision, Runtime
from galaxy_models.training.survey import SurveyData

PAIRED = Task("classes", ("cw", "round", "acw"), (("cw", "acw"),))
FLOAT32 = Precision(torch.device("cpu"), torch.float32)


def _network(task: Task) -> GalaxyModel:
    model = build_model(small_config(seed=3), task, px=PX).eval()
    # Far from uniform, so that answers tell images apart.
    model.head.linear.weight.data.mul_(100)
    return model


def _images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (5, 3, PX, PX), generator=generator, dtype=torch.uint8)


# The same eight symmetries by other means: quarter turns, with and without a mirror.
TURNS = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]


def _turn(images: torch.Tensor, turns: int, mirrored: bool) -> torch.Tensor:
    turned = torch.rot90(images, turns, dims=(2, 3))
    return turned.flip(3) if mirrored else turned


def test_average_is_over_all_eight_symmetries_with_mirrored_answers_put_back() -> None:
    model, images = _network(PAIRED), _images()
    seen = []
    for turns, mirrored in TURNS:
        with torch.no_grad():
            probabilities = model(_turn(images, turns, mirrored) / 255).softmax(dim=1)
        seen.append(probabilities.flip(1) if mirrored else probabilities)
    answers = answer_images(model, images, PAIRED, image_px=PX, precision=FLOAT32, average=True)
    assert answers.averaged is not None
    assert answers.spread is not None
    torch.testing.assert_close(answers.plain, seen[0])
    torch.testing.assert_close(answers.averaged, torch.stack(seen).mean(dim=0))
    np.testing.assert_allclose(answers.spread, np.std(torch.stack(seen).numpy(), axis=0), atol=1e-6)
    assert float(answers.spread.max()) > 0.01


@pytest.mark.parametrize(("turns", "mirrored"), TURNS[1:])
def test_average_of_a_turned_image_is_that_of_the_image(turns: int, mirrored: bool) -> None:
    model, images = _network(PAIRED), _images()
    options = {"image_px": PX, "precision": FLOAT32, "average": True}
    there = answer_images(model, images, PAIRED, **options).averaged
    turned = answer_images(model, _turn(images, turns, mirrored), PAIRED, **options).averaged
    torch.testing.assert_close(turned, there.flip(1) if mirrored else there)


def test_averaged_vote_fractions_obey_the_tree() -> None:
    answers = answer_images(_network(VOTES), _images(), VOTES, image_px=PX, precision=FLOAT32, average=True)
    assert float(answers.spread.max()) > 0.001
    assert np.abs(GZ2.sum_errors(answers.averaged.double().numpy())).max() < 1e-6


def test_split_is_answered_in_its_order(tmp_path: Path) -> None:
    survey = SurveyData(make_shapes(tmp_path / "shapes", sizes=(100, 5, 5)))
    config, split = small_config(seed=3, precision="float32"), survey.split("train")
    model = _network(survey.task)
    answers = answer_split(model, split, survey.task, image_px=PX, precision=FLOAT32, average=False)
    expected = predict(model, survey, "train", config=config, runtime=Runtime())
    np.testing.assert_allclose(answers.plain, expected, atol=1e-6)
    assert answers.averaged is None
    one = np.empty((1, PX, PX, 3), np.uint8)
    Split.open(survey.directory, survey.manifest, "train").gather(np.array([77]), one)
    alone = answer_images(
        model,
        torch.from_numpy(one).permute(0, 3, 1, 2),
        survey.task,
        image_px=PX,
        precision=FLOAT32,
        average=False,
    )
    torch.testing.assert_close(alone.plain[0], answers.plain[77])


def test_class_metrics_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    answers = generator.dirichlet((1, 1, 1), 50).astype(np.float32)
    targets = generator.integers(0, 3, 50)
    found = measure_answers(PAIRED, torch.from_numpy(answers), torch.from_numpy(targets))
    exact = answers.astype(float) / answers.sum(axis=1, keepdims=True, dtype=float)
    assert found["nll"] == pytest.approx(log_loss(targets, exact), abs=1e-6)
    assert found["accuracy"] == pytest.approx(accuracy_score(targets, answers.argmax(axis=1)))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, answers.argmax(axis=1)))


def test_answer_of_zero_is_a_finite_penalty_and_nan_is_none() -> None:
    answers, targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([1, 1])
    # Half of -log(2**-126): the smallest normal number of float32.
    assert measure_answers(PAIRED, answers, targets)["nll"] == pytest.approx(126 * np.log(2) / 2)
    answers[0, 0] = torch.nan
    assert all(np.isnan(value) for value in measure_answers(PAIRED, answers, targets).values())
