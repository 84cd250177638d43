"""Tables as text, CSV and HTML, and sections as text."""

import csv
import io
import re
import textwrap
from html import escape

from sofnet_jax.evaluation.table import GAP, align_columns
from sofnet_jax.host.command_line import make_printable
from sofnet_jax.report.section import Section, Table

_WIDTH = 100  # columns to which paragraphs are wrapped; a table takes the width it needs


def format_section(section: Section) -> str:
    """Title, paragraphs, tables and notes; drawings by their kind and caption."""
    captions = [f"{type(drawing).__name__}: {drawing.caption}" for drawing in section.drawings]
    blocks = [
        f"{section.title}\n{'=' * len(section.title)}",
        *(textwrap.fill(paragraph, _WIDTH) for paragraph in section.lead),
        *(format_table(table) for table in section.tables),
        *(textwrap.fill(text, _WIDTH) for text in (*captions, *section.notes)),
    ]
    return "\n".join(make_printable(line) for line in "\n\n".join(blocks).split("\n"))


def format_table(table: Table) -> str:
    """The caption and the table in aligned columns."""
    cells = [table.columns, *((row.label, *row.cells) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    groups, first = [" " * widths[0]], 1
    for heading, span in table.groups:
        room = sum(widths[first : first + span]) + len(GAP) * (span - 1)
        widths[first] += max(len(heading) - room, 0)
        groups.append(heading.center(room))
        first += span
    lines = align_columns(cells, _find_text_columns(table), widths)
    above = [GAP.join(groups).rstrip()] if table.groups else []
    return "\n".join([table.caption, "", *above, *lines])


def format_csv(table: Table) -> str:
    """A line of headings, each after its group's, and a line for each row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    groups = [heading for heading, span in table.groups for _ in range(span)]
    above = ["", *(groups or [""] * (len(table.columns) - 1))]
    headings = zip(above, table.columns, strict=True)
    writer.writerow([": ".join(filter(None, pair)) for pair in headings])
    writer.writerows([row.label, *row.cells] for row in table.rows)
    return text.getvalue()


def format_html(table: Table) -> str:
    """A `<table>` element."""
    kinds = [' class="words"' if is_text else "" for is_text in _find_text_columns(table)]
    head = [f"<table>\n<caption><span>{escape(table.caption)}</span></caption>", "<thead>"]
    if table.groups:
        spans = "".join(f'<colgroup span="{span}"></colgroup>' for _, span in table.groups)
        headings = "".join(
            f'<th scope="colgroup" colspan="{span}"><span>{escape(heading)}</span></th>'
            if heading
            else f'<td colspan="{span}"></td>'
            for heading, span in table.groups
        )
        head[1:] = [f"<colgroup></colgroup>{spans}", f"<thead>\n<tr><td></td>{headings}</tr>"]
    headings = "".join(
        f'<th scope="col"{kind}>{escape(heading)}</th>'
        for heading, kind in zip(table.columns, kinds, strict=True)
    )
    rows = [
        ("<tr>" if row.measured else '<tr class="others">')
        + f'<th scope="row">{escape(row.label)}</th>'
        + "".join(
            f"<td{kind}>{_hang_mark(escape(cell))}</td>"
            for cell, kind in zip(row.cells, kinds[1:], strict=True)
        )
        + "</tr>"
        for row in table.rows
    ]
    pieces = [*head, f"<tr>{headings}</tr>\n</thead>\n<tbody>", *rows, "</tbody>\n</table>"]
    return "\n".join(pieces)


def _hang_mark(cell: str) -> str:
    """Hang a mark at the end beside the column, so that the digits stay aligned."""
    return re.sub(r"(?<=\d)([†‡*])$", r'<span class="mark">\1</span>', cell)


def _find_text_columns(table: Table) -> list[bool]:
    """Whether each column is left-aligned: the labels, and columns of words."""
    columns = zip(*(row.cells for row in table.rows), strict=True)
    found = [_is_text(cells) for cells in columns] or [False] * (len(table.columns) - 1)
    return [True, *found]


def _is_text(cells: tuple[str, ...]) -> bool:
    """Whether more cells start with a letter than with a digit, leading signs aside."""
    first = [re.search(r"[^\W_]", cell) for cell in cells]
    return sum(1 if match[0].isalpha() else -1 for match in first if match) > 0
