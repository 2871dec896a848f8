"""Writes a report's files: everything is made first, then each file is replaced in one step."""

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.report.blocks import Figure, Figures, Page
from search.report.collect import FinalEvaluation, RunInfo, collect
from search.report.markdown import render_markdown
from search.report.page import build_page
from search.report.tables import as_json, best_configs

if TYPE_CHECKING:
    import optuna
    import pandas as pd

TEMPLATE = "report.html.j2"


def write_report(
    run_dir: Path, studies: "Sequence[optuna.Study]", finals: dict[str, FinalEvaluation], info: RunInfo
) -> Path:
    """Write `report.html`, `report.md` with its pictures, `best_configs.json`, `trials.parquet`, `curves.parquet`.

    The same inputs give the same bytes. A report that is there already stays whole until its files are replaced.

    Args:
        run_dir: the run's folder; the files go into its folder `report`.
        studies: one for each space; finished or not, with or without trials.
        finals: by the backbone's display name; a backbone may be missing.
        info: the run.

    Returns:
        Path of `report.html`.
    """
    folder = run_dir / "report"
    trials = collect(studies)
    configs = best_configs(trials, finals, info, path=folder / "best_configs.json")
    page = build_page(trials, finals, info, configs=configs)
    files = {
        "trials.parquet": _parquet(trials.table),
        "curves.parquet": _parquet(trials.curves),
        "best_configs.json": _encoded(as_json(configs)),
        **{f"{figure.key}.svg": _encoded(_standalone(figure)) for figure in _figures(page)},
        "report.md": _encoded(render_markdown(page)),
        "report.html": _encoded(render_html(page)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        _replace(folder / name, content)
    return folder / "report.html"


def render_html(page: Page) -> str:
    """The page as one HTML file that needs nothing else; all text is escaped by the template engine."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(TEMPLATE).render(page=page)


def _figures(page: Page) -> list[Figure]:
    blocks = [block for section in page.sections for block in section.blocks]
    return [figure for block in blocks if isinstance(block, Figures) for figure in block.items]


def _standalone(figure: Figure) -> str:
    return figure.svg.replace("<svg ", '<svg style="background: #fff" ', 1)


def _encoded(text: str) -> bytes:
    # A file name that is not UTF-8 reaches us as lone surrogates: show them escaped rather than fail.
    return text.encode("utf-8", "backslashreplace")


def _parquet(table: "pd.DataFrame") -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


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
