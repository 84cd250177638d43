"""A report as files: each part by itself, and all parts on one self-contained HTML page."""

import base64
import struct
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from sofnet_jax.host.files import write_json, write_whole
from sofnet_jax.report.part import Part, Picture
from sofnet_jax.report.plot import create_standalone, draw
from sofnet_jax.report.style import DARK, LIGHT, format_theme
from sofnet_jax.report.text import format_csv, format_html

_LEAST = 0.6  # of its width, to which a picture shrinks on a narrow screen


def write_part(folder: Path, part: Part) -> list[Path]:
    """Write NAME.json and for each table, drawing and picture a file NAME.csv, NAME_2.csv ….

    Raises:
        OSError: a file cannot be written.
    """
    paths = [folder / f"{part.name}.json"]
    write_json(paths[0], part.data)
    for name, content in _list_files(part):
        paths.append(folder / name)
        with write_whole(paths[-1]) as partial:
            partial.write_bytes(content)
    return paths


def _list_files(part: Part) -> Iterator[tuple[str, bytes]]:
    drawings = (create_standalone(draw(drawing)) for drawing in part.drawings)
    contents = {
        "csv": (format_csv(table).encode(errors="backslashreplace") for table in part.tables),
        "svg": (svg.encode(errors="backslashreplace") for svg in drawings),
        "png": (picture.png for picture in part.pictures),
    }
    for kind, files_of_kind in contents.items():
        for number, content in enumerate(files_of_kind, 1):
            yield f"{part.name}{f'_{number}' if number > 1 else ''}.{kind}", content


def create_page(title: str, lead: Sequence[str], parts: Sequence[Part]) -> str:
    """HTML with a section for each part, linked as `#name`; the names must differ."""
    template = files("sofnet_jax.report").joinpath("page.html").read_text(encoding="utf-8")
    contents = [f'<li><a href="#{escape(p.name)}">{escape(p.title)}</a></li>' for p in parts]
    return Template(template).substitute(
        title=escape(title),
        light=format_theme(LIGHT),
        dark=format_theme(DARK),
        lead=_format_paragraphs(lead),
        contents="\n".join(contents),
        sections="\n".join(map(_format_part, parts)),
    )


def _format_part(part: Part) -> str:
    name = escape(part.name)
    drawings = [(d.caption, draw(d, f"{part.name} {i}")) for i, d in enumerate(part.drawings)]
    pictures = [(picture.caption, _format_picture(picture)) for picture in part.pictures]
    pieces = [
        f'<section id="{name}" aria-labelledby="{name}-title">',
        f'<h2 id="{name}-title">{escape(part.title)}</h2>',
        _format_paragraphs(part.lead),
        *(_format_scroll(table.caption, format_html(table)) for table in part.tables),
        *(
            f"<figure>\n<figcaption>{escape(caption)}</figcaption>\n"
            f"{_format_scroll(caption, content)}\n</figure>"
            for caption, content in (*drawings, *pictures)
        ),
        f'<div class="notes">{_format_paragraphs(part.notes)}</div>' if part.notes else "",
        "</section>",
    ]
    return "\n".join(filter(None, pieces))


def _format_paragraphs(texts: Iterable[str]) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)


def _format_scroll(label: str, content: str) -> str:
    """A box that scrolls sideways, by keyboard too, if its content is too wide."""
    return (
        f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">'
        f"{content}</div>"
    )


def _format_picture(picture: Picture) -> str:
    width, height = struct.unpack(">II", picture.png[16:24])  # of the PNG's first chunk
    data = base64.b64encode(picture.png).decode()
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(picture.caption)}" '
        f'width="{width}" height="{height}" '
        f'style="width: 100%; min-width: {_LEAST * width:.0f}px; max-width: {width}px">'
    )
