"""Surveys that are not quite what they seem: strays among splits, files passed over, odd paths and tables."""

import os
from pathlib import Path

import pytest
from survey_files import encode, noise_image, tree_votes, votes_csv, write_class_folders
from test_readers import open_reader, write_images

from galaxy_models.errors import DataError


class TestSplitFolders:
    @pytest.mark.parametrize("names", [("training", "dev", "testing"), ("Train", "Validation", "TEST")])
    def test_other_names_of_splits(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        for name in names:
            write_class_folders(tmp_path / name, {"a": 1, "b": 1})
        records = list(open_reader("folder", tmp_path).records())
        assert [record.split for record in records] == ["train", "train", "val", "val", "test", "test"]

    @pytest.mark.parametrize("stray", ["extra", "spiral"])
    def test_a_stray_among_splits(self, tmp_path: Path, stray: str) -> None:
        for name in ("train", "test", stray):
            write_class_folders(tmp_path / name, {"a": 1, "b": 1})
        with pytest.raises(DataError, match=f"found the folder '{stray}' beside 'test', 'train', expected splits"):
            open_reader("folder", tmp_path)

    def test_no_split_to_train_on(self, tmp_path: Path) -> None:
        for name in ("valid", "test"):
            write_class_folders(tmp_path / name, {"a": 1, "b": 1})
        with pytest.raises(DataError, match="found 'test', 'valid' and no train folder"):
            open_reader("folder", tmp_path)

    def test_names_in_several_splits(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path / "train", {"a": 3, "b": 1})
        write_class_folders(tmp_path / "test", {"a": 2, "b": 1}, first_seed=50)
        # The same bytes are one galaxy, which the conversion finds out; what cannot be read is rejected there.
        (tmp_path / "test/a/a_0.jpg").write_bytes((tmp_path / "train/a/a_0.jpg").read_bytes())
        (tmp_path / "test/b/a_2.jpg").symlink_to("nowhere")
        reader = open_reader("folder", tmp_path)
        (note,) = (note for note in reader.notes if "names" in note)
        assert note.startswith("2 file names occur in more than one split folder; they are taken as different galaxies")
        assert "convert with catalog, which puts no id in two splits" in note
        assert reader.describe() == {"kept_split": True, "num_repeated_names": 2}

    def test_names_in_several_classes_are_usual(self, tmp_path: Path) -> None:
        write_images(tmp_path / "a", ["1", "2"])
        write_images(tmp_path / "b", ["2", "1"])
        assert open_reader("folder", tmp_path).notes == ()


class TestFilesPassedOver:
    def test_they_are_counted(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path, {"a": 1, "b": 1})
        for place in ("a/1.tif", "b/2.TIF", "b/README", "notes.txt", "lost.jpg", ".DS_Store", "a/.hidden.tif"):
            (tmp_path / place).write_bytes(b"")
        assert open_reader("folder", tmp_path).notes == (
            "ignored 5 files: 1 .jpg outside the class folders, 2 .tif, 1 .txt, 1 without a suffix",
        )

    def test_images_in_a_split_folder(self, tmp_path: Path) -> None:
        write_class_folders(tmp_path / "train", {"a": 1, "b": 1})
        write_images(tmp_path / "train", ["x", "y"], ".png")
        reader = open_reader("folder", tmp_path)
        assert reader.notes[-1] == "ignored 2 files: 2 .png outside the class folders"
        assert len(list(reader.records())) == 2

    def test_galaxies_without_votes(self, tmp_path: Path) -> None:
        write_images(tmp_path / "images_training_rev1", ["1", "2", "3"])
        (tmp_path / "images_training_rev1" / "._1.jpg").write_bytes(b"")
        (tmp_path / "images_training_rev1" / "list.txt").write_bytes(b"")
        table = tmp_path / "training_solutions_rev1.csv"
        table.write_text(votes_csv(["1", "4"], tree_votes(2)))
        assert open_reader("kaggle", tmp_path).notes == (
            "ignored 2 images that training_solutions_rev1 has no row for",
        )
        table.write_text(votes_csv(["1", "2", "3"], tree_votes(3)))
        assert open_reader("kaggle", tmp_path).notes == ()


@pytest.mark.parametrize("target", [".", "..", "../a", "../../{name}", "../b"])
def test_links_that_lead_back(tmp_path: Path, target: str) -> None:
    write_class_folders(tmp_path, {"a": 1, "b": 1})
    for kind in ("a", "b"):
        (tmp_path / kind / "link").symlink_to(target.format(name=tmp_path.name), target_is_directory=True)
    (tmp_path / "root").symlink_to(tmp_path, target_is_directory=True)
    ids = [record.id for record in open_reader("folder", tmp_path).records()]
    assert {object_id for object_id in ids if "link" not in object_id} == {"a/a_0", "b/b_0"}
    assert len(ids) <= 3  # a link to the other class is followed once
    assert all(object_id.count("link") <= 1 for object_id in ids)


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    write_images(tmp_path / "elsewhere", ["m31"])
    write_class_folders(tmp_path / "survey", {"a": 1, "b": 1})
    (tmp_path / "survey/c").symlink_to("../elsewhere", target_is_directory=True)
    ids = [record.id for record in open_reader("folder", tmp_path / "survey").records()]
    assert ids == ["a/a_0", "b/b_0", "c/m31"]


class TestCatalog:
    def test_ids_from_paths_do_not_depend_on_their_spelling(self, tmp_path: Path) -> None:
        root = tmp_path / "survey"
        root.mkdir()
        (tmp_path / "alias").symlink_to("survey", target_is_directory=True)
        places = ["a.jpg", "./deep//b.jpg", "deep/../c.v2.png", f"{root}/deep/d.jpg", "/elsewhere/e.jpg"]
        places.append(f"{tmp_path}/alias/f.jpg")
        rows = "".join(f"{place},{'xy'[number % 2]}\n" for number, place in enumerate(places))
        (root / "t.csv").write_text("image,class\n" + rows)
        ids = [record.id for record in open_reader("catalog", tmp_path / "alias/t.csv").records()]
        assert ids == ["a", "deep/b", "c.v2", "deep/d", "/elsewhere/e", "f"]

    @pytest.mark.parametrize("place", [".", "..", "/", "a/../..", "./"])
    def test_a_path_without_a_name(self, tmp_path: Path, place: str) -> None:
        (tmp_path / "t.csv").write_text(f"image,class\na.jpg,x\n{place},y\n")
        with pytest.raises(DataError, match=r"t\.csv: row 2, image image: found '.*', expected the path of an image"):
            open_reader("catalog", tmp_path / "t.csv")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("id,image,class\n1,a.jpg,x\n2,b.jpg,n/a\n", r"row 2, column class: found no value \('n/a'\)"),
            ("id,image,class\n1,a.jpg,x\n2,b.jpg,\n", "row 2, column class: found no value, expected one"),
            ("id,image,class\n1,a.jpg,x\n2,b.jpg,y\n1,c.jpg,y\n", "rows 1 and 3: found the id 1 twice"),
            ("image,class\n./a.jpg,x\nb.jpg,y\na.jpg,y\n", "rows 1 and 3: found the id a twice"),
            ("id|image|class\n1|a.jpg|x\n", r"among the columns id\|image\|class|found no column of image paths"),
        ],
    )
    def test_what_cannot_be_used(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(DataError, match=message):
            open_reader("catalog", tmp_path / "t.csv")

    def test_a_semicolon_table(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("id;image;class\n1;a,b.jpg;x\n2;c.jpg;y\n")
        records = list(open_reader("catalog", tmp_path / "t.csv").records())
        assert [(record.id, record.target, record.image.location) for record in records] == [
            ("1", "x", "a,b.jpg"),
            ("2", "y", "c.jpg"),
        ]

    def test_what_it_reads(self, tmp_path: Path) -> None:
        (tmp_path / "far").mkdir()
        (tmp_path / "near").symlink_to("far", target_is_directory=True)
        (tmp_path / "t.csv").write_text("id,image,class\n1,near/a.jpg,x\n2,near/../b.jpg,y\n3,nul\0/c.jpg,y\n")
        found = {Path(os.path.normpath(path)) for path in open_reader("catalog", tmp_path / "t.csv").paths}
        assert found == {tmp_path / "t.csv", tmp_path / "far/a.jpg", tmp_path / "b.jpg"}


def test_galaxy_zoo_1_needs_no_option_for_its_columns(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for object_id in ("587722952767439450", "587722953303916935"):
        (tmp_path / "images" / f"{object_id}.jpeg").write_bytes(encode(noise_image(int(object_id) % 97)))
    (tmp_path / "labels.csv").write_text(
        "OBJID,CLASS,class_name\n587722952767439450,2,spiral_cw\n587722953303916935,3,spiral_acw\n"
    )
    reader = open_reader("catalog", tmp_path / "labels.csv")
    assert reader.task.names == ("spiral_acw", "spiral_cw")
    for record in reader.records():
        assert record.image.load(px=16, crop=0.5).pixels.shape == (16, 16, 3)
