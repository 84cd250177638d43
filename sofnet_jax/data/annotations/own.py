"""Videos of your own: a folder per class, CSV, or JSON."""

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
    check_order,
    check_width,
    find_files,
    parse_seconds,
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
    """A row of a CSV file, a video in a JSON file, or a file; `place` says where it is.

    Raises UserError if the path or a label is missing, or a time is before another or the video.
    """

    place: str
    path: str
    labels: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    segments: tuple[Interval, ...] = ()  # that are relevant
    split: str = ""
    id: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError(f"{self.place}: no path")
        if not self.labels or not all(self.labels):
            raise UserError(f"{self.place}: no label; write at least one for each video")
        check_order(self.place, self.start, self.end)
        for start, end in self.segments:
            check_order(f"{self.place}: relevant", start, end)


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
    given = parse_split(row.split)
    if row.split and given is None:
        raise UserError(f"{row.place}: the split is {show(row.split)}; write train or val")
    split = given or split_of_file or find_folder_split(PurePosixPath(path))
    if not split:
        raise UserError(
            f"{row.place}: split unknown; add a column 'split' with train or val, or put one of "
            "them into the name of the file"
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
    given = [(path / folder, path, split) for folder, split in splits.items() if split]
    if len(given) < len(splits):
        split = parse_split(path.name)
        if split is None:
            raise UserError(
                f"{path}: split unknown; put the folders of the classes into folders train and val"
            )
        given = [(path, path.parent, split)]
    return [
        row for folder, root, split in given for row in _list_videos(folder, root, split, notes)
    ]


def _has_videos(material: Material) -> bool:
    """Whether a file found in a folder has the form described here."""
    try:
        if material.is_json:
            value = material.document.value
            videos = value.get("videos") if isinstance(value, dict) else value
            return isinstance(videos, list) and all(
                isinstance(video, dict) and "path" in video for video in videos
            )
        cells = material.text.lstrip().partition("\n")[0].split(",")
    except UserError:
        return False
    return _is_header(cells) or (len(cells) > 1 and is_video(cells[0].strip().strip('"')))


def _list_videos(folder: Path, root: Path, split: str, notes: Notes) -> list[OwnRow]:
    """A row per video in a folder per class; ids are relative to that folder."""
    videos, lines = read_class_folder(folder)
    for line in lines:
        notes.say(line)
    rows = []
    for label, file in ((label, file) for label, files in videos.items() for file in files):
        path, id = (Path(os.path.relpath(file, base)).as_posix() for base in (root, folder))
        if path.isprintable():
            rows.append(OwnRow(str(file), path, (label,), split=split, id=id))
        else:
            notes.add("files with unprintable names: left out", ascii(path))
    return rows


def read_class_folder(path: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """The videos in each sub-folder, by its name, and a line if there are other files.

    Raises UserError if there are no videos.
    """
    files = {folder: find_files(path / folder) for folder in _list_folders(path)}
    videos = {
        folder: [file for file in found if is_video(file.name)] for folder, found in files.items()
    }
    if not any(videos.values()):
        raise UserError(f"{path}: no videos in its sub-folders (looked for {' '.join(EXTENSIONS)})")
    others = [file for found in files.values() for file in found if not is_video(file.name)]
    more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
    return videos, tuple(f"{o}{more}: not a video by its name; left out" for o in others[:1])


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
            split=row.split,
            labels=tuple(dict.fromkeys(check_label(r.place, n) for r in group for n in r.labels)),
            place=row.place,
            path=row.path,
            start=row.start,
            end=row.end,
            segments=merge_segments(group),
        )


def read_csv(material: Material, columns: Sequence[str] = COLUMNS) -> Iterator[OwnRow]:
    """Read rows `path,label[,label…]`, or rows below a header with some of the columns.

    Raises UserError.
    """
    header: list[str] = []
    suspect = ""
    for i, (place, cells) in enumerate(material.cells()):
        if i == 0 and _is_header(cells):
            header = _check_header(place, [cell.lower() for cell in cells], columns)
            continue
        if i == 0 and not PurePath(cells[0]).suffix:
            suspect = f"{place}: {show(cells[0])}"
        elif suspect and is_video(cells[0]):
            raise UserError(
                f"{suspect} is not a video, unlike the rows below; if it names the columns, "
                f"call them {', '.join(columns)}"
            )
        yield _parse_row(place, cells, header)


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


def _parse_row(place: str, cells: list[str], header: list[str]) -> OwnRow:
    """Parse a row; without a header, all cells after the first are labels."""
    names = header or ["path"] + ["label"] * (len(cells) - 1)
    check_width(place, cells, names)
    named = list(zip(names, cells, strict=True))
    labels = tuple(cell for name, cell in named if name == "label" and cell)
    values = dict(named)
    start, end, since, until = (
        parse_seconds(place, name, values[name]) if values.get(name) else None for name in _TIMES
    )
    if (since is None) != (until is None):
        raise UserError(f"{place}: relevant_start and relevant_end go together; give both or none")
    segments = () if since is None or until is None else ((since, until),)
    split, id = values.get("split", ""), values.get("id", "")
    return OwnRow(place, values["path"], labels, start, end, segments, split, id)


def read_json(document: Node, notes: Notes) -> Iterator[OwnRow]:
    """Read a list of objects with `path` and `label` or `labels`, or such a list under `videos`.

    They may have `split`, `id` and, in seconds, `start`, `end` and `segments`. Raises UserError.
    """
    videos = document.need("videos") if isinstance(document.value, dict) else document
    for video in videos.elements():
        unknown = (node.place for key, node in video.items() if key not in _KEYS)
        notes.add_all("unknown keys: ignored", unknown)
        path, split, id = (
            node.text() if (node := video.get(key)) else "" for key in ("path", "split", "id")
        )
        start, end = (
            node.number() if (node := video.get(key)) else None for key in ("start", "end")
        )
        segments = tuple(node.interval() for node in video.get_list("segments"))
        labels = [*filter(None, [video.get("label")]), *video.get_list("labels")]
        names = tuple(map(_read_label, labels))
        yield OwnRow(video.place, path, names, start, end, segments, split, id)


def _read_label(node: Node) -> str:
    return str(node.count()) if isinstance(node.value, int) else node.text().strip()


def group_rows(rows: Sequence[OwnRow]) -> tuple[list[list[OwnRow]], list[str]]:
    """Group the rows of each video; also returns a line for each duplicate row, left out.

    Rows that differ only in labels or in the relevant segments are of one video.
    """
    groups: dict[tuple, dict[tuple, OwnRow]] = {}
    notes = []
    for row in rows:
        group = groups.setdefault((row.path, row.start, row.end), {})
        first = group.setdefault((row.labels, row.segments), row)
        if first is not row:
            notes.append(f"{row.place}: repeats {first.place}; left out")
    return [list(group.values()) for group in groups.values()], notes


def merge_segments(rows: Sequence[OwnRow]) -> tuple[Interval, ...] | None:
    """The relevant segments of a video's rows, each once; None if there are none."""
    return tuple(dict.fromkeys(segment for row in rows for segment in row.segments)) or None


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
