"""An output appears whole, replaces an old one in one step, or leaves no trace."""

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest

from galaxy_models.data.staging import check_apart, check_output, resolve_output, staged_folder
from galaxy_models.errors import DataError


def write_output(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text(text)
    return folder


def make(out: Path) -> None:
    with staged_folder(resolve_output(out), force=False):
        pass


def fail_half_way(out: Path, failure: type[BaseException]) -> None:
    with staged_folder(out, force=True) as folder:
        (folder / "manifest.json").write_text("new")
        raise failure("half way")


def test_the_output_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with staged_folder(out, force=False) as folder:
        (folder / "manifest.json").write_text("new")
        assert not out.exists()
        assert folder.parent == out.parent
    assert (out / "manifest.json").read_text() == "new"
    assert [item.name for item in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path: Path, failure: type[BaseException], is_old: bool) -> None:
    out = tmp_path / "out"
    if is_old:
        write_output(out, "old")
    with pytest.raises(failure, match="half way"):
        fail_half_way(out, failure)
    assert [item.name for item in tmp_path.iterdir()] == (["out"] if is_old else [])
    if is_old:
        assert (out / "manifest.json").read_text() == "old"


KILLED = (
    "import os, sys; from pathlib import Path; from galaxy_models.data.staging import staged_folder\n"
    "with staged_folder(Path(sys.argv[1]), force=False) as folder:\n"
    "    (folder / 'train-00000.arrow').write_text('x')\n"
    "    os.kill(os.getpid(), 9)\n"
)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for place in (out, tmp_path / "other"):
        assert subprocess.run([sys.executable, "-c", KILLED, place], check=False).returncode == -9
    left = sorted(item.name for item in tmp_path.iterdir())
    assert [name[:-8] for name in left] == [".other.partial-", ".out.partial-"]
    (tmp_path / ".out.partial-notes").mkdir()
    with staged_folder(out, force=False) as folder:
        (folder / "manifest.json").write_text("new")
    assert sorted(item.name for item in tmp_path.iterdir()) == [left[0], ".out.partial-notes", "out"]


def test_a_conversion_that_runs_keeps_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staged_folder(out, force=True) as first:
        (first / "manifest.json").write_text("first")
        with staged_folder(out, force=True) as second:
            assert (first / "manifest.json").read_text() == "first"
            (second / "manifest.json").write_text("second")
    assert (out / "manifest.json").read_text() == "first"


def test_force_replaces_at_the_end(tmp_path: Path) -> None:
    out = write_output(tmp_path / "out", "old")
    (out / "train-00007.arrow").write_text("old")
    with staged_folder(out, force=True) as folder:
        (folder / "manifest.json").write_text("new")
        assert (out / "manifest.json").read_text() == "old"
    assert [item.name for item in out.iterdir()] == ["manifest.json"]
    assert (out / "manifest.json").read_text() == "new"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_the_old_output_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_output(tmp_path / "out", "old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if "partial" in path.name:
            raise PermissionError("refused")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError, match="refused"), staged_folder(out, force=True):
        pass
    assert (out / "manifest.json").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["out"]


def test_an_output_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="found a converted survey"), staged_folder(out, force=False):
        write_output(out, "another's")
    assert (out / "manifest.json").read_text() == "another's"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with staged_folder(tmp_path / "out", force=False) as folder:
        (folder / "manifest.json").write_text("new")
    assert (tmp_path / "out" / "manifest.json").read_text() == "new"


def test_a_file_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="found a file on the way"), staged_folder(tmp_path / "file/out", force=False):
        pass


def test_what_is_refused(tmp_path: Path) -> None:
    check_output(tmp_path / "none", force=False)
    check_output(write_output(tmp_path / "old", "old"), force=True)
    with pytest.raises(DataError, match="found a converted survey: choose another name, or replace it with --force"):
        check_output(tmp_path / "old", force=False)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_text("precious")
    with pytest.raises(DataError, match="a folder that is no converted survey"):
        check_output(tmp_path / "photos", force=True)
    with pytest.raises(DataError, match="found a file, expected a folder"):
        check_output(tmp_path / "photos" / "mine.jpg", force=True)


@pytest.mark.parametrize("stranger", ["mine.jpg", "train.arrow", "train-1.arrow", "dev-00000.arrow", ".notes"])
def test_force_replaces_nothing_but_a_conversion(tmp_path: Path, stranger: str) -> None:
    out = write_output(tmp_path / "out", "old")
    for name in ("rejected.csv", "train-00000.arrow", "val-00012.arrow", "test-100000.arrow"):
        (out / name).write_text("old")
    check_output(out, force=True)
    (out / stranger).write_text("precious")
    with pytest.raises(DataError, match=f"found '{re.escape(stranger)}', which no conversion makes"):
        check_output(out, force=True)


def test_force_replaces_no_folder_in_a_conversion(tmp_path: Path) -> None:
    (write_output(tmp_path / "out", "old") / "train-00000.arrow").mkdir()
    with pytest.raises(DataError, match=r"found 'train-00000\.arrow', which no conversion makes"):
        check_output(tmp_path / "out", force=True)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("survey", "found the survey's own .*survey there"),
        ("", "found the survey's own .*survey there"),
        ("survey/shards", "found it inside the survey .*survey: choose"),
        ("table", r"found the survey's own .*table/labels\.csv there"),
    ],
)
def test_an_output_that_touches_the_survey(tmp_path: Path, out: str, message: str) -> None:
    sources = [tmp_path / "survey", tmp_path / "table/labels.csv"]
    with pytest.raises(DataError, match=message):
        check_apart(tmp_path / out, sources)


def test_an_output_beside_the_survey(tmp_path: Path) -> None:
    check_apart(tmp_path / "survey2", [tmp_path / "survey", tmp_path / "labels.csv"])


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(DataError, match=r"--out .*circle: .*symbolic links, expected a place for a folder"):
        make(tmp_path / "circle")
    with pytest.raises(DataError, match=r"--out .*: File name too long, expected"):
        make(tmp_path / ("x" * 300))
    # Short enough itself, but not with what its temporary folder's name adds.
    with pytest.raises(DataError, match=r"--out .*: File name too long, expected"):
        make(tmp_path / ("x" * 250))
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"--out .*: Not a directory, expected"):
        make(tmp_path / "file/deep/out")


def test_a_folder_that_takes_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match=r"--out .*: No such file or directory, expected a place for a folder"):
        make(tmp_path / "out")


def test_a_file_missing_half_way_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"), staged_folder(tmp_path / "out", force=False):
        raise FileNotFoundError(errno.ENOENT, "gone")
