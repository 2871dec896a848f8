"""Writes a report's files: everything is made first, then each file is replaced in one step."""

import base64
import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from search.report import numbers
from search.report.blocks import Figure, Figures, Gallery, Page, Thumbnail
from search.report.comparable import judge
from search.report.findings import Findings
from search.report.markdown import PICTURES, render_markdown
from search.report.page import build_page
from search.report.source import read_run
from search.report.tables.configs import as_json, best_configs

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "report"
TEMPLATE = "report.html.j2"
SCRIPT = "sort.js"


def write_report(run_dir: Path) -> Path:
    """Write the report of a run from what is in its folder, at any time.

    The files are `report.html`; `report.md` with its pictures in `figures`; `best_configs.json`; `trials.parquet` and
    `curves.parquet`; and the tables of `numbers.all_tables`, as CSV. The same folder gives the same bytes.
    A report that is there already stays whole until its files are replaced.

    Args:
        run_dir: the run's folder; the files go into its folder `report`.

    Returns:
        Path of `report.html`.

    Raises:
        RunError: the folder is no run, or what is in it is damaged.
    """
    return write_findings(read_run(run_dir))


def write_findings(findings: Findings, folder: Path | None = None) -> Path:
    """Write the report of what was read; see `write_report`.

    Args:
        findings: the run.
        folder: where the files go; None = the run's folder `report`.
    """
    folder = folder or findings.run_dir / FOLDER
    configs = best_configs(findings, path=folder / "best_configs.json")
    judged = judge(findings)
    page = build_page(findings, judged=judged, configs=configs)
    files = {
        "trials.parquet": _parquet(findings.trials.table),
        "curves.parquet": _parquet(findings.trials.curves),
        **{f"{name}.csv": csv_bytes(table) for name, table in numbers.all_tables(findings, judged).items()},
        "best_configs.json": _encoded(as_json(configs)),
    }
    return write_page(folder, page, files)


def write_page(folder: Path, page: Page, files: dict[str, bytes]) -> Path:
    """Write a page as HTML and Markdown with its pictures, and other files beside it.

    Returns:
        Path of the HTML.
    """
    pictures = {
        **{f"{figure.key}.svg": _encoded(_standalone(figure)) for figure in _figures(page)},
        **{f"{figure.key}.png": figure.png for figure in _figures(page)},
        **{f"{one.key}.png": one.png for one in _thumbnails(page)},
    }
    files = {
        **files,
        **{f"{PICTURES}/{name}": content for name, content in pictures.items()},
        "report.md": _encoded(render_markdown(page)),
        "report.html": _encoded(render_html(page)),
    }
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        _replace(folder / name, content)
    for path in (folder / PICTURES).iterdir():
        # Of an earlier report, which had more to show.
        if path.name not in pictures:
            path.unlink()
    return folder / "report.html"


def render_html(page: Page) -> str:
    """The page as one HTML file that needs nothing else; all text is escaped by the template engine.

    The only script that the page lets run is our own, which sorts tables; it is known by its digest.
    """
    import jinja2

    folder = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_unbroken,
    )  # fmt: skip
    script = (folder / SCRIPT).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(TEMPLATE).render(page=page, script=script, script_digest=f"sha256-{digest}")


def _unbroken(value: object) -> object:
    """Text whose per cent signs stay with their numbers."""
    return value.replace(" %", "\N{NO-BREAK SPACE}%") if isinstance(value, str) else value


def _figures(page: Page) -> list[Figure]:
    blocks = [block for section in page.sections for block in section.blocks]
    return [figure for block in blocks if isinstance(block, Figures) for figure in block.items]


def _thumbnails(page: Page) -> list[Thumbnail]:
    blocks = [block for section in page.sections for block in section.blocks]
    return [one for block in blocks if isinstance(block, Gallery) for _, items in block.rows for one in items]


def _standalone(figure: Figure) -> str:
    return figure.svg.replace("<svg ", '<svg style="background: #fff" ', 1)


def _encoded(text: str) -> bytes:
    # A file name that is not UTF-8 reaches us as lone surrogates: show them escaped rather than fail.
    return text.encode("utf-8", "backslashreplace")


def _parquet(table: "pd.DataFrame") -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def csv_bytes(table: "pd.DataFrame") -> bytes:
    """A table as a file."""
    return _encoded(table.to_csv(index=False, lineterminator="\n"))


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files that only their owner can read; a report is to be shared.
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
