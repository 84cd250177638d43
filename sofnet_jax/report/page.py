"""A report as files: each section by itself, and all sections on one self-contained HTML page."""

import base64
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from sofnet_jax.host.files import write_json, write_whole
from sofnet_jax.report.plot import draw
from sofnet_jax.report.section import Bars, Picture, Plot, Section, Table
from sofnet_jax.report.text import format_csv, format_html

_LEAST = 0.6  # of its width, to which a picture shrinks on a narrow screen


def write_section(folder: Path, section: Section) -> list[Path]:
    """Write NAME.json and for each table and drawing a file NAME.csv, NAME_2.csv ….

    Raises:
        OSError: a file cannot be written.
    """
    paths = [folder / f"{section.name}.json"]
    write_json(paths[0], section.data)
    count = Counter[str]()
    for item in (*section.tables, *section.drawings):
        kind, content = _encode(item)
        count[kind] += 1
        number = f"_{count[kind]}" if count[kind] > 1 else ""
        paths.append(folder / f"{section.name}{number}.{kind}")
        with write_whole(paths[-1]) as partial:
            partial.write_bytes(content)
    return paths


def _encode(item: Table | Plot | Bars | Picture) -> tuple[str, bytes]:
    """The kind and the content of a file."""
    if isinstance(item, Picture):
        return "png", item.png
    if isinstance(item, Table):
        return "csv", format_csv(item).encode(errors="backslashreplace")
    return "svg", draw(item).encode(errors="backslashreplace")


def create_page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """HTML with the sections, linked as `#name`; the names must differ."""
    template = files("sofnet_jax.report").joinpath("page.html").read_text(encoding="utf-8")
    contents = [f'<li><a href="#{escape(p.name)}">{escape(p.title)}</a></li>' for p in sections]
    return Template(template).substitute(
        title=escape(title),
        lead=_format_paragraphs(lead),
        contents="\n".join(contents),
        sections="\n".join(map(_format_section, sections)),
    )


def _format_section(section: Section) -> str:
    name = escape(section.name)
    pieces = [
        f'<section id="{name}" aria-labelledby="{name}-title">',
        f'<h2 id="{name}-title">{escape(section.title)}</h2>',
        _format_paragraphs(section.lead),
        *(_format_scroll(table.caption, format_html(table)) for table in section.tables),
        *(
            f"<figure>\n<figcaption>{escape(drawing.caption)}</figcaption>\n"
            f"{_format_scroll(drawing.caption, _format_drawing(drawing, f'{section.name} {i}'))}\n"
            "</figure>"
            for i, drawing in enumerate(section.drawings)
        ),
        f'<div class="notes">{_format_paragraphs(section.notes)}</div>' if section.notes else "",
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


def _format_drawing(drawing: Plot | Bars | Picture, salt: str) -> str:
    if not isinstance(drawing, Picture):
        return draw(drawing, salt)
    width, height = struct.unpack(">II", drawing.png[16:24])  # of the PNG's first chunk
    data = base64.b64encode(drawing.png).decode()
    return (
        f'<img src="data:image/png;base64,{data}" alt="{escape(drawing.caption)}" '
        f'width="{width}" height="{height}" '
        f'style="width: 100%; min-width: {_LEAST * width:.0f}px; max-width: {width}px">'
    )
