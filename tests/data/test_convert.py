"""The command from end to end: what it writes, what it refuses, and what an interruption leaves."""

import csv
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from survey_files import encode, noise_image, tree_votes, votes_csv, write_class_folders

from galaxy_models.data.convert import main
from galaxy_models.data.manifest import SPLIT_NAMES, Manifest
from galaxy_models.data.shards import ShardWriter, Split
from galaxy_models.data.split import assign_split

CLASSES = {"edge": 40, "round": 60}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_folders(tmp_path_factory.mktemp("survey"), CLASSES)


@pytest.fixture
def own_folders(folders: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(folders, tmp_path / "survey")


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., int]:
    def run(*arguments: str | Path, out: str = "out", workers: int = 1) -> int:
        common = ["--out", str(tmp_path / out), "--px", "32", "--workers", str(workers)]
        return main([*(str(argument) for argument in arguments), *common])

    return run


def rejected(out: Path) -> list[list[str]]:
    with (out if out.suffix == ".csv" else out / "rejected.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["id", "path", "reason"]
    return rows


def all_ids(out: Path) -> dict[str, list[str]]:
    manifest = Manifest.load(out)
    return {name: Split.open(out, manifest, name).ids for name in SPLIT_NAMES}


def leftovers(tmp_path: Path) -> list[str]:
    return sorted(item.name for item in tmp_path.iterdir() if item.name != "survey")


def test_every_galaxy_is_converted_once(
    folders: Path, tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("folder", folders, "--mirror-pairs", "edge:round", "--survey", "tiny") == 0
    out = tmp_path / "out"
    manifest = Manifest.load(out)
    manifest.verify(out)
    ids = all_ids(out)
    assert sorted(chain.from_iterable(ids.values())) == sorted(
        f"{k}/{k}_{i}" for k, n in CLASSES.items() for i in range(n)
    )
    for name, members in ids.items():
        assert {assign_split(member, val=0.1, test=0.1) for member in members} == {name}
    assert manifest.survey == "tiny"
    assert manifest.task.names == ("edge", "round")
    assert manifest.task.mirror_pairs == (("edge", "round"),)
    counts = np.array([manifest.splits[name].class_counts for name in SPLIT_NAMES])
    assert counts.sum(axis=0).tolist() == [40, 60]
    assert not manifest.simulated
    assert manifest.made_by["reader"] == "folder"
    assert manifest.made_by["crop"] == 0.5
    assert str(tmp_path) not in (out / "manifest.json").read_text()
    rows = ", ".join(f"{name} {manifest.splits[name].num_rows}" for name in SPLIT_NAMES)
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line == f"{rows}; left out 0, duplicates 0, rejected 0: {out}"
    assert rejected(out) == []


def test_pixels_and_labels_belong_to_their_ids(folders: Path, tmp_path: Path, convert: Callable[..., int]) -> None:
    assert convert("folder", folders, "--crop", "1.0") == 0
    split = Split.open(tmp_path / "out", Manifest.load(tmp_path / "out"), "train")
    pixels = np.empty((split.num_rows, 32, 32, 3), np.uint8)
    split.gather(np.arange(split.num_rows), pixels)
    for object_id, target, image in zip(split.ids, split.targets, pixels, strict=True):
        assert object_id.startswith(("edge", "round")[target])
        original = Image.open(folders / f"{object_id}.jpg").resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(original).astype(int) - image).max() <= 2


def test_the_number_of_workers_changes_nothing(own_folders: Path, tmp_path: Path, convert: Callable[..., int]) -> None:
    (own_folders / "edge" / "edge_3.jpg").write_bytes(b"broken")
    for workers in (1, 2):
        assert convert("folder", own_folders, "--max-rejected", "0.1", out=f"w{workers}", workers=workers) == 0
    alone, together = (tmp_path / f"w{workers}" for workers in (1, 2))
    assert Manifest.load(together) == Manifest.load(alone)
    assert rejected(together) == rejected(alone)
    assert [row[0] for row in rejected(alone)] == ["edge/edge_3"]


def test_unreadable_images_are_listed_and_counted(
    own_folders: Path, tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = encode(noise_image(900))
    (own_folders / "edge" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (own_folders / "edge" / "empty.jpg").write_bytes(b"")
    (own_folders / "round" / "gone.jpg").symlink_to("nowhere.jpg")
    (own_folders / "round" / "text.jpg").write_text("a letter")
    assert convert("folder", own_folders, "--max-rejected", "0.04") == 0
    assert [(name, reason.split(":")[0]) for name, _, reason in rejected(tmp_path / "out")] == [
        ("edge/cut", "image is incomplete"),
        ("edge/empty", "empty file"),
        ("round/gone", "no such file"),
        ("round/text", "not a JPEG, PNG, WebP or GIF image"),
    ]
    assert "rejected 4: " in capsys.readouterr().out
    assert Manifest.load(tmp_path / "out").rejected == 4


def test_too_many_unreadable_images_fail_and_leave_the_list(
    own_folders: Path, tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        (own_folders / "edge" / f"edge_{number}.jpg").write_bytes(b"")
    assert convert("folder", own_folders) == 2
    message = capsys.readouterr().err
    assert "error: 2 of 100 images cannot be used, the first edge/edge_0.jpg (id edge/edge_0: empty file)" in message
    assert str(tmp_path / "out.rejected.csv") in message
    assert leftovers(tmp_path) == ["out.rejected.csv"]
    assert [row[0] for row in rejected(tmp_path / "out.rejected.csv")] == ["edge/edge_0", "edge/edge_1"]
    assert convert("folder", own_folders, "--max-rejected", "0.02") == 0
    assert leftovers(tmp_path) == ["out"]


def test_the_same_image_under_two_ids_counts_once(
    own_folders: Path, tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(own_folders / "edge" / "edge_1.jpg", own_folders / "edge" / "copy.jpg")
    assert convert("folder", own_folders, "--max-rejected", "0") == 0
    assert rejected(tmp_path / "out") == [
        ["edge/edge_1", "edge/edge_1.jpg", "duplicate: the same image as edge/copy"],
    ]
    assert "duplicates 1, rejected 0: " in capsys.readouterr().out
    assert sum(len(ids) for ids in all_ids(tmp_path / "out").values()) == 100


def test_names_in_several_splits_are_converted_and_counted(tmp_path: Path, convert: Callable[..., int]) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        write_class_folders(tmp_path / "survey" / split, {"edge": 4 + seed, "round": 2}, first_seed=20 * seed)
    shutil.copy(tmp_path / "survey/train/edge/edge_0.jpg", tmp_path / "survey/val/edge/edge_9.jpg")
    assert convert("folder", tmp_path / "survey") == 0
    manifest = Manifest.load(tmp_path / "out")
    # edge_0 to edge_3 and both round ones are in all three, edge_4 is in two; edge_9 is the image edge_0 again.
    assert manifest.num_repeated_names == 7
    assert [manifest.splits[name].num_rows for name in SPLIT_NAMES] == [6, 7, 8]


def test_a_class_whose_images_are_all_unreadable(
    own_folders: Path, tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (own_folders / "edge").iterdir():
        path.write_bytes(b"")
    assert convert("folder", own_folders, "--max-rejected", "1") == 2
    message = capsys.readouterr().err
    assert "class 'edge': found no galaxy of it to train on" in message
    assert f"; rejected 40, duplicates 0: see {tmp_path / 'out.rejected.csv'}\n" in message
    assert leftovers(tmp_path) == ["out.rejected.csv"]
    assert {(row[0].split("/")[0], row[2]) for row in rejected(tmp_path / "out.rejected.csv")} == {
        ("edge", "empty file")
    }


def test_an_existing_output_needs_force(
    folders: Path, tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("folder", folders) == 0
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    assert convert("folder", folders, "--crop", "0.7") == 2
    assert "replace it with --force" in capsys.readouterr().err
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert convert("folder", folders, "--crop", "0.7", "--force") == 0
    assert Manifest.load(tmp_path / "out").made_by["crop"] == 0.7
    assert leftovers(tmp_path) == ["out"]


def test_a_full_disk_leaves_nothing(
    folders: Path,
    tmp_path: Path,
    convert: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill(writer: ShardWriter) -> None:
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    monkeypatch.setattr(ShardWriter, "close", fill)
    assert convert("folder", folders) == 1
    assert f"error: --out {tmp_path / 'out'}: the disk is full" in capsys.readouterr().err
    assert leftovers(tmp_path) == []


def test_votes_and_a_recipe_over_them(
    tmp_path: Path, convert: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [str(100000 + number) for number in range(250)]
    votes = tree_votes(250)
    survey = tmp_path / "survey"
    (survey / "images_training_rev1").mkdir(parents=True)
    for seed, name in enumerate(ids):
        (survey / "images_training_rev1" / f"{name}.jpg").write_bytes(encode(noise_image(seed)))
    (survey / "training_solutions_rev1.csv").write_text(votes_csv(ids, votes))

    assert convert("kaggle", survey, out="votes") == 0
    manifest = Manifest.load(tmp_path / "votes")
    assert (manifest.task.kind, manifest.task.num_outputs, manifest.left_out) == ("votes", 37, 0)
    split = Split.open(tmp_path / "votes", manifest, "train")
    rows = [ids.index(name) for name in split.ids]
    np.testing.assert_array_equal(split.targets, votes[rows].clip(0, 1).astype(np.float32))

    capsys.readouterr()
    table = survey / "training_solutions_rev1.csv"
    for arguments in (["kaggle", survey], ["catalog", table]):
        name = str(arguments[0])
        assert convert(*arguments, "--recipe", "five_class_conditional", "--val", "0.2", out=name) == 0
        manifest = Manifest.load(tmp_path / name)
        assert manifest.task.names == ("round", "in_between", "cigar", "edge_on", "spiral")
        assert manifest.left_out > 0
        assert manifest.left_out + sum(split.num_rows for split in manifest.splits.values()) == 250
        assert manifest.made_by["recipe"] == "five_class_conditional"
        totals = np.sum([split.class_counts for split in manifest.splits.values()], axis=0)
        counts = ", ".join(f"{kind} {total}" for kind, total in zip(manifest.task.names, totals, strict=True))
        expected = f"recipe five_class_conditional: {counts}; {manifest.left_out} meet no rule"
        assert expected in capsys.readouterr().err.splitlines()
    assert Manifest.load(tmp_path / "kaggle").digest == Manifest.load(tmp_path / "catalog").digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder", "{folders}", "--px", "0"], "--px: got 0"),
        (["folder", "{folders}", "--mirror-pairs", "edge:rund"], "mirror pairs: got 'rund'"),
        (["folder", "{folders}/none"], "none: no such folder"),
        (["catalog", "{folders}/none.csv"], "none.csv: no such file"),
        (["kaggle", "{folders}"], "training_solutions_rev1.csv: no such file"),
    ],
)
def test_mistakes_are_one_message(
    folders: Path,
    tmp_path: Path,
    convert: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    command, *rest = (argument.replace("{folders}", str(folders)) for argument in arguments)
    options = ["--out", str(tmp_path / "out"), "--workers", "1"]
    assert main([command, *rest, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder", "x", "--out", "y", "--mirror-pairs", "a"], "expected pairs of classes"),
        (["folder", "x", "--out", "y", "--px", "big"], "invalid int value"),
        (["folder", "x", "--out", "y", "--recipe", "five_class"], "unrecognized arguments"),
        (["folder", "x"], "required: --out"),
        (["fits", "x", "--out", "y"], "invalid choice: 'fits'"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


@pytest.fixture
def slow_survey(tmp_path: Path) -> Path:
    """Seconds of decoding: one large image under many names."""
    survey = tmp_path / "survey"
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    (tmp_path / "survey").mkdir()
    (survey / "large.png").write_bytes(encode(Image.fromarray(noise), "PNG", compress_level=1))
    for kind in ("a", "b"):
        (survey / kind).mkdir()
        for number in range(400):
            (survey / kind / f"{kind}{number}.png").hardlink_to(survey / "large.png")
    return survey


def start_conversion(survey: Path, out: Path) -> "subprocess.Popen[str]":
    """A conversion that has begun to write."""
    command = [sys.executable, "-m", "galaxy_models.data.convert", "folder", str(survey)]
    command += ["--out", str(out), "--workers", "2", "--px", "32"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not leftovers(out.parent):
        assert time.monotonic() < deadline, "the conversion did not start"
        time.sleep(0.05)
    return process


def is_running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(group: int) -> None:
    deadline = time.monotonic() + 30
    while is_running(group):
        assert time.monotonic() < deadline, "worker processes stayed behind"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
)
def test_an_interruption_leaves_nothing_that_looks_complete(
    slow_survey: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with start_conversion(slow_survey, tmp_path / "out") as process:
        time.sleep(0.5)
        # As a terminal does: the whole group is told of Ctrl-C.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    if number == signal.SIGKILL:
        assert not (tmp_path / "out").exists()
    else:
        assert leftovers(tmp_path) == []
    wait_for_end(process.pid)


@pytest.mark.parametrize("num_processes", [2, 4])
def test_a_second_ctrl_c_leaves_at_once(slow_survey: Path, tmp_path: Path, num_processes: int) -> None:
    with start_conversion(slow_survey, tmp_path / "out") as process:
        deadline = time.monotonic() + 60
        # Two help; the others are the workers, which begin to decode as soon as they are there.
        while len(psutil.Process(process.pid).children(recursive=True)) < num_processes:
            assert time.monotonic() < deadline, "no worker started"
            time.sleep(0.01)
        for _ in range(2):
            time.sleep(0.3)
            os.killpg(process.pid, signal.SIGINT)
        try:
            errors = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    # It did not even stay to tidy up: the next conversion does that.
    (partial,) = leftovers(tmp_path)
    assert partial.startswith(".out.partial-")
    wait_for_end(process.pid)
