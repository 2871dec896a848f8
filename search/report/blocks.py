"""The page as data, so that HTML and Markdown say the same: sections of paragraphs, tables, figures and code."""

import math
from dataclasses import dataclass
from typing import ClassVar

DASH = "\N{EN DASH}"


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
        groups: each group's header and its rows, which hold a cell for every other column.
        text_columns: how many columns after the first hold words; the rest hold numbers.
        strong_last: the last row of each group is what counts.
        note: how to read it.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]
    text_columns: int = 0
    strong_last: bool = False
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        key: name of its file, without ending; letters, digits and dashes.
        title: what it shows, with units.
        svg: the drawing, which takes its colours from the page.
        text: the same in words, for who cannot see it.
    """

    key: str
    title: str
    svg: str
    text: str


@dataclass(frozen=True)
class Figures:
    """Pictures to be read side by side."""

    kind: ClassVar[str] = "figures"
    items: tuple[Figure, ...]


@dataclass(frozen=True)
class Code:
    """Text to be copied; `folded` where only some readers want it."""

    kind: ClassVar[str] = "code"
    caption: str
    text: str
    folded: bool = False


Block = Paragraph | Table | Figures | Code


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


def percent(value: float) -> str:
    """A fraction as a percentage with one digit after the point."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else DASH


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
