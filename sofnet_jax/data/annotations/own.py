"""Videos of your own: a folder per class, CSV, or JSON."""

import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath

from sofnet_jax.data.annotations.assembly import note_both
from sofnet_jax.data.annotations.clip import SPLITS, Annotation, Clip, Interval
from sofnet_jax.data.annotations.files import (
    Material,
    Node,
    Notes,
    check_width,
    find_files,
    show,
)
from sofnet_jax.data.annotations.names import (
    EXTENSIONS,
    check_label,
    check_path,
    find_folder_split,
    find_split,
    is_video,
    parse_split,
)
from sofnet_jax.host.errors import UserError

NAME = "videos"
_TIMES = ("start", "end", "relevant_start", "relevant_end")
COLUMNS = ("path", "label", *_TIMES)
_MORE_COLUMNS = (*COLUMNS, "split", "id")  # that files for `prepare` may have
_KEYS = ("path", "label", "labels", "start", "end", "segments", "split", "id")


@dataclass(frozen=True)
class OwnRow:
    """A row of a CSV file, or a video in a JSON file; `place` is `<file>:<line>` or its keys."""

    place: str
    path: str
    labels: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    relevant: Interval | None = None
    split: str | None = None
    id: str | None = None


@dataclass(frozen=True)
class ClassFolder:
    """The videos in each sub-folder, by its name, and a line if there are other files."""

    videos: dict[str, list[Path]]
    notes: tuple[str, ...]


def read(paths: Sequence[Path]) -> Annotation:
    """Read CSV and JSON files, folders of such files, and folders with one folder per class.

    Paths are relative to the folder of the videos. For a folder per class that is the given folder,
    or its parent if its own name is a split. Raises UserError.
    """
    if not paths:
        raise UserError("no files or folders of videos are given")
    notes = Notes()
    rows: list[OwnRow] = []
    for path in paths:
        if path.is_dir():
            rows += _read_folder(path, notes)
        elif path.is_file():
            rows += _read_file(Material(path), notes)
        else:
            raise UserError(f"{path}: no such file or folder of annotations")
    clips: dict[tuple[str, str], Clip] = {}
    for split in SPLITS:
        for clip in _create_clips([row for row in rows if row.split == split], notes):
            first = clips.setdefault((split, clip.id), clip)
            if first is not clip:
                raise UserError(f"{clip.place}: its id is that of {first.place}; give it another")
    note_both(clips.values(), notes)
    classes = sort_labels({label for clip in clips.values() for label in clip.labels})
    return Annotation(NAME, classes, tuple(clips.values()), notes.lines())


def _read_file(material: Material, notes: Notes) -> list[OwnRow]:
    """The rows of a file, each with its split."""
    if material.is_json:
        rows = list(read_json(material.document, notes))
    else:
        rows = list(read_csv(material, _MORE_COLUMNS))
    if not rows:
        raise UserError(f"{material.path}: no videos in it; write a line 'path,label' for each")
    return [_set_split(row, find_split(material.path)) for row in rows]


def _set_split(row: OwnRow, split_of_file: str | None) -> OwnRow:
    """The row with its own split, else that of the file, else the one in its path."""
    path = check_path(row.place, row.path)
    if row.split is not None:
        split = parse_split(row.split)
        if split is None:
            raise UserError(f"{row.place}: the split is {show(row.split)}; write train or val")
    else:
        split = split_of_file or find_folder_split(PurePosixPath(path))
        if split is None:
            raise UserError(
                f"{row.place}: split unknown; add a column 'split' with train or val, or put one "
                "of them into the name of the file"
            )
    return replace(row, path=path, split=split)


def _read_folder(path: Path, notes: Notes) -> list[OwnRow]:
    """The rows of the annotation files in a folder, or else its videos by class."""
    tables = [
        Material(file, named=False)
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix.lower() in (".csv", ".json")
    ]
    found = [table for table in tables if _has_videos(table)]
    notes.add_all("files without videos left out", (str(t.path) for t in tables if t not in found))
    if found:
        return [row for table in found for row in _read_file(table, notes)]
    splits = {folder: parse_split(folder) for folder in _list_folders(path)}
    if all(splits.values()):
        return [
            row
            for folder, split in splits.items()
            for row in _list_videos(path / folder, path, split, notes)
        ]
    split = parse_split(path.name)
    if split is None:
        raise UserError(
            f"{path}: split unknown; put the folders of the classes into folders train and val"
        )
    return _list_videos(path, path.parent, split, notes)


def _has_videos(material: Material) -> bool:
    """Whether a file found in a folder has the form described here."""
    try:
        if material.is_empty:
            return False
        if material.is_json:
            value = material.document.value
            videos = value.get("videos") if isinstance(value, dict) else value
            return isinstance(videos, list) and all(
                isinstance(video, dict) and "path" in video for video in videos
            )
        cells = material.rows[0].text.split(",")
    except UserError:
        return False
    return _is_header(cells) or (len(cells) > 1 and is_video(cells[0].strip().strip('"')))


def _list_videos(folder: Path, root: Path, split: str | None, notes: Notes) -> list[OwnRow]:
    """A row per video in a folder per class; ids are relative to that folder."""
    found = read_class_folder(folder)
    for line in found.notes:
        notes.say(line)
    rows = []
    for label, files in found.videos.items():
        for file in files:
            path, id = (Path(os.path.relpath(file, base)).as_posix() for base in (root, folder))
            if path.isprintable():
                rows.append(OwnRow(str(file), path, (label,), split=split, id=id))
            else:
                notes.add("files with unprintable names: left out", ascii(path))
    return rows


def read_class_folder(path: Path) -> ClassFolder:
    """List the videos of each class in a folder per class. Raises UserError if there are none."""
    files = {folder: find_files(path / folder) for folder in _list_folders(path)}
    videos = {
        folder: [file for file in found if is_video(file.name)] for folder, found in files.items()
    }
    if not any(videos.values()):
        raise UserError(f"{path}: no videos in its sub-folders (looked for {' '.join(EXTENSIONS)})")
    others = [file for found in files.values() for file in found if not is_video(file.name)]
    if not others:
        return ClassFolder(videos, ())
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return ClassFolder(videos, (f"{others[0]}{more}: not a video by its name; left out",))


def _list_folders(path: Path) -> list[str]:
    """The sorted names of the sub-folders that are not hidden. Raises UserError if none is."""
    folders = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise UserError(f"{path}: no sub-folders; put the videos of each class in a folder of it")
    return folders


def _create_clips(rows: Sequence[OwnRow], notes: Notes) -> Iterator[Clip]:
    groups, repeated = group_rows(rows)
    notes.add_all("duplicate rows left out", (line.split(": ")[0] for line in repeated))
    for group in groups:
        row = group[0]
        yield Clip(
            id=check_path(row.place, row.id or name_video(row)),
            split=row.split or "",
            labels=tuple(dict.fromkeys(check_label(r.place, n) for r in group for n in r.labels)),
            place=row.place,
            path=row.path,
            start=row.start,
            end=row.end,
            segments=tuple(dict.fromkeys(r.relevant for r in group if r.relevant)) or None,
        )


def read_csv(material: Material, columns: Sequence[str] = COLUMNS) -> Iterator[OwnRow]:
    """Read rows `path,label[,label…]`, or rows below a header with some of the columns.

    Raises UserError.
    """
    header: list[str] | None = None
    first, suspect = True, ""
    for place, cells in material.cells():
        if first and _is_header(cells):
            header = _check_header(place, [cell.lower() for cell in cells], columns)
        else:
            if suspect and is_video(cells[0]):
                raise UserError(
                    f"{suspect} is not a video, unlike the rows below; if it names the columns, "
                    f"call them {', '.join(columns)}"
                )
            if first and not PurePath(cells[0]).suffix:
                suspect = f"{place}: {show(cells[0])}"
            yield _parse_row(place, cells, header)
        first = False


def _is_header(cells: Sequence[str]) -> bool:
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
    """Parse a row; without a header, all cells after the first are labels."""
    names = header or ["path"] + ["label"] * (len(cells) - 1)
    check_width(place, cells, names)
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
    """Parse seconds; None if the cell is empty. Raises UserError."""
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
    """Raise UserError unless `end`, called `name`, is after `start`."""
    if end is not None and end <= (start or 0.0):
        begin = name.replace("end", "start")
        raise UserError(f"{place}: {name} {end:g} is not after {begin} {start or 0.0:g}")


def read_json(document: Node, notes: Notes) -> Iterator[OwnRow]:
    """Read a list of objects with `path` and `label` or `labels`, or such a list under `videos`.

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
                notes.add(f"unknown keys such as {show(key)}: ignored", node.place)
        start, end = (
            _check_time(node.place, node.number()) if (node := video.get(key)) else None
            for key in ("start", "end")
        )
        check_order(video.place, "end", start, end)
        labels = _read_labels(video)
        for relevant in _read_segments(video) or (None,):
            yield OwnRow(video.place, path, labels, start, end, relevant, split, id)


def _read_labels(video: Node) -> tuple[str, ...]:
    one, several = video.get("label"), video.get("labels")
    nodes = ([one] if one else []) + (several.elements() if several else [])
    labels = tuple(
        str(node.count()) if isinstance(node.value, int) else node.text().strip() for node in nodes
    )
    if not all(labels) or not labels:
        raise UserError(f"{video.place}: no label; give 'label' or 'labels'")
    return labels


def _read_segments(video: Node) -> list[Interval]:
    node = video.get("segments")
    segments = []
    for element in node.elements() if node else ():
        start, end = element.interval()
        check_order(element.place, "end", _check_time(element.place, start), end)
        segments.append((start, end))
    return segments


def _check_time(place: str, time: float) -> float:
    if time < 0:
        raise UserError(f"{place}: {time:g} is before the video; give seconds")
    return time


def group_rows(rows: Sequence[OwnRow]) -> tuple[list[list[OwnRow]], list[str]]:
    """Group the rows of each video; also returns a line for each duplicate row, left out.

    Rows that differ only in labels or in the relevant interval are of one video.
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
    """The path; a part of a file as a W3C media fragment, `path#t=1.5,3`."""
    if row.start is None and row.end is None:
        return row.path
    return f"{row.path}#t={row.start or 0:.15g}" + ("" if row.end is None else f",{row.end:.15g}")


def sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """Sort class names, by value if all are integers."""
    integers = all(map(is_integer, labels))
    return tuple(sorted(labels, key=(lambda name: (int(name), name)) if integers else None))


def is_integer(label: str) -> bool:
    """Whether a label is a number rather than a name."""
    return label.isdecimal() and len(label) < 10
