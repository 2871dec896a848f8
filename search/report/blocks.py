"""The page as data, so that HTML and Markdown say the same: sections of paragraphs, tables, figures and code."""

import base64
import math
from dataclasses import dataclass
from typing import ClassVar

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Table:
    """A table whose rows are grouped under a header in the first column.

    Attributes:
        caption: what the table shows.
        columns: headings; the first is that of the groups.
        groups: each group's header and its rows, which hold a cell for every other column. After a line break, a cell
            may have a second line, such as an interval.
        text_columns: how many columns after the first hold words; the rest hold numbers.
        strong: the row of each group, from 0, that counts, and by which groups are sorted; None = all alike.
        note: how to read it.
        folded: only some readers want it.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    text_columns: int = 0
    strong: int | None = None
    note: str = ""
    folded: bool = False

    @property
    def sortable(self) -> bool:
        """Whether there is something to sort."""
        return len(self.groups) > 1 and all(self.columns)


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        key: name of its file, without ending; letters, digits and dashes.
        title: what it shows, with units.
        svg: the drawing, which takes its colours from the page.
        text: the same in words, for who cannot see it.
        png: the drawing in the colours of paper, for where SVG cannot be shown.
        wide: it needs the width of the page.
    """

    key: str
    title: str
    svg: str
    text: str
    png: bytes = b""
    wide: bool = False


@dataclass(frozen=True)
class Figures:
    """Pictures to be read side by side; with a `summary` they are folded under it."""

    kind: ClassVar[str] = "figures"
    items: tuple[Figure, ...]
    summary: str = ""


@dataclass(frozen=True)
class Thumbnail:
    """A galaxy.

    Attributes:
        key: name of its file, without ending.
        png: the image.
        text: which galaxy it is, and what was answered.
    """

    key: str
    png: bytes
    text: str

    @property
    def uri(self) -> str:
        """The image inside the page."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Gallery:
    """Galaxies in rows, each with its heading."""

    kind: ClassVar[str] = "gallery"
    caption: str
    rows: tuple[tuple[str, tuple[Thumbnail, ...]], ...]
    note: str = ""


@dataclass(frozen=True)
class Code:
    """Text to be copied; `folded` where only some readers want it."""

    kind: ClassVar[str] = "code"
    caption: str
    text: str
    folded: bool = False


Block = Paragraph | Table | Figures | Gallery | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title: of the page.
        subtitle: the run at a glance.
        answer: one to three sentences that say what was found.
        cautions: what the reader has to keep in mind, a sentence each.
        sections: the evidence.
    """

    title: str
    subtitle: str
    answer: tuple[str, ...]
    cautions: tuple[str, ...]
    sections: tuple[Section, ...]


def decimal(value: float, digits: int = 3) -> str:
    """A number with a fixed count of digits after the point; a dash for NaN and infinities."""
    return f"{value:.{digits}f}" if math.isfinite(value) else DASH


def significant(value: float, digits: int = 3) -> str:
    """A number with a fixed count of significant digits, such as `0.00457` or `15.5`; a dash for NaN and infinities."""
    if not math.isfinite(value):
        return DASH
    places = digits - 1 - (math.floor(math.log10(abs(value))) if value else 0)
    return f"{value:,.{max(places, 0)}f}"


def percent(value: float) -> str:
    """A fraction as a percentage with one digit after the point."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else DASH


def interval(low: float, high: float, digits: int = 3) -> str:
    """An interval of positive numbers; empty if it is unknown."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{low:.{digits}f}{DASH}{high:.{digits}f}" if known else ""


def percent_interval(low: float, high: float) -> str:
    """An interval of fractions as percentages; empty if it is unknown."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"{100 * low:.1f} to {100 * high:.1f} %" if known else ""


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", MINUS) if math.isfinite(value) else DASH


def p_value(value: float) -> str:
    """A p-value, as exactly as it is worth."""
    if not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def whole(value: float) -> str:
    """A whole number with thousands separated."""
    return f"{value:,.0f}" if math.isfinite(value) else DASH


def duration(seconds: float) -> str:
    """A time span in its two largest units, such as `2 h 5 min`."""
    if not math.isfinite(seconds):
        return DASH
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    large, small = ((total // 60, "min"), (total % 60, "s"))
    if total >= 3600:
        large, small = ((total // 3600, "h"), (total % 3600 // 60, "min"))
    return " ".join(f"{number:,} {unit}" for number, unit in (large, small) if number)


def counted(number: int, noun: str) -> str:
    """A count with its noun, such as `1 trial` or `1,000 trials`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(items: tuple[str, ...]) -> str:
    """Words as an English list."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
