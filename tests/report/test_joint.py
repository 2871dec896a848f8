"""Several runs on one page: compared on the same galaxies, kept apart on others."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from final_samples import (
    CLASSES,
    TEST_COUNTS,
    answer_classes,
    sample_targets,
    write_exact,
    write_final,
    write_run_json,
)
from report_samples import make_study, make_trial, write_journal

from search.report.__main__ import main
from search.report.blocks import Page
from search.report.findings import Findings
from search.report.joint import by_survey, joint_page, run_labels
from search.report.source import read_run


def make_run(run_dir: Path, *backbones: tuple[str, int, float], **record: Any) -> Path:
    write_journal(
        write_run_json(run_dir, **record), *(make_study(name, [make_trial([0.5])]) for name, _, _ in backbones)
    )
    for name, num_right, nll in backbones:
        write_exact(run_dir, name, num_right, nll=nll)
    return run_dir


def page_of(runs: list[Findings]) -> Page:
    return joint_page(runs, by_survey(runs))


def survey(name: str, letter: str) -> dict[str, Any]:
    return {
        "name": name, "digest": "sha256:" + letter * 64, "simulated": False, "px": 64,
        "task": {"kind": "classes", "names": list(CLASSES)},
        "split_sizes": {"train": 800, "val": 100, "test": sum(TEST_COUNTS)},
        "class_counts": {"train": [500, 200, 100], "val": [60, 30, 10], "test": list(TEST_COUNTS)},
    }  # fmt: skip


def test_two_dates_of_one_survey_are_compared_on_the_same_galaxies(tmp_path: Path) -> None:
    make_run(tmp_path / "monday", ("cnn", 300, 0.6), name="monday")
    make_run(tmp_path / "friday", ("cnn", 360, 0.3), ("vgg16", 355, 0.4), name="friday")
    page = page_of([read_run(tmp_path / name) for name in ("monday", "friday")])
    assert len(page.sections) == 2
    assert page.answer[0].startswith("gz1, 400 test galaxies: ")
    tables = {table.caption: table for table in page.sections[0].blocks if table.kind == "table"}
    order = [header for header, _ in tables["Scores of each backbone, trained again, on every split"].groups]
    assert order == ["friday: cnn", "friday: vgg16", "monday: cnn", "Always round"]
    assert len(tables["Every two backbones on the same 400 test galaxies"].groups) == 3
    assert not [caution for caution in page.cautions if "different test galaxies" in caution]


def test_surveys_are_never_ranked_together(tmp_path: Path) -> None:
    make_run(tmp_path / "a", ("cnn", 300, 0.6), name="a", survey=survey("gz1", "a"))
    make_run(tmp_path / "b", ("cnn", 390, 0.3), ("vgg16", 200, 0.9), name="b", survey=survey("decals", "b"))
    page = page_of([read_run(tmp_path / name) for name in "ab"])
    assert [section.title for section in page.sections] == [
        "gz1, 400 test galaxies", "decals, 400 test galaxies", "The runs",
    ]  # fmt: skip
    assert "2 surveys with different test galaxies" in page.cautions[0]
    for section, names in zip(page.sections[:2], (["cnn"], ["cnn", "vgg16"]), strict=True):
        table = next(block for block in section.blocks if block.kind == "table")
        assert [header for header, _ in table.groups] == [*names, "Always round"]
    assert len(page.answer) == 2


def test_answers_for_other_galaxies_are_not_compared_whatever_the_digest_says(tmp_path: Path) -> None:
    for place, name in enumerate("abc"):
        make_run(tmp_path / name, ("cnn", 300 + 20 * place, 0.6 - 0.1 * place), name=name)
    targets = sample_targets((50, 30, 20))
    other = make_run(tmp_path / "d", name="d")
    write_final(other, "cnn", targets, answer_classes(targets, skill=1.0, seed=1))
    page = page_of([read_run(tmp_path / name) for name in "abcd"])
    table = next(block for block in page.sections[0].blocks if block.kind == "table")
    assert [header for header, _ in table.groups][:3] == ["c: cnn", "b: cnn", "a: cnn"]
    assert any("d: cnn answered for other test galaxies than c: cnn" in caution for caution in page.cautions)


def test_runs_of_other_objectives_are_not_ordered_by_a_score(tmp_path: Path) -> None:
    make_run(tmp_path / "a", ("cnn", 300, 0.6), name="a")
    make_run(tmp_path / "b", ("cnn", 390, 0.3), name="b", objective="accuracy", direction="max")
    page = page_of([read_run(tmp_path / name) for name in "ab"])
    assert "different objectives, so none leads" in page.answer[0]
    assert "different objectives" in page.sections[0].blocks[0].text
    table = page.sections[0].blocks[1]
    assert [header for header, _ in table.groups][:2] == ["a: cnn", "b: cnn"]


def test_runs_of_one_name_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / name, ("cnn", 300, 0.6))) for name in "ab"]
    assert run_labels(runs) == [(tmp_path / "a").as_posix(), (tmp_path / "b").as_posix()]


def test_the_command_writes_one_report_or_a_joint_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, name in enumerate("ab"):
        make_run(tmp_path / name, ("cnn", 300 + 50 * place, 0.6 - 0.1 * place), name=name)
    assert main([str(tmp_path / "a")]) == 0
    assert (tmp_path / "a" / "report" / "report.html").is_file()
    assert main([str(tmp_path / "a"), "--out", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere" / "best_configs.json").is_file()
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    joint = tmp_path / "joint-report"
    assert {path.name for path in joint.iterdir()} == {
        "report.html", "report.md", "figures", "scores.csv", "costs.csv", "pairs.csv"
    }  # fmt: skip
    scores = pd.read_csv(joint / "scores.csv").set_index(["backbone", "split", "score"])["value"]
    assert scores["b: cnn", "test", "accuracy"] == 350 / 400
    assert re.search(r"b: cnn .*a: cnn", (joint / "report.md").read_text())
    assert f"report: {joint / 'report.html'}" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_a_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "expected the folder of a run" in capsys.readouterr().err
