"""What people write about videos of their own, in CSV or JSON: one row for a video, or several."""

import csv
import io
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from sofnet_jax.data.annotations.cell import show
from sofnet_jax.data.annotations.clip import Interval
from sofnet_jax.data.annotations.document import Node
from sofnet_jax.data.annotations.extension import is_video
from sofnet_jax.data.annotations.material import Material
from sofnet_jax.data.annotations.note import Notes
from sofnet_jax.host.errors import UserError

_TIMES = ("start", "end", "relevant_start", "relevant_end")
COLUMNS = ("path", "label", *_TIMES)
MORE_COLUMNS = (*COLUMNS, "split", "id")  # that files for `prepare` may have
_KEYS = ("path", "label", "labels", "start", "end", "segments", "split", "id")


@dataclass(frozen=True)
class OwnRow:
    """A row of a file; `place` is `<file>:<line>`, or the keys that lead to it in JSON."""

    place: str
    path: str
    labels: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    relevant: Interval | None = None
    split: str | None = None
    id: str | None = None


def read_csv(material: Material, columns: Sequence[str] = COLUMNS) -> Iterator[OwnRow]:
    """Reads `path,label[,label…]`, or what a header with some of the columns says.

    Raises UserError.
    """
    path = material.path
    lines = csv.reader(io.StringIO(material.text, newline=""), strict=True)
    header: list[str] | None = None
    first, unlike = True, ""
    try:
        for line in lines:
            cells = [cell.strip() for cell in line]
            place = f"{path}:{lines.line_num}"
            if not any(cells):
                continue
            if first and is_header(cells):
                header = _check_header(place, [cell.lower() for cell in cells], columns)
            else:
                if unlike and is_video(cells[0]):
                    raise UserError(
                        f"{unlike} is no video, as those below it are; if it names the columns, "
                        f"call them {', '.join(columns)}"
                    )
                if first and not PurePath(cells[0]).suffix:
                    unlike = f"{place}: {show(cells[0])}"
                yield _parse_row(place, cells, header)
            first = False
    except csv.Error as error:
        raise UserError(f"{path}:{lines.line_num}: not CSV ({error}); check the quotes") from error


def is_header(cells: Sequence[str]) -> bool:
    """Whether the first row of a file names its columns."""
    names = [cell.strip().lower() for cell in cells]
    return names[0] == "path" or {"path", "label"} <= set(names)


def _check_header(place: str, names: list[str], columns: Sequence[str]) -> list[str]:
    unknown = [name for name in names if name not in columns]
    if unknown:
        raise UserError(
            f"{place}: unknown column {show(unknown[0])}; there are {', '.join(columns)}"
        )
    repeated = [name for name in names if name != "label" and names.count(name) > 1]
    if repeated:
        raise UserError(f"{place}: two columns '{repeated[0]}'; leave one")
    if "label" not in names:
        raise UserError(f"{place}: no column 'label'; add one")
    return names


def _parse_row(place: str, cells: list[str], header: list[str] | None) -> OwnRow:
    """Reads a row; without a header all cells after the first are labels."""
    names = header or ["path"] + ["label"] * (len(cells) - 1)
    if len(cells) != len(names):
        raise UserError(f"{place}: {len(cells)} columns where the header has {len(names)}")
    named = list(zip(names, cells, strict=True))
    values = {name: cell for name, cell in named if name != "label"}
    labels = tuple(cell for name, cell in named if name == "label" and cell)
    if not values.get("path"):
        raise UserError(f"{place}: no path")
    if not labels:
        raise UserError(f"{place}: no label; write 'path,label'")
    start, end, since, until = (parse_time(place, name, values.get(name, "")) for name in _TIMES)
    check_order(place, "end", start, end)
    check_order(place, "relevant_end", since, until)
    if (since is None) != (until is None):
        raise UserError(f"{place}: relevant_start and relevant_end go together; give both or none")
    relevant = None if since is None or until is None else (since, until)
    split, id = values.get("split") or None, values.get("id") or None
    return OwnRow(place, values["path"], labels, start, end, relevant, split, id)


def parse_time(place: str, name: str, cell: str) -> float | None:
    """Seconds in a cell; None if it is empty. Raises UserError."""
    if not cell:
        return None
    try:
        time = float(cell)
    except ValueError:
        time = math.nan
    if not (math.isfinite(time) and time >= 0):
        raise UserError(f"{place}: {name} is {show(cell)}; give seconds, such as 12.5")
    return time


def check_order(place: str, name: str, start: float | None, end: float | None) -> None:
    """Raises UserError unless `end`, of this name, is after `start`."""
    if end is not None and end <= (start or 0.0):
        begin = name.replace("end", "start")
        raise UserError(f"{place}: {name} {end:g} is not after {begin} {start or 0.0:g}")


def read_json(document: Node, notes: Notes) -> Iterator[OwnRow]:
    """Reads a list of objects with `path` and `label` or `labels`, or such a list as `videos`.

    They may have `split`, `id` and, in seconds, `start`, `end` and `segments`. Raises UserError.
    """
    videos = document.need("videos") if isinstance(document.value, dict) else document
    for video in videos.elements():
        path, split, id = (
            node.text() if (node := video.get(key)) else None for key in ("path", "split", "id")
        )
        if not path:
            raise UserError(f"{video.place}: no 'path'")
        for key, node in video.items():
            if key not in _KEYS:
                notes.add(f"keys that are not known, such as {show(key)}: ignored", node.place)
        start, end = _read_time(video, "start"), _read_time(video, "end")
        check_order(video.place, "end", start, end)
        for relevant in _read_segments(video):
            yield OwnRow(video.place, path, _read_labels(video), start, end, relevant, split, id)


def _read_labels(video: Node) -> tuple[str, ...]:
    one, several = video.get("label"), video.get("labels")
    nodes = ([one] if one else []) + (several.elements() if several else [])
    labels = tuple(_read_label(node) for node in nodes)
    if not all(labels) or not labels:
        raise UserError(f"{video.place}: no label; give 'label' or 'labels'")
    return labels


def _read_label(node: Node) -> str:
    return str(node.count()) if isinstance(node.value, int) else node.text().strip()


def _read_time(video: Node, key: str) -> float | None:
    node = video.get(key)
    if node is None:
        return None
    if node.number() < 0:
        raise UserError(f"{node.place}: {node.number():g} is before the video; give seconds")
    return node.number()


def _read_segments(video: Node) -> Sequence[Interval | None]:
    """The segments, or None if there are none."""
    node = video.get("segments")
    segments = [] if node is None else [(n.place, *n.interval()) for n in node.elements()]
    for place, start, end in segments:
        if start < 0:
            raise UserError(f"{place}: {start:g} is before the video; give seconds")
        check_order(place, "end", start, end)
    return [(start, end) for _, start, end in segments] or [None]


def group_rows(rows: Sequence[OwnRow]) -> tuple[list[list[OwnRow]], list[str]]:
    """The rows of each video, and a line for each row that repeats another one, left out.

    Rows that differ in labels or in the relevant interval alone are of one video.
    """
    groups: dict[tuple, dict[tuple, OwnRow]] = {}
    notes = []
    for row in rows:
        group = groups.setdefault((row.path, row.start, row.end), {})
        first = group.setdefault((row.labels, row.relevant), row)
        if first is not row:
            notes.append(f"{row.place}: repeats {first.place}; left out")
    return [list(group.values()) for group in groups.values()], notes


def name_video(row: OwnRow) -> str:
    """Its path; a part of a file as the W3C's media fragments write it, path#t=1.5,3."""
    if row.start is None and row.end is None:
        return row.path
    return f"{row.path}#t={row.start or 0:.15g}" + ("" if row.end is None else f",{row.end:.15g}")


def sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """The names of classes in order: by value if all are integers."""
    integers = all(map(is_integer, labels))
    return tuple(sorted(labels, key=(lambda name: (int(name), name)) if integers else None))


def is_integer(label: str) -> bool:
    """Whether a label is a number rather than a name."""
    return label.isdecimal() and len(label) < 10
