"""A part as plain text."""

import textwrap

from sofnet_jax.host.command_line import make_printable
from sofnet_jax.report.alignment import find_words
from sofnet_jax.report.part import Part, Table

_WIDTH = 100  # columns to which sentences are wrapped; a table is as wide as it needs to be
_GAP = "  "


def format_part(part: Part) -> str:
    """Heading, sentences, tables and notes; of plots, bars and pictures the captions alone."""
    shown = [
        *(("Plot", plot.caption) for plot in part.plots),
        *(("Bars", bars.caption) for bars in part.bars),
        *(("Picture", picture.caption) for picture in part.pictures),
    ]
    blocks = [
        f"{part.title}\n{'=' * len(part.title)}",
        *(textwrap.fill(sentence, _WIDTH) for sentence in part.lead),
        *(format_table(table) for table in part.tables),
        *(textwrap.fill(f"{kind}: {caption}", _WIDTH) for kind, caption in shown),
        *(textwrap.fill(note, _WIDTH) for note in part.notes),
    ]
    text = "\n\n".join(blocks)
    return "\n".join(make_printable(line) for line in text.split("\n"))


def format_table(table: Table) -> str:
    """The table with its columns in line."""
    cells = [table.columns, *((row.label, *row.cells) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    groups = _format_groups(table, widths)
    words = find_words(table)
    lines = [
        _GAP.join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in cells
    ]
    rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    return "\n".join([table.caption, "", *groups, lines[0], rule, *lines[1:]])


def _format_groups(table: Table, widths: list[int]) -> list[str]:
    """The line of the groups' headings, if there are any; widens columns that are too narrow."""
    parts, column = [" " * widths[0]], 1
    for heading, span in table.groups:
        own = slice(column, column + span)
        room = sum(widths[own]) + len(_GAP) * (span - 1)
        widths[column] += max(len(heading) - room, 0)
        room = max(len(heading), room)
        parts.append(heading.center(room) if heading else " " * room)
        column += span
    return [_GAP.join(parts).rstrip()] if table.groups else []
