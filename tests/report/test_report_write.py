"""The files of a report: complete, harmless, the same each time, and quick."""

import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from optuna.trial import TrialState
from report_samples import make_final, make_info, make_study, make_trial, parse_svg, random_search

from galaxy_models.task import Task
from search.report import write, write_report
from search.report.markdown import escape

NASTY = "<script>alert(1)</script>|\"'`*\n# x & \\ $y$"
FILES = {"report.html", "report.md", "best_configs.json", "trials.parquet", "curves.parquet"}


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


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study, other = random_search("resnet50", num_trials=30, level=0.4, seed=1), make_study("vgg16", [])
    finals = {"resnet50": make_final("resnet50", trial=study.best_trial.number)}
    return write_report(tmp_path_factory.mktemp("run"), [study, other], finals, make_info()).parent


def test_the_report_has_all_its_files_and_no_other(report: Path) -> None:
    pictures = {"progress.svg", "curves-0.svg"}
    assert {path.name for path in report.iterdir()} == FILES | pictures
    for name in pictures:
        assert parse_svg((report / name).read_text()).tag.endswith("svg")
        assert f"]({name})" in (report / "report.md").read_text()


def test_the_page_needs_no_network_and_runs_no_code(report: Path) -> None:
    page = Reader((report / "report.html").read_text())
    assert not {"script", "iframe", "object", "img", "base"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("href", "src", "xlink:href")]
    assert links
    assert all(value.startswith(("#", "data:")) for value in links)
    assert "@import" not in (report / "report.html").read_text()


def test_the_page_can_be_read_without_seeing_it(report: Path) -> None:
    page = Reader((report / "report.html").read_text())
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    named = [value for name, value in page.attributes if name in ("aria-labelledby", "aria-describedby")]
    assert set(named) <= set(ids)
    assert ("lang", "en") in page.attributes
    assert page.attributes.count(("role", "img")) == page.tags.count("svg") == 2
    assert re.search(r"resnet50: 0\.\d{4} after 1 epoch, 0\.\d{4} after \d+\.", page.text)


def test_html_and_markdown_tell_the_same_numbers(report: Path) -> None:
    text, markdown = Reader((report / "report.html").read_text()).text, (report / "report.md").read_text()
    numbers = set(re.findall(r"\b\d+\.\d{3,4}\b", text[text.index("Galaxy Search") :]))
    assert len(numbers) > 10
    assert not [number for number in numbers if number not in markdown]


def test_parquet_has_every_trial_and_epoch(report: Path) -> None:
    study = random_search("resnet50", num_trials=30, level=0.4, seed=1)
    trials, curves = pd.read_parquet(report / "trials.parquet"), pd.read_parquet(report / "curves.parquet")
    assert trials["param_depth"].tolist() == [trial.params["depth"] for trial in study.trials]
    told = [(trial.number, epoch) for trial in study.trials for epoch in trial.intermediate_values]
    assert list(zip(curves["trial"], curves["epoch"], strict=True)) == told


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        studies = [random_search("cnn", num_trials=10, level=0.4, seed=1)]
        folder = write_report(tmp_path, studies, {"cnn": make_final("cnn")}, make_info()).parent
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert contents() == contents()


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    params: dict[str, Any] = {"depth": 1}
    failed = make_trial([math.nan], state=TrialState.FAIL, reason=NASTY, params=params)
    study = make_study(NASTY, [make_trial([0.5], params=params), failed])
    info = make_info(
        name=NASTY, survey=NASTY, task=Task("classes", (NASTY, "b", "c")), command=NASTY + "```", data=NASTY,
        versions={NASTY: NASTY}, notes=(NASTY,), survey_digest=NASTY,
    )  # fmt: skip
    html = write_report(tmp_path, [study], {NASTY: make_final(NASTY, weights_file=NASTY)}, info)
    page = Reader(html.read_text())
    assert "script" not in page.tags
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
    html = write_report(tmp_path, studies, {}, make_info())
    assert "nothing to compare" in Reader(html.read_text()).text
    configs = json.loads((html.parent / "best_configs.json").read_text())
    assert set(configs) <= {"cnn"}


def test_a_one_epoch_search_for_votes_at_a_maximum_can_be_drawn(tmp_path: Path) -> None:
    info = make_info(
        task=Task("votes", ("Class1.1", "Class1.2")), class_counts={}, objective="rmse", max_epochs=1, rungs=()
    )
    study = make_study("cnn", [make_trial([0.5])])
    final = make_final("cnn", metrics={"test": {"rmse": 0.10123}})
    text = Reader(write_report(tmp_path, [study], {"cnn": final}, info).read_text()).text
    assert "a test RMSE of 0.1012" in text
    assert "Galaxies of each class" not in text


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study("cnn", [make_trial([0.5])])
    html = write_report(tmp_path, [study], {}, make_info())
    before = {path.name: path.read_bytes() for path in html.parent.iterdir()}

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_report(tmp_path, [study], {}, make_info(survey="other"))
    assert {path.name: path.read_bytes() for path in html.parent.iterdir()} == before


def test_a_thousand_trials_are_reported_in_ten_seconds(tmp_path: Path) -> None:
    studies = [random_search(name, num_trials=200, level=0.4, seed=i) for i, name in enumerate("abcde")]
    start = time.perf_counter()
    html = write_report(tmp_path, studies, {}, make_info())
    assert time.perf_counter() - start < 10
    assert html.stat().st_size < 2_000_000


def test_nan_never_reaches_the_page(report: Path) -> None:
    assert not re.search(r"\bnan\b|\binf\b", Reader((report / "report.html").read_text()).text, flags=re.IGNORECASE)


def test_the_template_is_part_of_the_package() -> None:
    assert (Path(write.__file__).parent / write.TEMPLATE).is_file()
