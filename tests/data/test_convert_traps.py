"""Conversions that must not lose data, mislead, or blame the wrong thing."""

import csv
import errno
import shutil
from pathlib import Path

import pytest
from survey_files import encode, noise_image, tree_votes, votes_csv, write_class_folders

from galaxy_models.data.convert import main
from galaxy_models.data.manifest import SPLIT_NAMES, Manifest
from galaxy_models.data.shards import Split


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "survey", {"edge": 40, "round": 60})


def convert(reader: str, source: Path, out: Path, *options: str) -> int:
    return main([reader, str(source), "--out", str(out), "--px", "16", "--workers", "1", *options])


def listed(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def all_ids(out: Path) -> list[str]:
    manifest = Manifest.load(out)
    return [member for name in SPLIT_NAMES for member in Split.open(out, manifest, name).ids]


def test_the_classes_are_counted(survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("folder", survey, tmp_path / "out") == 0
    assert "classes: edge 40, round 60" in capsys.readouterr().err.splitlines()


def test_the_same_image_in_two_classes_is_a_fault(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(survey / "edge/edge_1.jpg", survey / "round/copy.jpg")
    assert convert("folder", survey, tmp_path / "out", "--max-rejected", "0") == 2
    reason = "the same image as edge/edge_1, which is of class edge"
    expected = f"1 of 101 images cannot be used, the first round/copy.jpg (id round/copy: {reason})"
    assert expected in capsys.readouterr().err
    assert convert("folder", survey, tmp_path / "out") == 0
    assert listed(tmp_path / "out/rejected.csv") == [["round/copy", "round/copy.jpg", reason]]
    assert "duplicates 0, rejected 1: " in capsys.readouterr().out


def test_the_same_image_with_other_votes_is_a_fault(tmp_path: Path) -> None:
    ids = [str(100 + number) for number in range(100)]
    votes = tree_votes(100)
    votes[[5, 6]] = votes[4]
    folder = tmp_path / "survey/images_training_rev1"
    folder.mkdir(parents=True)
    for seed, name in enumerate(ids):
        # 4 and 5 are one galaxy with the same votes, 8 and 9 one galaxy with different ones.
        (folder / f"{name}.jpg").write_bytes(encode(noise_image({5: 4, 9: 8}.get(seed, seed))))
    (tmp_path / "survey/training_solutions_rev1.csv").write_text(votes_csv(ids, votes))
    assert convert("kaggle", tmp_path / "survey", tmp_path / "out") == 0
    assert [row[2] for row in listed(tmp_path / "out/rejected.csv")] == [
        "the same image as 108, which has other vote fractions",
        "duplicate: the same image as 104",
    ]


def test_the_order_of_rows_decides_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(60):
        # Every tenth image is that of its predecessor.
        (tmp_path / f"images/g{number}.jpg").write_bytes(encode(noise_image(number - (number % 10 == 9))))
        rows.append(f"g{number},{'xy'[number // 2 % 2]}")
    for name, order in (("forwards", rows), ("backwards", rows[::-1])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,class", *order]) + "\n")
        assert convert("catalog", tmp_path / f"{name}.csv", tmp_path / name) == 0
    one, other = (Manifest.load(tmp_path / name) for name in ("forwards", "backwards"))
    assert one.digest == other.digest
    assert one.made_by["num_duplicates"] == 6
    assert {"g8", "g18"} < set(all_ids(tmp_path / "backwards"))


def test_an_emptied_class_names_the_list_of_rejected_images(
    survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class_folders(survey, {"rare": 1}, first_seed=500)
    shutil.copy(survey / "edge/edge_1.jpg", survey / "rare/rare_0.jpg")
    assert convert("folder", survey, tmp_path / "out") == 2
    message = capsys.readouterr().err
    beside = tmp_path / "out.rejected.csv"
    assert "class 'rare': found no galaxy of it to train on (train 0, val 0, test 0)" in message
    assert f"; rejected 1, duplicates 0: see {beside}\n" in message
    assert [row[0] for row in listed(beside)] == ["rare/rare_0"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["survey", ".", "survey/shards", "link/shards"])
def test_a_survey_is_never_in_the_way_of_its_shards(
    survey: Path, tmp_path: Path, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to("survey")
    before = sorted(tmp_path.rglob("*"))
    (survey / "manifest.json").write_text("the survey's own")
    assert convert("folder", survey, tmp_path / out, "--force") == 2
    assert "choose a place apart from the survey" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == sorted([*before, survey / "manifest.json"])


def test_a_catalogue_and_its_images_survive_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/manifest.json").write_text("{}")
    (tmp_path / "t.csv").write_text("id,image,class\n1,shards/train-00000.arrow,x\n2,b.jpg,y\n")
    assert convert("catalog", tmp_path / "t.csv", tmp_path / "shards", "--force") == 2
    assert f"found the survey's own {tmp_path}/shards/train-00000.arrow there" in capsys.readouterr().err
    # Beside the table is where people put shards.
    assert convert("catalog", tmp_path / "t.csv", tmp_path / "other") == 2
    assert "apart from" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "found"),
    [("x" * 300, "File name too long"), ("circle", "Too many levels of symbolic links"), ("file/a/b", "Not a dir")],
)
def test_an_output_that_cannot_be(
    survey: Path, tmp_path: Path, out: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").write_text("x")
    assert convert("folder", survey, tmp_path / out) == 2
    (message,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    assert message.startswith(f"error: --out {tmp_path / out}: {found}")


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.EACCES, "change the permissions"), (errno.EIO, "check the disk"), (errno.EMFILE, "-n")]
)
def test_a_source_that_cannot_be_read_asks_for_no_room(
    survey: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    remedy: str,
) -> None:
    listing = Path.iterdir

    def refuse(folder: Path) -> object:
        if folder.name == "edge":
            raise OSError(code, "refused", str(folder))
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert convert("folder", survey, tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: {survey / 'edge'}: refused: ")
    assert remedy in message
    assert "room" not in message
