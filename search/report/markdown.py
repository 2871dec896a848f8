"""The page as GitHub-flavoured Markdown."""

import re

from search.report.blocks import Block, Code, Figures, Gallery, Page, Paragraph, Table

# Folder of the pictures, beside the page.
PICTURES = "figures"
_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: str) -> str:
    """Text that reads as itself in a paragraph or a table's cell: no markup, no HTML, no line break."""
    flat = " ".join(text.split())
    for letter, entity in _ENTITIES.items():
        flat = flat.replace(letter, entity)
    flat = _SPECIAL.sub(r"\\\1", flat)
    return re.sub(r"^([#+=-])", r"\\\1", flat)


def render_markdown(page: Page) -> str:
    """The whole page; its pictures are files in a folder beside it."""
    parts = [f"# {escape(page.title)}", escape(page.subtitle), escape(" ".join(page.answer))]
    if page.cautions:
        parts += ["**Read with care**", _bullets(page.cautions)]
    for section in page.sections:
        parts.append(f"## {escape(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return escape(block.text)
        case Table():
            return _table(block)
        case Figures():
            return "\n\n".join(
                f"**{escape(item.title)}**\n\n![{escape(item.text)}]({PICTURES}/{item.key}.png)" for item in block.items
            )
        case Gallery():
            return _gallery(block)
        case Code():
            return f"{escape(block.caption)}:\n\n{_fenced(block.text)}"


def _bullets(items: tuple[str, ...]) -> str:
    return "\n".join(f"- {escape(item)}" for item in items)


def _cell(text: str) -> str:
    return "<br>".join(escape(line) for line in text.split("\n"))


def _table(table: Table) -> str:
    num_words = 1 + table.text_columns
    rule = [":---" if index < num_words else "---:" for index in range(len(table.columns))]
    lines = [[escape(name) for name in table.columns], rule]
    for header, rows in table.groups:
        for index, row in enumerate(rows):
            cells = [_cell(cell) for cell in row]
            if index == table.strong:
                cells = [f"**{cell}**" if cell else cell for cell in cells]
            lines.append([escape(header) if index == 0 else "", *cells])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    note = f"\n\n{escape(table.note)}" if table.note else ""
    return f"**{escape(table.caption)}**\n\n{text}{note}"


def _gallery(gallery: Gallery) -> str:
    parts = [f"**{escape(gallery.caption)}**"]
    for heading, items in gallery.rows:
        pictures = " ".join(f"![{escape(item.text)}]({PICTURES}/{item.key}.png)" for item in items)
        parts.append(f"{escape(heading)}: {pictures}" if items else escape(heading))
    return "\n\n".join([*parts, escape(gallery.note)] if gallery.note else parts)


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.rstrip()}\n{fence}"
