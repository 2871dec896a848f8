"""How the report's pictures look: SVG that takes its colours and font from the page, and the same as PNG.

Matplotlib draws with the colours of paper. In the SVG each becomes a CSS variable with that colour as a fallback, so it
follows light, dark and print.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from search.report.blocks import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Series colours follow Okabe and Ito (2008), which readers with any colour vision tell apart; its pale ones are
# darkened to be seen on paper.
INK, QUIET, GRID = "#1c1b19", "#8a857d", "#dedad3"
SERIES = ("#0072b2", "#d55e00", "#00805f", "#b0568b", "#45423d", "#946a00")
THEME = {INK: "ink", QUIET: "quiet", GRID: "grid", **{color: f"series-{i}" for i, color in enumerate(SERIES)}}
LINE_STYLES = ("-", "--", "-.", (0, (1, 1.2)), (0, (7, 1.5, 1, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P")
SIZE_INCHES = (5.4, 3.3)
PNG_DPI = 110
# A picture above this width gets that of the page.
WIDE_INCHES = 7.7
# Shares of a single picture's width and height that axis labels need.
MARGINS = {"left": 0.125, "right": 0.975, "bottom": 0.145, "top": 0.965}

_STYLE: Any = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 10, "axes.unicode_minus": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK, "axes.labelcolor": INK,
    "text.color": INK, "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.7, "axes.grid": True,
    "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "font.family": "DejaVu Sans", "path.simplify": False, "axes.titlesize": 10, "axes.titlecolor": INK,
}  # fmt: skip


def series(index: int) -> str:
    """Colour of a backbone, by its place among the studies."""
    return SERIES[index % len(SERIES)]


def dashes(index: int) -> Any:
    """Line style of a backbone."""
    return LINE_STYLES[index % len(LINE_STYLES)]


def marker(index: int) -> str:
    """Marker of a backbone."""
    return MARKERS[index % len(MARKERS)]


def clipped(name: str, length: int = 30) -> str:
    """A name that leaves room for the drawing."""
    ahead = round(0.6 * length)
    return name if len(name) <= length else f"{name[:ahead]}…{name[ahead + 1 - length :]}"


@contextmanager
def canvas(*, inches: tuple[float, float] = SIZE_INCHES, layout: Any = None) -> "Iterator[Canvas]":
    """An empty figure in the report's style; draw and call `finished` inside the block.

    Args:
        inches: width and height.
        layout: `constrained` fits the margins to what is drawn, and takes as long again as drawing; None = `MARGINS`.
    """
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser draws the text, with fonts of its own: what DejaVu Sans lacks only costs a little spacing.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Canvas(figsize=inches, layout=layout)
        if layout is None:
            figure.subplots_adjust(**MARGINS)
        yield figure


@contextmanager
def single_axes() -> "Iterator[Axes]":
    """The axes of a figure that has one."""
    with canvas() as figure:
        yield figure.add_subplot()


def finished(figure: Any, key: str, *, title: str, text: str) -> Figure:
    """Save what was drawn.

    Args:
        figure: a figure, or the only axes of one.
        key: name of its file.
        title: what it shows, with units.
        text: the same in words.
    """
    import matplotlib

    drawn = figure.get_figure(root=True)
    svg, png = io.StringIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": f"galaxy-{key}"}):
        drawn.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn.savefig(png, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    wide = drawn.get_figwidth() > WIDE_INCHES
    return Figure(key, title, _themed(svg.getvalue()), text, png.getvalue(), wide=wide)


def _themed(text: str) -> str:
    """The SVG element, without ids of its own that could meet another figure's."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: var(--sans, sans-serif)")
    for length in ("width", "height"):
        text = re.sub(rf'(<svg\b[^>]*?) {length}="[^"]*"', r"\1", text, count=1)
    text = re.sub("|".join(THEME), lambda found: f"var(--{THEME[found[0]]}, {found[0]})", text)
    return re.sub(r"\n\s*\n+", "\n", text).strip() + "\n"
