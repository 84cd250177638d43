"""A part as files."""

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from sofnet_jax.host.files import write_json, write_whole
from sofnet_jax.report.part import Part, Table
from sofnet_jax.report.plot import draw_bars, draw_plot
from sofnet_jax.report.vector import create_standalone


def write_part(folder: Path, part: Part) -> list[Path]:
    """Writes NAME.json and what there is of NAME.csv, NAME_2.csv …, NAME.svg … and NAME.png ….

    Returns:
        The files, each of which is written whole or not at all. Raises OSError.
    """
    paths = [folder / f"{part.name}.json"]
    write_json(paths[0], part.data)
    for name, content in _list_contents(part):
        paths.append(folder / name)
        with write_whole(paths[-1]) as partial:
            partial.write_bytes(content)
    return paths


def _list_contents(part: Part) -> Iterator[tuple[str, bytes]]:
    for number, table in enumerate(part.tables, 1):
        yield _number(part.name, number, "csv"), format_csv(table).encode(errors="backslashreplace")
    drawings = itertools.chain(map(draw_plot, part.plots), map(draw_bars, part.bars))
    for number, svg in enumerate(drawings, 1):
        yield (
            _number(part.name, number, "svg"),
            create_standalone(svg).encode(errors="backslashreplace"),
        )
    for number, picture in enumerate(part.pictures, 1):
        yield _number(part.name, number, "png"), picture.png


def _number(name: str, number: int, kind: str) -> str:
    return f"{name}.{kind}" if number == 1 else f"{name}_{number}.{kind}"


def format_csv(table: Table) -> str:
    """One line of headings, each with that of its group before it, and a line for each row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    spans = [heading for heading, span in table.groups for _ in range(span)]
    above = ["", *(spans or [""] * (len(table.columns) - 1))]
    headings = zip(above, table.columns, strict=True)
    writer.writerow([": ".join(filter(None, pair)) for pair in headings])
    writer.writerows([row.label, *row.cells] for row in table.rows)
    return text.getvalue()
