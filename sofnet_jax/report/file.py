"""A part as files."""

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from sofnet_jax.report.part import Part, Table
from sofnet_jax.report.plot import draw_bars, draw_plot
from sofnet_jax.report.vector import create_standalone
from sofnet_jax.result import write_json
from sofnet_jax.whole_file import write_whole


def write_part(folder: Path, part: Part) -> list[Path]:
    """Writes NAME.json and what there is of NAME.csv, NAME.svg, NAME_2.svg … and NAME.png ….

    Returns:
        The files, each of which is written whole or not at all. Raises OSError.
    """
    paths = [folder / f"{part.name}.json"]
    write_json(paths[0], dict(part.data))
    for name, content in _list_contents(part):
        paths.append(folder / name)
        with write_whole(paths[-1]) as partial:
            partial.write_bytes(content)
    return paths


def _list_contents(part: Part) -> Iterator[tuple[str, bytes]]:
    if part.tables:
        yield f"{part.name}.csv", "\n".join(map(format_csv, part.tables)).encode()
    drawings = itertools.chain(map(draw_plot, part.plots), map(draw_bars, part.bars))
    for number, svg in enumerate(drawings, 1):
        yield _number(part.name, number, "svg"), create_standalone(svg).encode()
    for number, picture in enumerate(part.pictures, 1):
        yield _number(part.name, number, "png"), picture.png


def _number(name: str, number: int, kind: str) -> str:
    return f"{name}.{kind}" if number == 1 else f"{name}_{number}.{kind}"


def format_csv(table: Table) -> str:
    """The caption as a line of its own; groups, if any, each above the first of its columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([table.caption])
    if table.groups:
        spans = ([heading, *[""] * (span - 1)] for heading, span in table.groups)
        writer.writerow(["", *itertools.chain.from_iterable(spans)])
    writer.writerow(table.columns)
    writer.writerows([row.label, *row.cells] for row in table.rows)
    return text.getvalue()
