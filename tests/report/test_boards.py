"""The boards of the final evaluation, as TensorBoard reads them; and pictures of galaxies show the right ones."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from final_samples import (
    CLASSES,
    answer_classes,
    sample_targets,
    write_exact,
    write_final,
    write_run_json,
    write_shards,
)
from PIL import Image
from report_samples import make_findings, make_study, make_trial, write_journal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard import SummaryWriter

from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task
from search.report.blocks import Gallery
from search.report.figures import gallery
from search.report.figures.sheet import contact_sheet, worst_answers
from search.tensorboard_boards import write_boards

TARGETS = sample_targets((20, 12, 8))


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def hparams(folder: Path, name: str) -> Any:
    content = read(folder).summary_metadata[name].plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two backbones, one with two seeds, and the shards of its survey."""
    folder = tmp_path_factory.mktemp("run")
    manifest = write_shards(folder / "shards", TARGETS)
    survey = {
        "name": "gz1", "digest": manifest.digest, "simulated": False, "px": 8,
        "task": {"kind": "classes", "names": list(CLASSES)},
        "split_sizes": {"train": 1, "val": 1, "test": 40},
        "class_counts": {"train": [1, 0, 0], "val": [1, 0, 0], "test": [20, 12, 8]},
    }  # fmt: skip
    write_run_json(folder, survey=survey, data=str(folder / "shards"))
    stages = make_trial([0.5], params={"learning_rate": 0.02, "trainable_stages": None})
    write_journal(folder, make_study("cnn", [stages]), make_study("vgg16", [make_trial([0.6])]))
    for index in range(2):
        outputs = answer_classes(TARGETS, skill=1.0, seed=index)
        write_final(folder, "cnn", TARGETS, outputs, seed_index=index)
    write_final(folder, "vgg16", TARGETS, answer_classes(TARGETS, skill=0.5, seed=9))
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        writer.add_text("columns", "of the search")
    write_boards(folder)
    return folder


def test_precision_recall_curves_are_scikit_learns(run_dir: Path) -> None:
    found = read(run_dir / "tensorboard" / "final" / "cnn")
    targets = np.tile(TARGETS, 2)
    scores = np.concatenate([answer_classes(TARGETS, skill=1.0, seed=index)[:, 1] for index in range(2)])
    (event,) = found.Tensors("precision_recall/spiral_cw")
    precision, recall = make_ndarray(event.tensor_proto)[4:]
    thresholds = np.linspace(0, 1, len(recall))
    for index in (0, len(recall) // 4, len(recall) // 2):
        answered = scores >= thresholds[index]
        assert recall[index] == pytest.approx(sk.recall_score(targets == 1, answered))
        assert precision[index] == pytest.approx(sk.precision_score(targets == 1, answered))


def test_pictures_are_there_and_can_be_opened(run_dir: Path) -> None:
    found = read(run_dir / "tensorboard" / "final" / "vgg16")
    assert sorted(found.Tags()["images"]) == ["calibration", "confusion", "worst_mistakes"]
    for tag in found.Tags()["images"]:
        (event,) = found.Images(tag)
        assert Image.open(io.BytesIO(event.encoded_image_string)).size == (event.width, event.height)


def test_hparams_has_a_line_for_each_retraining_with_its_final_values(run_dir: Path) -> None:
    root = run_dir / "tensorboard"
    columns = hparams(root, "_hparams_/experiment").experiment
    assert {one.name for one in columns.hparam_infos} == {"backbone", "learning_rate", "trainable_stages", "depth"}
    tags = [one.name.tag for one in columns.metric_infos]
    assert tags[:2] == ["best/val_nll", "best/epoch"]
    assert {"final/val_nll", "final/test_accuracy", "final/test_ece"} <= set(tags)
    lines = [hparams(path, "_hparams_/session_start_info").session_start_info
             for path in sorted((root / "final" / "cnn").glob("seed-*"))]  # fmt: skip
    # One group, over whose seeds the page averages.
    assert [one.group_name for one in lines] == ["cnn/final-of-trial-00000"] * 2
    assert lines[0].hparams["backbone"].string_value == "cnn"
    assert lines[0].hparams["learning_rate"].number_value == 0.02
    assert lines[0].hparams["trainable_stages"].string_value == "none"
    right = answer_classes(TARGETS, skill=1.0, seed=1).argmax(axis=1)
    (scalar,) = read(root / "final" / "cnn" / "seed-1").Scalars("final/test_accuracy")
    assert scalar.value == pytest.approx(sk.accuracy_score(TARGETS, right))


def test_boards_replace_those_of_an_earlier_call(run_dir: Path) -> None:
    def files() -> int:
        return sum(path.is_file() for path in (run_dir / "tensorboard").rglob("*"))

    before = files()
    write_boards(run_dir)
    assert files() == before
    assert len(list((run_dir / "tensorboard").glob("events*"))) == 1


def test_a_run_without_a_final_evaluation_has_no_boards(tmp_path: Path) -> None:
    write_run_json(tmp_path)
    write_journal(tmp_path, make_study("cnn", [make_trial([0.5])]))
    assert list(write_boards(tmp_path).iterdir()) == []
    assert list((tmp_path / "tensorboard").glob("events*")) == []


def test_the_worst_answers_are_wrong_and_come_in_order(tmp_path: Path) -> None:
    targets = np.array([0, 0, 1, 2])
    outputs = np.array([[0.9, 0.1, 0], [0.3, 0.6, 0.1], [0.8, 0.1, 0.1], [0.5, 0.3, 0.2]], dtype=np.float32)
    write_final(tmp_path, "cnn", targets, outputs)
    standing = make_findings(tmp_path, []).standings["cnn"]
    assert worst_answers(standing, votes=False, most=9).tolist() == [2, 3, 1]
    assert worst_answers(standing, votes=False, most=1).tolist() == [2]


def test_the_worst_votes_have_the_largest_errors(tmp_path: Path) -> None:
    targets = np.zeros((3, 37), dtype=np.float32)
    outputs = np.repeat(np.array([[0.2], [0.7], [0.4]], dtype=np.float32), 37, axis=1)
    task = Task("votes", GZ2.columns)
    write_final(tmp_path, "cnn", targets, outputs, task=task)
    findings = make_findings(tmp_path, [], task=task, objective="rmse", class_counts={})
    assert worst_answers(findings.standings["cnn"], votes=True, most=2).tolist() == [1, 2]


def test_mistakes_show_the_galaxies_that_they_name(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "shards", TARGETS)
    write_final(tmp_path, "cnn", TARGETS, answer_classes(TARGETS, skill=0.5, seed=3))
    findings = make_findings(tmp_path, [], survey_digest=manifest.digest, data=str(tmp_path / "shards"))
    shown = gallery.mistakes(findings)
    assert isinstance(shown, Gallery)
    pictures = [one for _, items in shown.rows for one in items]
    assert len(pictures) > 5
    for one in pictures:
        row = int(one.text[-5:])
        assert np.array_equal(np.unique(np.asarray(Image.open(io.BytesIO(one.png)))), [row])
    other = make_findings(tmp_path, [], data=str(tmp_path / "shards"))
    assert str(gallery.mistakes(other)).startswith("No pictures of mistakes: ")
    assert contact_sheet(other, other.standings["cnn"]) is None


def test_a_backbone_without_answers_has_lines_but_no_pictures(tmp_path: Path) -> None:
    write_run_json(tmp_path)
    write_journal(tmp_path, make_study("cnn", [make_trial([0.5])]))
    run = write_exact(tmp_path, "cnn", 300, nll=0.5)
    (run.folder(tmp_path) / "predictions.parquet").unlink()
    folder = write_boards(tmp_path)
    assert [path.name for path in (folder / "cnn").iterdir()] == ["seed-0"]
