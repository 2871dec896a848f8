"""What is wrong with a search is said before its first trial."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from two_spaces import epoch, make_ledger, write_space

from galaxy_models.config import TrainConfig
from galaxy_models.data.manifest import SCHEMA_VERSION, Manifest, SplitEntry
from galaxy_models.data.shards import ShardWriter
from galaxy_models.errors import GalaxyError
from galaxy_models.task import Task
from search.errors import RunError, SpaceError
from search.options import SearchOptions
from search.preflight import Plan, check_survey, make_plan, notes_on_sizes
from search.space import load_space, probe_space

HEAD = "from galaxy_models.config import CnnConfig, TrainConfig\n"
CNN = HEAD + (
    "named = [{'lr': 1e-3, 'width': 8}]\n"
    "def space(trial):\n"
    "    width = trial.suggest_int('width', 4, 12, step=4)\n"
    "    lr = trial.suggest_float('lr', 1e-4, 1e-1, log=True)\n"
    "    return TrainConfig(backbone='cnn', cnn=CnnConfig(width=width, depth=3), learning_rate=lr)\n"
)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight galaxies of 16 px in each split, four of either class."""
    folder, splits = tmp_path_factory.mktemp("survey"), {}
    task = Task("classes", ("x", "y"))
    for split in ("train", "val", "test"):
        writer = ShardWriter(folder, split, px=16, task=task)
        for row in range(8):
            writer.add(f"{split}-{row}", np.full((16, 16, 3), row, np.uint8), row % 2)
        splits[split] = SplitEntry(8, writer.close(), (4, 4))
    Manifest(SCHEMA_VERSION, "tiny", False, task, 16, splits, 0, 0, {}).write(folder)
    return folder


def plan(folder: Path, survey: Path, text: str = CNN, **options: Any) -> Plan:
    space = write_space(folder, "mine", text)
    asked = {"spaces": (space.path,), "data": survey, "runs_dir": folder / "runs", **options}
    return make_plan(SearchOptions(**asked), Console(quiet=True))


def test_a_plan_says_what_will_be_searched(tmp_path: Path, survey: Path) -> None:
    made = plan(tmp_path, survey, fixed={"width": 8})
    assert list(made.spaces) == ["mine"]
    assert made.parameters == ["lr", "width"]
    assert made.fixed == {"mine": {"width": 8}}
    assert (made.metric, made.direction) == ("nll", "min")
    assert made.queues == {"mine": [{"params": {"lr": 1e-3, "width": 8}, "attrs": {"named": True}}]}
    assert sorted(made.distributions["mine"]) == ["lr", "width"]
    assert not (tmp_path / "runs").exists()


def test_a_search_begins_with_what_was_named_for_its_weights(tmp_path: Path, survey: Path) -> None:
    text = CNN.replace("'width': 8}]", "'width': 8, 'weights': 'hf-hub:a/b'}, {'lr': 1e-2, 'weights': 'none'}]")
    text = text.replace(
        "    lr =", "    weights = trial.suggest_categorical('weights', ['hf-hub:a/b', 'none'])\n    lr ="
    )
    made = plan(
        tmp_path, survey, text.replace("learning_rate=", "weights=weights, learning_rate="), fixed={"weights": "none"}
    )
    assert [item["params"] for item in made.queues["mine"]] == [{"lr": 1e-2, "weights": "none"}]


def test_a_grid_has_no_queue_beside_it_and_must_not_be_too_large(tmp_path: Path, survey: Path) -> None:
    assert plan(tmp_path, survey, sampler="grid").queues == {"mine": []}
    many = "".join(f"    trial.suggest_float('p{index}', 0, 1)\n" for index in range(9))
    text = CNN.replace("    width =", many + "    width =").replace("named", "unnamed")
    with pytest.raises(RunError, match="177,147 points of 11 parameters, expected at most 10,000: keep parameters"):
        plan(tmp_path, survey, text, sampler="grid")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"wdth": 8}}, "--fix wdth: no space has such a parameter, expected one of lr, width"),
        ({"fixed": {"width": 5}}, "--fix width: got 5, expected a whole number from 4 to 12 in steps of 4"),
        ({"weights_dir": Path("/nowhere")}, "--weights-dir: /nowhere is no folder, expected one of safetensors files"),
        ({"objective": "speed"}, "speed"),
        ({"warm_start": Path("/nowhere")}, r"/nowhere/study\.journal: no such file, expected the journal of a run"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, survey: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(GalaxyError, match=message):
        plan(tmp_path, survey, **options)


def test_a_network_that_does_not_fit_the_images_is_refused_with_its_space(tmp_path: Path, survey: Path) -> None:
    with pytest.raises(GalaxyError, match=r"mine\.py: cnn\.depth: got 5 for images of 16 px, expected at least 32 px"):
        plan(tmp_path, survey, CNN.replace("depth=3", "depth=5"))


def test_images_of_another_size_than_any_network_looks_at_are_noted(tmp_path: Path, survey: Path) -> None:
    def notes(text: str) -> list[str]:
        space = write_space(tmp_path, "mine", text)
        console = Console(file=io.StringIO(), width=40)
        make_plan(SearchOptions(spaces=(space.path,), data=survey, runs_dir=tmp_path / "runs"), console)
        return console.file.getvalue().splitlines()  # type: ignore[attr-defined]

    larger = CNN.replace("learning_rate=lr", "learning_rate=lr, image_px=trial.suggest_categorical('px', [24, 32])")
    assert notes(larger) == [
        "note     mine: every configuration enlarges the shards' images, of 16 px, to 24 px or more: if the survey's "
        "own have more detail, convert it with --px 24 or more"
    ]
    assert notes(larger.replace("24", "16")) == []
    assert notes(CNN) == []


@pytest.mark.parametrize(
    ("sizes", "px", "count"),
    [([32, 64], 128, 0), ([32, 64], 129, 1), ([32, None], 300, 0), ([64], 63, 1), ([64], 64, 0)],
)
def test_sizes_that_are_noted(sizes: list[int | None], px: int, count: int) -> None:
    configs = [TrainConfig(backbone="vgg16", image_px=size) for size in sizes]
    assert len(notes_on_sizes({"a": configs}, px=px)) == count
    # As long as one space looks at all of it, nothing is thrown away.
    whole = TrainConfig(backbone="vgg16")
    assert len(notes_on_sizes({"a": configs, "b": [whole]}, px=px)) == (count if px < 64 else 0)


def test_an_altered_shard_is_found(tmp_path: Path, survey: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in survey.iterdir():
        data = bytearray(path.read_bytes())
        if path.name.startswith("val"):
            data[len(data) // 2] ^= 1
        (copy / path.name).write_bytes(data)
    with pytest.raises(GalaxyError, match=r"val-00000\.arrow"):
        plan(tmp_path, copy)


@pytest.mark.parametrize(
    ("split", "counts", "metric", "message"),
    [
        ("val", (0, 0), "nll", "the split val is empty: convert the survey again"),
        ("test", (0, 0), "nll", "the split test is empty"),
        ("train", (0, 8), "nll", "the class 'x' has no galaxy to train on: add some, or leave the class out"),
        ("val", (8, 0), "auroc", "--objective auroc: .* has one class in its validation split, expected two at least"),
    ],
)
def test_a_survey_that_cannot_do_its_part_is_refused(
    survey: Path, split: str, counts: tuple[int, int], metric: str, message: str
) -> None:
    manifest = Manifest.load(survey)
    check_survey(manifest, survey, metric)
    entry = replace(manifest.splits[split], num_rows=sum(counts), class_counts=counts)
    with pytest.raises(RunError, match=message):
        check_survey(replace(manifest, splits={**manifest.splits, split: entry}), survey, metric)


def earlier_run(folder: Path, name: str) -> Path:
    """A run of a space that has `lr`, as this one has, and `beta`, as it has not."""
    run_dir = folder / "earlier"
    run_dir.mkdir()
    ledger = make_ledger(run_dir, names="a", num_trials=6, max_epochs=1)
    for number, value in enumerate((0.5, 0.2, 0.9, 0.1, 0.8, 0.3)):
        ledger.start(str(number))
        ledger.report(str(number), epoch(1, value))
    journal = run_dir / "study.journal"
    journal.write_text(journal.read_text().replace('"study_name":"a"', f'"study_name":"{name}"'))
    return run_dir


def test_a_warm_start_queues_the_best_three_of_an_earlier_run_as_far_as_they_fit(tmp_path: Path, survey: Path) -> None:
    run_dir = earlier_run(tmp_path, "mine")
    made = plan(tmp_path, survey, warm_start=run_dir, fixed={"width": 12})
    named, *warm = made.queues["mine"]
    assert named["attrs"] == {"named": True}
    assert [item["attrs"] for item in warm] == [{"warm_start": f"earlier trial {number}"} for number in (3, 1, 5)]
    assert all(item["params"].keys() == {"lr", "width"} for item in warm)
    assert {item["params"]["width"] for item in warm} == {12}


def test_a_warm_start_from_a_run_of_other_spaces_is_refused(tmp_path: Path, survey: Path) -> None:
    run_dir = earlier_run(tmp_path, "other")
    with pytest.raises(RunError, match=r"--warm-start .*earlier: it searched other, expected one of mine"):
        plan(tmp_path, survey, warm_start=run_dir)


CHANGING = {
    "choices": "trial.suggest_categorical('x', ['a', 'b', str(calls)])",
    "a range": "trial.suggest_float('x', 0.0, 1.0 + calls)",
    "a step": "trial.suggest_int('x', 0, 16, step=1 + calls % 2)",
    "names": "trial.suggest_float(f'x{calls % 7}', 0.0, 1.0)",
}


@pytest.mark.parametrize("what", CHANGING)
def test_a_space_whose_suggestions_change_from_call_to_call_is_refused(tmp_path: Path, what: str) -> None:
    text = HEAD + (
        "calls = 0\n"
        "def space(trial):\n"
        "    global calls\n"
        "    calls += 1\n"
        f"    {CHANGING[what]}\n"
        "    return TrainConfig(backbone='vgg16')\n"
    )
    with pytest.raises(SpaceError, match=r"mine\.py: "):
        probe_space(load_space(write_space(tmp_path, "mine", text).path), seed=0, fixed={})
