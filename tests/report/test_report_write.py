"""The files of a report: complete, harmless, the same each time, and quick."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from final_samples import answer_classes, sample_targets, write_exact, write_final, write_run_json
from optuna.trial import TrialState
from report_samples import make_findings, make_study, make_trial, parse_svg, random_search, write_journal

from galaxy_models.task import Task
from search.errors import RunError
from search.report import write, write_report
from search.report.markdown import escape
from search.report.source import read_run
from search.report.write import write_findings

NASTY = "<script>alert(1)</script>|\"'`*\n# x & \\ $y$"
FILES = {
    "report.html", "report.md", "best_configs.json", "trials.parquet", "curves.parquet", "scores.csv", "costs.csv",
    "time.csv", "classes.csv", "pairs.csv", "selection.csv", "questions.csv", "confusion.csv",
    "calibration.csv", "importances.csv", "transfer.csv", "figures",
}  # fmt: skip


class Reader(HTMLParser):
    """Collects the elements, their attributes and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def make_run(run_dir: Path, *, num_trials: int = 30, **record: Any) -> Path:
    """A finished search of two backbones, each trained again with two seeds."""
    studies = [random_search(name, num_trials=num_trials, level=0.4, seed=i) for i, name in enumerate(("cnn", "vgg16"))]
    write_journal(write_run_json(run_dir, **record), *studies)
    targets = sample_targets()
    for study, skill in zip(studies, (2.6, 2.0), strict=True):
        for seed in range(2):
            outputs, averaged = (answer_classes(targets, skill=skill + more, seed=seed) for more in (0.0, 0.4))
            name, trial = study.user_attrs["backbone"], study.best_trial.number
            write_final(run_dir, name, targets, outputs, averaged=averaged, seed_index=seed, trial=trial)
    return run_dir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run_dir: Path) -> Path:
    return write_report(run_dir).parent


def test_the_report_has_all_its_files_and_no_other(report: Path) -> None:
    assert {path.name for path in report.iterdir()} == FILES
    pictures = {path.name for path in (report / "figures").iterdir()}
    keys = {"progress", "curves-0", "curves-1", "importance", "slices-0", "parallel-1", "confusion-0", "cost-flops"}
    assert {f"{key}.{kind}" for key in keys for kind in ("svg", "png")} <= pictures
    markdown = (report / "report.md").read_text()
    assert set(re.findall(r"\]\(figures/([^)]*)\)", markdown)) == {name for name in pictures if name.endswith("png")}
    for name in pictures:
        if name.endswith("svg"):
            assert parse_svg((report / "figures" / name).read_text()).tag.endswith("svg")


def test_pictures_of_an_earlier_report_go(run_dir: Path, report: Path) -> None:
    stale = report / "figures" / "mistake-9-9.png"
    stale.write_bytes(b"")
    write_report(run_dir)
    assert not stale.exists()


def test_the_page_needs_no_network_and_runs_no_code_but_its_own(report: Path) -> None:
    html = (report / "report.html").read_text()
    page = Reader(html)
    assert not {"iframe", "object", "base"} & set(page.tags)
    assert page.tags.count("script") == 1
    script = html[html.index("<script>") + 8 : html.index("</script>")]
    assert script == (Path(write.__file__).parent / write.SCRIPT).read_text()
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert policy.startswith("default-src 'none'")
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert links
    assert all(value.startswith(("#", "data:")) for value in links)
    assert "@import" not in html


def test_the_page_can_be_read_without_seeing_it(report: Path) -> None:
    page = Reader((report / "report.html").read_text())
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = [value for name, value in page.attributes if name in ("aria-labelledby", "aria-describedby")]
    assert set(named) <= set(ids)
    assert ("lang", "en") in page.attributes
    assert page.attributes.count(("role", "img")) == page.tags.count("svg") > 10
    assert re.search(r"cnn: 0\.\d{4} after 1 epoch, 0\.\d{4} after \d+\.", page.text)


def test_html_and_markdown_tell_the_same_numbers(report: Path) -> None:
    text, markdown = Reader((report / "report.html").read_text()).text, (report / "report.md").read_text()
    numbers = set(re.findall(r"\b\d+\.\d{3,4}\b", text[text.index("Galaxy Search") : text.index('"use strict"')]))
    assert len(numbers) > 50
    assert not [number for number in numbers if number not in markdown]


def test_sections_come_in_the_order_of_the_questions(report: Path) -> None:
    found = re.findall(r"^## (.*)", (report / "report.md").read_text(), flags=re.MULTILINE)
    assert found == [
        "Comparison", "Accuracy and cost", "Which differ", "Class by class", "Calibration", "What mattered",
        "Where time and energy went", "What stopped and what failed", "Best configurations", "The survey",
        "How to reproduce it",
    ]  # fmt: skip


def test_tables_beside_the_page_have_every_trial_epoch_and_score(report: Path) -> None:
    study = random_search("cnn", num_trials=30, level=0.4, seed=0)
    trials, curves = pd.read_parquet(report / "trials.parquet"), pd.read_parquet(report / "curves.parquet")
    own = trials[trials["backbone"] == "cnn"]
    assert own["param_depth"].tolist() == [trial.params["depth"] for trial in study.trials]
    told = [(trial.number, epoch) for trial in study.trials for epoch in trial.intermediate_values]
    own = curves[curves["backbone"] == "cnn"]
    assert list(zip(own["trial"], own["epoch"], strict=True)) == told
    scores = pd.read_csv(report / "scores.csv").set_index(["backbone", "split", "score"])
    html = Reader((report / "report.html").read_text()).text
    row = scores.loc[("vgg16", "test", "accuracy")]
    assert f"{row['value']:.3f} ± {row['spread_over_seeds']:.3f} {row['low']:.3f}\N{EN DASH}{row['high']:.3f}" in html
    assert ("cnn", "test", "recall:edge_on") in scores.index
    assert len(pd.read_csv(report / "pairs.csv")) == 1
    importances = pd.read_csv(report / "importances.csv")
    assert importances.groupby("backbone")["importance"].sum().tolist() == pytest.approx([1.0, 1.0])
    assert not pd.read_csv(report / "selection.csv")["in_search"].isna().any()


def test_the_same_inputs_give_the_same_bytes(run_dir: Path, report: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(path.relative_to(report)): path.read_bytes() for path in report.rglob("*") if path.is_file()}

    before = contents()
    write_report(run_dir)
    assert contents() == before


def test_reading_a_run_leaves_no_trace(run_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if "report" not in path.parts}
    run_dir.chmod(0o555)
    read_run(run_dir)
    run_dir.chmod(0o755)
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if "report" not in path.parts} == before


def test_a_search_that_is_writing_is_reported(tmp_path: Path) -> None:
    study = make_study("cnn", [make_trial([0.5, 0.4]), make_trial([0.6], state=TrialState.RUNNING, reason=None)])
    write_journal(write_run_json(tmp_path, sessions=[{"command": "python"}]), study)
    with (tmp_path / "study.journal").open("ab") as file:
        file.write(b'{"op_code":8,"worker_id":"half a li')
    (tmp_path / "final" / "cnn" / "config-0-seed-0").mkdir(parents=True)
    text = Reader(write_report(tmp_path).read_text()).text
    assert "This search is not finished: 1 trial has not ended" in text
    assert "No backbone has been evaluated on the test split yet" in text


def test_the_seeds_there_are_make_the_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, num_trials=12)
    for path in (run / "final" / "vgg16").glob("*/result.json"):
        path.unlink()
    text = Reader(write_report(run).read_text()).text
    assert "No final evaluation of vgg16" in text
    assert "cnn classifies" in text


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda run: (run / "study.journal").unlink(), r"study\.journal: no such file"),
        (lambda run: (run / "run.json").unlink(), r"found no run\.json"),
        (
            lambda run: next(run.glob("final/*/*/result.json")).write_text("{}"),
            "damaged .KeyError: .metrics.*result of a final",
        ),
    ],
)
def test_a_damaged_run_is_named(tmp_path: Path, harm: Any, message: str) -> None:
    run = make_run(tmp_path, num_trials=12)
    harm(run)
    with pytest.raises(RunError, match=message):
        write_report(run)


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    params: dict[str, Any] = {"depth": 1}
    failed = make_trial([math.nan], state=TrialState.FAIL, reason=NASTY, params=params)
    study = make_study(NASTY, [make_trial([0.5], params=params), failed])
    task = Task("classes", (NASTY, "b", "c"))
    targets = sample_targets()
    outputs = answer_classes(targets, skill=1.0, seed=1)
    run = write_final(tmp_path, "plain", targets, outputs, task=task)
    result = run.folder(tmp_path) / "result.json"
    result.write_text(result.read_text().replace('"plain"', json.dumps(NASTY)))
    findings = make_findings(
        tmp_path, [study], name=NASTY, survey=NASTY, task=task, command=NASTY + "```", data=NASTY,
        versions={NASTY: NASTY}, notes=(NASTY,), survey_digest=NASTY, sampler=NASTY, spaces={NASTY: NASTY},
    )  # fmt: skip
    html = write_findings(findings)
    page = Reader(html.read_text())
    assert page.tags.count("script") == 1
    assert page.text.count("<script>alert(1)</script>") >= 10
    markdown = re.sub(r"^(`{3,})\n.*?^\1$", "", (html.parent / "report.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in markdown
    for block in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_markdown_text_is_escaped_once() -> None:
    assert escape("a|b\nc <i> *d*") == r"a\|b c &lt;i&gt; \*d\*"
    assert escape("# title") == r"\# title"


@pytest.mark.parametrize(
    "trials",
    [None, [], [make_trial([], state=TrialState.FAIL, config=None)], [make_trial([0.5], state=TrialState.FAIL)]],
)
def test_a_search_that_found_nothing_has_a_page_that_says_so(tmp_path: Path, trials: list[Any] | None) -> None:
    studies = [] if trials is None else [make_study("cnn", trials)]
    html = write_findings(make_findings(tmp_path, studies))
    assert "nothing to compare" in Reader(html.read_text()).text
    configs = json.loads((html.parent / "best_configs.json").read_text())
    assert set(configs) <= {"cnn"}


def test_a_one_epoch_search_for_votes_can_be_drawn(tmp_path: Path) -> None:
    task = Task("votes", ("Class1.1", "Class1.2"))
    targets = sample_targets()[:, None].repeat(2, axis=1).astype("float32") / 2
    write_final(tmp_path, "cnn", targets, targets + 0.10123, task=task)
    study = make_study("cnn", [make_trial([0.5])])
    findings = make_findings(tmp_path, [study], task=task, class_counts={}, objective="rmse", max_epochs=1, rungs=())
    text = Reader(write_findings(findings).read_text()).text
    assert "cnn predicts vote fractions with an RMSE of 0.1012" in text
    assert "Galaxies of each class" not in text


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study("cnn", [make_trial([0.5])])
    html = write_findings(make_findings(tmp_path, [study]))
    before = {path: path.read_bytes() for path in html.parent.rglob("*") if path.is_file()}

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_findings(make_findings(tmp_path, [study], survey="other"))
    assert {path: path.read_bytes() for path in html.parent.rglob("*") if path.is_file()} == before


def test_the_page_of_a_thousand_trials_is_small(tmp_path: Path) -> None:
    studies = [random_search(name, num_trials=200, level=0.4, seed=i) for i, name in enumerate("abcde")]
    write_journal(write_run_json(tmp_path), *studies)
    for place, name in enumerate("abcde"):
        write_exact(tmp_path, name, 350 - 10 * place, nll=0.4 + place, shift=10 * place)
    html = write_report(tmp_path)
    assert html.stat().st_size < 4_000_000
    assert len(pd.read_parquet(html.parent / "trials.parquet")) == 1000


def test_nan_never_reaches_the_page(report: Path) -> None:
    text = Reader((report / "report.html").read_text()).text
    assert not re.search(r"\bnan\b|\binf\b", text[: text.index('"use strict"')], flags=re.IGNORECASE)


def test_the_template_and_the_script_are_part_of_the_package() -> None:
    folder = Path(write.__file__).parent
    assert (folder / write.TEMPLATE).is_file()
    assert (folder / write.SCRIPT).is_file()
