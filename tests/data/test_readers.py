"""What each reader finds in a survey's files, and what it says of files it cannot use."""

import argparse
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from survey_files import encode, noise_image, tree_votes, votes_csv, write_class_folders

from galaxy_models.data.readers import READERS, Reader, find_reader
from galaxy_models.errors import DataError
from galaxy_models.morphology.tree import GZ2


def open_reader(name: str, *arguments: str | Path) -> Reader:
    kind = find_reader(name)
    parser = argparse.ArgumentParser()
    kind.add_options(parser)
    return kind.from_options(parser.parse_args([str(argument) for argument in arguments]))


def write_images(folder: Path, ids: list[str], suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(ids):
        (folder / f"{name}{suffix}").write_bytes(encode(noise_image(seed)))


@pytest.fixture
def survey(tmp_path: Path, request: pytest.FixtureRequest) -> Reader:
    """A small survey for the reader that the test names."""
    ids = ["11", "22", "33"]
    match request.param:
        case "folder":
            return open_reader("folder", write_class_folders(tmp_path, {"a": 2, "b": 1}))
        case "catalog":
            write_images(tmp_path / "images", ids)
            (tmp_path / "labels.csv").write_text("id,class\n11,a\n22,b\n33,a\n")
            return open_reader("catalog", tmp_path / "labels.csv")
        case "kaggle":
            write_images(tmp_path / "images_training_rev1", ids)
            (tmp_path / "training_solutions_rev1.csv").write_text(votes_csv(ids, tree_votes(3)))
            return open_reader("kaggle", tmp_path)
        case _:
            return open_reader("simulated", "3")


@pytest.mark.parametrize("survey", list(READERS), indirect=True)
class TestContract:
    def test_records_are_the_same_each_time_with_unique_ids(self, survey: Reader) -> None:
        first, second = list(survey.records()), list(survey.records())
        assert [record.id for record in first] == [record.id for record in second]
        assert len({record.id for record in first}) == len(first) == 3

    def test_targets_fit_the_task(self, survey: Reader) -> None:
        for record in survey.records():
            if survey.task.kind == "classes":
                assert record.target in survey.task.names
            else:
                votes = np.asarray(record.target)
                assert votes.shape == (len(survey.task.names),)
                assert ((votes >= 0) & (votes <= 1)).all()

    def test_images_load_anywhere_after_pickling(self, survey: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
        images = pickle.dumps([record.image for record in survey.records()])
        monkeypatch.chdir("/")
        for image in pickle.loads(images):  # noqa: S301
            pixels = image.load(px=32, crop=type(survey).default_crop).pixels
            assert pixels.shape == (32, 32, 3)
            assert pixels.dtype == np.uint8
            assert pixels.std() > 0

    def test_its_description_is_json_without_this_machine(self, survey: Reader, tmp_path: Path) -> None:
        import json

        assert str(tmp_path) not in json.dumps(survey.describe())
        assert survey.survey


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from galaxy_models.data.convert import build_parser; build_parser().format_help();"
        "print([name for name in ('torch', 'galsim', 'pandas', 'pyarrow', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestFolder:
    def test_ids_are_paths_without_suffix(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path, {"spiral": 1, "edge": 1})
        (tmp_path / "spiral" / "deep").mkdir()
        (tmp_path / "spiral" / "deep" / "m51.v2.PNG").write_bytes(b"")
        (tmp_path / "spiral" / "notes.txt").write_text("no image")
        (tmp_path / ".git" / "x").mkdir(parents=True)
        reader = open_reader("folder", tmp_path)
        found = [(record.id, record.target, record.split) for record in reader.records()]
        expected = [("edge/edge_0", "edge"), ("spiral/deep/m51.v2", "spiral"), ("spiral/spiral_0", "spiral")]
        assert found == [(*item, None) for item in expected]
        assert reader.task.names == ("edge", "spiral")

    def test_a_split_above_the_classes_is_kept(self, tmp_path: Path) -> None:
        for seed, split in enumerate(("train", "valid", "test")):
            write_class_folders(tmp_path / split, {"a": 1, "b": 1}, first_seed=10 * seed)
        reader = open_reader("folder", tmp_path)
        assert [(record.id, record.split) for record in reader.records()] == [
            ("train/a/a_0", "train"),
            ("train/b/b_0", "train"),
            ("valid/a/a_0", "val"),
            ("valid/b/b_0", "val"),
            ("test/a/a_0", "test"),
            ("test/b/b_0", "test"),
        ]
        assert reader.notes[0] == "the folders' own train, val and test split is kept"
        assert reader.describe() == {"kept_split": True, "num_repeated_names": 2}

    def test_a_missing_split_is_announced(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path / "train", {"a": 1, "b": 1})
        assert open_reader("folder", tmp_path).notes == (
            "there is no val and no test folder: taken from train by a hash of the id",
        )

    def test_two_names_of_one_split(self, tmp_path: Path) -> None:
        for split in ("train", "val", "valid"):
            write_class_folders(tmp_path / split, {"a": 1, "b": 1})
        with pytest.raises(DataError, match="two folders for the val split"):
            open_reader("folder", tmp_path)

    def test_an_empty_class(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path, {"a": 1, "b": 1, "c": 0})
        with pytest.raises(DataError, match="class folder c: found no image"):
            open_reader("folder", tmp_path)

    @pytest.mark.parametrize(("classes", "found"), [({}, "none"), ({"only": 1}, "only")])
    def test_fewer_than_two_classes(self, tmp_path: Path, classes: dict[str, int], found: str) -> None:
        write_class_folders(tmp_path, classes)
        with pytest.raises(DataError, match=f"found the class folders {found}, expected at least two"):
            open_reader("folder", tmp_path)

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="none: no such folder"):
            open_reader("folder", tmp_path / "none")


class TestCatalog:
    def test_columns_are_found_by_common_names(self, tmp_path: Path) -> None:
        write_images(tmp_path / "images", ["588848901537202306"], ".jpeg")
        (tmp_path / "labels.csv").write_text(
            "OBJID,CLASS,class_name\n588848901532418163,1,edge\n588848901537202306,0,elliptical\n"
        )
        reader = open_reader("catalog", tmp_path / "labels.csv")
        assert [(record.id, record.target, record.image.location) for record in reader.records()] == [
            ("588848901532418163", "edge", "images/588848901532418163.jpeg"),
            ("588848901537202306", "elliptical", "images/588848901537202306.jpeg"),
        ]
        assert reader.survey == tmp_path.name

    def test_columns_are_named_by_options(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("run,field,kind,id\n1,a,x,p\n2,b,y,q\n")
        named = ["--id-column", "field", "--class-column", "kind", "--image-template", "{run}/f-{field}.png"]
        reader = open_reader("catalog", tmp_path / "t.csv", *named)
        found = [(record.id, record.target, record.image.location) for record in reader.records()]
        assert found == [("a", "x", "1/f-a.png"), ("b", "y", "2/f-b.png")]

    def test_an_image_column_alone_names_the_galaxies(self, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        write_images(tmp_path / "here", ["m1", "m2"])
        (tmp_path / "t.csv").write_text("image_path,label\nm1.jpg,x\nm2.jpg,y\n")
        reader = open_reader("catalog", tmp_path / "t.csv", "--image-root", tmp_path / "here")
        records = list(reader.records())
        assert [record.id for record in records] == ["m1", "m2"]
        assert records[0].image.load(px=16, crop=1.0).pixels.shape == (16, 16, 3)

    def test_votes_from_parquet(self, tmp_path: Path) -> None:
        votes = tree_votes(2)
        columns = {"iauname": ["J1", "J2"], "file_loc": ["1.jpg", "2.jpg"]}
        columns |= {name: votes[:, number] for number, name in enumerate(GZ2.columns)}
        pq.write_table(pa.table(columns), tmp_path / "t.parquet")
        reader = open_reader("catalog", tmp_path / "t.parquet")
        assert reader.task.kind == "votes"
        np.testing.assert_allclose([record.target for record in reader.records()], votes, rtol=0, atol=1e-15)

    def test_votes_under_other_names_keep_their_order(self, tmp_path: Path) -> None:
        names = [f"v{number}" for number in range(37)]
        values = [f"{number / 37!r}" for number in range(37)]
        shuffled = sorted(range(37), key=lambda number: (number * 7) % 37)
        head = ",".join(["id", "image", *(names[number] for number in shuffled)])
        row = ",".join(["a", "a.jpg", *(values[number] for number in shuffled)])
        (tmp_path / "t.csv").write_text(f"{head}\n{row}\n")
        reader = open_reader("catalog", tmp_path / "t.csv", "--vote-columns", ",".join(names))
        np.testing.assert_array_equal(next(reader.records()).target, [number / 37 for number in range(37)])
        assert reader.task.names == GZ2.columns

    @pytest.mark.parametrize(
        ("text", "options", "message"),
        [
            ("id,image\n1,a.jpg\n", [], "neither classes nor the 37 vote fractions among the columns id, image"),
            ("id,class\n1,a\n", [], "no column of image paths, and no images by id"),
            ("id,class\n1,a\n", ["--image-column", "pic"], "no column 'pic' for --image-column, only id, class"),
            ("id,class\n1,a\n", ["--image-template", "{oid}.jpg"], "no column 'oid' for --image-template"),
            ("id,class\n1,a\n", ["--image-template", "a.jpg"], "expected a column's name in braces"),
            ("id,class\n1,a\n", ["--id-column", "OBJID"], "no column 'OBJID' for --id-column"),
            ("id,image,class\n1,a,b\n", ["--class-column", "kind"], "no column 'kind' for --class-column"),
            ("id,image,class\n1,a,b\n", ["--vote-columns", "x,y"], "--vote-columns: got 2 names, expected 37"),
            ("id,image,class\n1,a,b\n", ["--class-column", "class", "--vote-columns", "x"], "got both"),
            ("id,image,class\n1,a,b\n", ["--image-root", "/no/such"], "--image-root: /no/such: no such folder"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, text: str, options: list[str], message: str) -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            open_reader("catalog", tmp_path / "t.csv", *options)

    def test_classes_and_votes_in_one_table_need_a_choice(self, tmp_path: Path) -> None:
        text = votes_csv(["1"], tree_votes(1)).splitlines()
        (tmp_path / "t.csv").write_text(f"{text[0]},class,image\n{text[1]},a,a.jpg\n")
        with pytest.raises(DataError, match="found classes in class and 37 vote fractions"):
            open_reader("catalog", tmp_path / "t.csv")
        chosen = open_reader("catalog", tmp_path / "t.csv", "--vote-columns", ",".join(GZ2.columns))
        assert chosen.task.kind == "votes"

    def test_a_single_class(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("image,class\na.jpg,x\nb.jpg,x\n")
        with pytest.raises(DataError, match="found the one class 'x', expected at least two"):
            _ = open_reader("catalog", tmp_path / "t.csv").task


class TestKaggle:
    def test_zips_give_what_folders_give(self, tmp_path: Path) -> None:
        ids = ["100008", "100023", "100053"]
        plain, zipped = tmp_path / "plain", tmp_path / "zipped"
        write_images(plain / "images_training_rev1", ids)
        (plain / "training_solutions_rev1.csv").write_text(votes_csv(ids, tree_votes(3)))
        zipped.mkdir()
        for name in ("images_training_rev1", "training_solutions_rev1"):
            with zipfile.ZipFile(zipped / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for path in sorted(plain.rglob("*.jpg" if "images" in name else "*.csv")):
                    archive.write(path, path.relative_to(plain))
        left, right = (list(open_reader("kaggle", root).records()) for root in (plain, zipped))
        assert [record.id for record in left] == [record.id for record in right] == ids
        for one, other in zip(left, right, strict=True):
            np.testing.assert_array_equal(one.target, other.target)
            np.testing.assert_array_equal(
                one.image.load(px=16, crop=0.5).pixels, other.image.load(px=16, crop=0.5).pixels
            )

    def test_a_member_that_is_missing_or_damaged_is_rejected(self, tmp_path: Path) -> None:
        (tmp_path / "training_solutions_rev1.csv").write_text(votes_csv(["1", "2"], tree_votes(2)))
        path = tmp_path / "images_training_rev1.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images_training_rev1/1.jpg", encode(noise_image(0)))
        content = bytearray(path.read_bytes())
        content[200] ^= 0xFF
        path.write_bytes(content)
        damaged, missing = (record.image for record in open_reader("kaggle", tmp_path).records())
        with pytest.raises(DataError, match="cannot be unpacked: Bad CRC-32"):
            damaged.load(px=16, crop=1.0)
        with pytest.raises(DataError, match="no such member in the archive"):
            missing.load(px=16, crop=1.0)
        assert missing.location == "images_training_rev1.zip:images_training_rev1/2.jpg"

    def test_real_galaxies(self, real_data: Path) -> None:
        reader = open_reader("kaggle", real_data / "kaggle")
        records = list(reader.records())
        assert len(records) == 64
        assert records[0].id == "101623"
        assert records[0].target[0] == 0.860377

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({}, r"training_solutions_rev1.csv: no such file"),
            ({"training_solutions_rev1.csv": votes_csv(["1"], tree_votes(1))}, "neither images_training_rev1/ nor"),
            ({"training_solutions_rev1.csv": "GalaxyID,Class1.1\n1,0.5\n"}, "no column 'Class1.2'"),
            ({"training_solutions_rev1.zip": "no zip"}, "no readable zip archive"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, files: dict[str, str], message: str) -> None:
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            open_reader("kaggle", tmp_path)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("none.jpg", "no such file"), ("folder.jpg", "a folder, not a file"), ("nul\0.jpg", "cannot be read")],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "t.csv").write_text(f"id,image,class\n1,{place},a\n2,b.jpg,b\n")
    record = next(open_reader("catalog", tmp_path / "t.csv").records())
    with pytest.raises(DataError, match=reason):
        record.image.load(px=16, crop=1.0)
