"""All parts as one page of HTML that needs neither a network nor a script."""

import base64
import itertools
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from sofnet_jax.report.alignment import find_words
from sofnet_jax.report.part import Part, Picture, Row, Table
from sofnet_jax.report.plot import draw_bars, draw_plot
from sofnet_jax.report.style import create_style
from sofnet_jax.report.vector import prefix_ids

_LEAST = 0.6  # to which part of its size a picture shrinks on a narrow screen


def create_page(title: str, lead: Sequence[str], parts: Sequence[Part]) -> str:
    """A page with a section for each part, which `#name` leads to; the names differ."""
    numbers = itertools.count(1)
    return _PAGE.format(
        title=escape(title),
        style=create_style(),
        lead=_format_paragraphs(lead),
        contents="\n".join(
            f'<li><a href="#{escape(part.name)}">{escape(part.title)}</a></li>' for part in parts
        ),
        sections="\n".join(_format_part(part, numbers) for part in parts),
    )


_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
{lead}
</header>
<nav aria-labelledby="contents">
<h2 id="contents">Contents</h2>
<ol>
{contents}
</ol>
</nav>
<main>
{sections}
</main>
</body>
</html>
"""


def _format_part(part: Part, numbers: Iterator[int]) -> str:
    """A section; `numbers` are those of the drawings, on the whole page."""
    name = escape(part.name)
    drawings = [(plot.caption, draw_plot(plot)) for plot in part.plots]
    drawings += [(bars.caption, draw_bars(bars)) for bars in part.bars]
    pieces = [
        f'<section id="{name}" aria-labelledby="{name}-title">',
        f'<h2 id="{name}-title">{escape(part.title)}</h2>',
        _format_paragraphs(part.lead),
        *(_format_table(table) for table in part.tables),
        *(
            _format_figure(caption, prefix_ids(svg, f"d{next(numbers)}-"))
            for caption, svg in drawings
        ),
        *(_format_figure(picture.caption, _format_picture(picture)) for picture in part.pictures),
        f'<div class="notes">{_format_paragraphs(part.notes)}</div>' if part.notes else "",
        "</section>",
    ]
    return "\n".join(filter(None, pieces))


def _format_paragraphs(texts: Iterable[str]) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)


def _format_figure(caption: str, content: str) -> str:
    return "\n".join(
        [
            "<figure>",
            f"<figcaption>{escape(caption)}</figcaption>",
            _format_scroll(caption, content),
            "</figure>",
        ]
    )


def _format_scroll(label: str, content: str) -> str:
    """A box that scrolls sideways, by keyboard too, where its content is too wide."""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"{content}</div>"
    )


def _format_picture(picture: Picture) -> str:
    width, height = struct.unpack(">II", picture.png[16:24])  # a PNG begins with them
    data = base64.b64encode(picture.png).decode()
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(picture.caption)}" '
        f'width="{width}" height="{height}" '
        f'style="width: 100%; min-width: {_LEAST * width:.0f}px; max-width: {width}px">'
    )


def _format_table(table: Table) -> str:
    kinds = [' class="words"' if words else "" for words in find_words(table)]
    headings = "".join(
        f'<th scope="col"{kind}>{escape(heading)}</th>'
        for heading, kind in zip(table.columns, kinds, strict=True)
    )
    pieces = [
        f"<table>\n<caption><span>{escape(table.caption)}</span></caption>",
        *_format_groups(table),
        f"<tr>{headings}</tr>\n</thead>\n<tbody>",
        *(_format_row(row, kinds[1:]) for row in table.rows),
        "</tbody>\n</table>",
    ]
    return _format_scroll(table.caption, "\n".join(pieces))


def _format_groups(table: Table) -> list[str]:
    """The columns by group, and the row of the groups' headings."""
    if not table.groups:
        return ["<thead>"]
    rest = len(table.columns) - 1 - sum(span for _, span in table.groups)
    groups = [*table.groups, *([("", rest)] if rest else [])]
    columns = "".join(f'<colgroup span="{span}"></colgroup>' for _, span in groups)
    headings = "".join(
        f'<th scope="colgroup" colspan="{span}"><span>{escape(heading)}</span></th>'
        if heading
        else f'<td colspan="{span}"></td>'
        for heading, span in groups
    )
    return [f"<colgroup></colgroup>{columns}", f"<thead>\n<tr><td></td>{headings}</tr>"]


def _format_row(row: Row, kinds: Sequence[str]) -> str:
    cells = "".join(
        f"<td{kind}>{_format_cell(cell)}</td>" for cell, kind in zip(row.cells, kinds, strict=True)
    )
    others = "" if row.measured else ' class="others"'
    return f'<tr{others}><th scope="row">{escape(row.label)}</th>{cells}</tr>'


def _format_cell(cell: str) -> str:
    """The cell; a mark at its end hangs beside the column, so that the digits stay in line."""
    return re.sub(r"(?<=\d)([†‡*])$", r'<span class="mark">\1</span>', escape(cell))
