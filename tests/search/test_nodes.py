"""What is asked of a cluster's machines before a search, and how it is told."""

from dataclasses import replace
from pathlib import Path

import pytest
from blobs import write_survey

from galaxy_models.data.manifest import Manifest
from search import nodes as module
from search.errors import RunError
from search.nodes import Found, Needs, check_software, judge, look, this_software

SOFTWARE = {"python": "3.11.7", "ray": "2.60.0", "code of this project": "0123456789ab"}
ONE = Found("a", SOFTWARE, 1000.0, ())
ASKED = (999.0, 1001.0)


def test_machines_alike_are_passed() -> None:
    assert judge([ONE, replace(ONE, host="b")], expected=SOFTWARE, between_s=ASKED) == []
    assert judge([], expected=SOFTWARE, between_s=ASKED) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"ray": "2.59.1"},
            r"node b: ray 2\.59\.1 \(driver: 2\.60\.0\), expected the driver's: install the same on ev",
        ),
        ({"python": "3.12.1"}, r"node b: python 3\.12\.1 \(driver: 3\.11\.7\), expected"),
        ({"code of this project": "f"}, r"node b: code of this project f \(driver: 0123456789ab\), expected"),
        ({"timm": "1.0.15"}, r"node b: timm 1\.0\.15 \(driver: absent\), expected"),
        ({"ray": "1", "python": "3"}, r"node b: python 3 \(driver: 3\.11\.7\), ray 1 \(driver: 2\.60\.0\), expected"),
    ],
)
def test_other_software_is_refused_with_both_named(change: dict[str, str], words: str) -> None:
    other = replace(ONE, host="b", software=SOFTWARE | change)
    with pytest.raises(RunError, match=words):
        judge([ONE, other], expected=SOFTWARE, between_s=ASKED)
    # As a worker does on a machine that joined later.
    with pytest.raises(RunError, match=words):
        check_software(SOFTWARE, other.software, "b")


def test_a_package_that_a_machine_does_not_have() -> None:
    with pytest.raises(RunError, match=r"node b: ray absent \(driver: 2\.60\.0\), expected the driver's"):
        check_software(SOFTWARE, {name: words for name, words in SOFTWARE.items() if name != "ray"}, "b")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--runs-dir", "expected a folder that all nodes share: name one by --runs-dir, or keep it in a storage"),
        ("--data", "expected a folder that all nodes share: name one by --data, or keep it in a storage, with --stor"),
        ("--weights-dir", "expected a folder that all nodes share: name one by --weights-dir$"),
    ],
)
def test_a_folder_that_a_machine_does_not_see(option: str, words: str) -> None:
    with pytest.raises(RunError, match=f"node b: does not see /there, {words}"):
        judge([ONE, replace(ONE, host="b", lacks=(("/there", option),))], expected=SOFTWARE, between_s=ASKED)


@pytest.mark.parametrize(("time_s", "off_s"), [(938.0, "61"), (1062.0, "61"), (0.0, "999")])
def test_a_clock_that_is_off_is_told(time_s: float, off_s: str) -> None:
    (line,) = judge([ONE, replace(ONE, host="b", time_s=time_s)], expected=SOFTWARE, between_s=ASKED)
    assert line.startswith(f"node b: its clock is {off_s} s off; the search does not go by it")


@pytest.mark.parametrize("time_s", [939.5, 1060.5])
def test_a_clock_within_a_minute_is_not(time_s: float) -> None:
    assert judge([replace(ONE, time_s=time_s)], expected=SOFTWARE, between_s=ASKED) == []


def test_a_machine_looks_for_what_is_needed(tmp_path: Path) -> None:
    run_dir, shards, weights = tmp_path / "runs" / "a", tmp_path / "shards", tmp_path / "weights"
    for path in (run_dir, shards, weights):
        path.mkdir(parents=True)
    digest = Manifest.load(write_survey(shards)).digest
    (run_dir / "run.json").write_text("{}")
    needs = Needs(str(run_dir), str(shards), digest, str(weights))
    found = look(needs)
    assert found.lacks == ()
    assert found.software == this_software()
    # Folders of the same name with something else in them.
    (run_dir / "run.json").unlink()
    weights.rmdir()
    lacks = {option for _, option in look(replace(needs, digest="sha256:0")).lacks}
    assert lacks == {"--runs-dir", "--data", "--weights-dir"}
    assert look(Needs("", "", "", "")).lacks == ()


def test_the_code_is_told_apart_by_one_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = this_software()
    assert before["python"].count(".") == 2
    assert before["ray"].startswith("2.")
    for room in ("galaxy_models", "search"):
        (tmp_path / room).mkdir()
    (tmp_path / "search" / "nodes.py").write_text("")
    (tmp_path / "galaxy_models" / "loop.py").write_text("a = 1\n")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "search" / "nodes.py"))
    one = this_software()
    (tmp_path / "galaxy_models" / "loop.py").write_text("a = 2\n")
    other = this_software()
    changed = [name for name in one if one[name] != other[name]]
    assert changed == ["code of this project"]
    assert one["code of this project"] != before["code of this project"]
