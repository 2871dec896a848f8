"""The report in a browser: nothing is wider than a phone, and the console stays silent."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from final_samples import answer_classes, sample_targets, write_final
from report_samples import make_findings, random_search

from galaxy_models.task import Task
from search.report.write import write_findings

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr",
)  # fmt: skip
# The page lets no script run but its own; only a copy without that rule can be asked for its width.
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
MEASURE = "<script>document.title = [document.documentElement.scrollWidth, innerWidth].join(' of ')</script>"
# Sorts the first table by accuracy, twice, with the keyboard's click, and tells what it says after each.
SORT = """<script>
const table = document.querySelector("table.sortable");
const button = [...table.querySelectorAll("th button")].find((one) => one.textContent === "Accuracy");
const said = [];
for (let i = 0; i < 2; i++) {
  button.focus();
  document.activeElement.click();
  said.push(button.parentElement.getAttribute("aria-sort"));
  said.push([...table.tBodies].map((body) => body.rows[0].cells[0].textContent.slice(0, 6)).join("|"));
}
document.title = said.join(" ; ");
</script>"""


def open_page(html: Path, *, width_px: int, profile: Path) -> tuple[str, str]:
    """The page's elements after loading, and what the browser's console said."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: install it to see the report in a browser")
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width_px},800", "--dump-dom"]
    done = subprocess.run([*command, html.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two backbones of long names; the worse on validation is the better on test."""
    run_dir = tmp_path_factory.mktemp("run")
    names = ["timm:a_backbone_with_a_name_as_long_as_those_of_timm_" + letter * 60 for letter in "xy"]
    task = Task("classes", ("y" * 80, "a class with many words in its name, as some have", "round"))
    targets = sample_targets()
    for place, name in enumerate(names):
        outputs = answer_classes(targets, skill=2.0 + place, seed=1)
        write_final(run_dir, f"{place} {name}", targets, outputs, task=task)
    studies = [random_search(f"{place} {name}", num_trials=30, level=0.4, seed=1) for place, name in enumerate(names)]
    return write_findings(make_findings(run_dir, studies, task=task, command="python " + "z" * 200, survey="w" * 80))


@pytest.mark.parametrize("width_px", [390, 1280])
def test_long_names_do_not_make_the_page_wider_than_the_screen(html: Path, tmp_path: Path, width_px: int) -> None:
    copy = tmp_path / "copy.html"
    copy.write_text(POLICY.sub("", html.read_text()).replace("</body>", f"{MEASURE}</body>"))
    dom, _ = open_page(copy, width_px=width_px, profile=tmp_path / "profile")
    widths = re.search(r"<title>(\d+) of (\d+)</title>", dom)
    assert widths is not None
    assert int(widths[1]) <= int(widths[2]) <= max(width_px, 500)  # a window is no narrower than 500 px


def test_the_console_stays_silent(html: Path, tmp_path: Path) -> None:
    dom, console = open_page(html, width_px=1280, profile=tmp_path / "profile")
    assert "How to reproduce it" in dom
    assert console == ""


def test_the_page_runs_no_script_even_if_one_got_in(html: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.html"
    copy.write_text(html.read_text().replace("</body>", f"{MEASURE}</body>"))
    dom, console = open_page(copy, width_px=1280, profile=tmp_path / "profile")
    assert "Galaxy Search: evening</title>" in dom
    assert "Content Security Policy" in console


def test_tables_sort_by_a_heading_that_the_keyboard_reaches(html: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.html"
    copy.write_text(POLICY.sub("", html.read_text()).replace("</body>", f"{SORT}</body>"))
    dom, _ = open_page(copy, width_px=1280, profile=tmp_path / "profile")
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    # The baseline always answers the first class: 60 %, below both.
    assert title[1] == "descending ; 1 timm|0 timm|Always ; ascending ; Always|0 timm|1 timm"


def test_the_pages_own_script_may_run(html: Path, tmp_path: Path) -> None:
    dom, console = open_page(html, width_px=1280, profile=tmp_path / "profile")
    assert '<button type="button">Accuracy</button>' in dom
    assert console == ""
