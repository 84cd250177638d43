"""Videos of your own: a folder per class, CSV, or JSON."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from sofnet_jax.data.annotations.assembly import note_both
from sofnet_jax.data.annotations.clip import SPLITS, Annotation, Clip
from sofnet_jax.data.annotations.files import (
    Material,
    Node,
    Notes,
    check_order,
    check_width,
    find_files,
    select_folders,
    show,
)
from sofnet_jax.data.annotations.names import (
    EXTENSIONS,
    check_label,
    check_path,
    check_split,
    compose,
    find_file_split,
    find_split,
    is_video,
    need_split,
)
from sofnet_jax.host.errors import UserError

NAME = "videos"
COLUMNS = ("path", "label", "start", "end", "relevant_start", "relevant_end")
_MORE_COLUMNS = (*COLUMNS, "split", "id")  # that files for `prepare` may have
_KEYS = (*_MORE_COLUMNS, "labels", "segments")  # of a video in JSON


def read(paths: Sequence[Path]) -> Annotation:
    """Read CSV and JSON files, folders of such files, and folders with one folder per class.

    Paths are relative to the folder of the videos. For a folder per class that is the given folder,
    or its parent if its own name is a split. Raises UserError.
    """
    if not paths:
        raise UserError("no files or folders of videos are given")
    notes = Notes()
    found: list[Clip] = []
    for path in paths:
        if path.is_dir():
            found += _read_folder(path, notes)
        elif path.is_file():
            found += _read_file(Material(path), notes)
        else:
            raise UserError(f"{path}: no such file or folder of annotations")
    clips: dict[tuple[str, str], Clip] = {}
    for clip in merge_rows(sorted(found, key=lambda clip: SPLITS.index(clip.split)), notes):
        first = clips.setdefault((clip.split, clip.id), clip)
        if first is not clip:
            raise UserError(f"{clip.place}: its id is that of {first.place}; give it another")
    note_both(clips.values(), notes)
    classes = sort_labels({label for clip in clips.values() for label in clip.labels})
    return Annotation(NAME, classes, tuple(clips.values()), notes.lines())


def _read_file(material: Material, notes: Notes) -> list[Clip]:
    """The rows of a file, each with its split."""
    if material.is_json:
        rows = list(read_json(material.document, notes))
    else:
        rows = list(read_csv(material, _MORE_COLUMNS))
    if not rows:
        raise UserError(f"{material.path}: no videos in it; write a line 'path,label' for each")
    return [_check(row, material.path) for row in rows]


def _check(row: Clip, file: Path) -> Clip:
    """The row with its own split, else that of the file, else the one in its path."""
    path, id = (check_path(Node(row.place, text or "")) for text in (row.path, row.id))
    if row.split:
        split = check_split(Node(row.place, row.split))
    else:
        split = find_file_split(file) or find_split(*path.split("/")[:-1]) or need_split(file)
    labels = tuple(check_label(Node(row.place, label)) for label in row.labels)
    return replace(row, path=path, id=id, labels=labels, split=split)


def _read_folder(path: Path, notes: Notes) -> list[Clip]:
    """The rows of the annotation files in a folder, or else its videos by class."""
    tables = [
        Material(file, named=False)
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix.lower() in (".csv", ".json")
    ]
    found = [table for table in tables if _has_videos(table)]
    notes.add("files without videos left out", *(str(t.path) for t in tables if t not in found))
    if found:
        return [row for table in found for row in _read_file(table, notes)]
    splits = {folder: find_split(folder) for folder in _list_folders(path, Notes())}
    if all(splits.values()):
        given = [(path / folder, path, splits[folder]) for folder in _list_folders(path, notes)]
    else:
        given = [(path, path.parent, find_split(path.name))]
    return [
        row for folder, root, split in given for row in _list_videos(folder, root, split, notes)
    ]


def _has_videos(material: Material) -> bool:
    """Whether a file found in a folder has the form described here."""
    try:
        fields = material.fields
    except UserError:
        return False
    return not fields.isdisjoint(("path", "videos")) or any(map(is_video, fields))


def _list_videos(folder: Path, root: Path, split: str, notes: Notes) -> list[Clip]:
    """A clip per video in a folder per class; ids are relative to that folder."""
    if not split:
        raise UserError(
            f"{folder}: split unknown; put the folders of the classes into folders train and val"
        )
    clips = []
    for label, files in read_class_folder(folder, notes).items():
        for file in files:
            path, id = (Path(os.path.relpath(file, base)).as_posix() for base in (root, folder))
            if path.isprintable():
                clips.append(Clip(id, split, (label,), str(file), path=path))
            else:
                notes.add("files with unprintable names: left out", ascii(path))
    return clips


def read_class_folder(path: Path, notes: Notes) -> dict[str, list[Path]]:
    """The videos in each sub-folder, by its name in the form NFC.

    Other files, and sub-folders without a video, are noted.
    Raises UserError if there are no videos.
    """
    videos: dict[str, list[Path]] = {}
    for folder in _list_folders(path, notes):
        files = find_files(path / folder, notes)
        found = [file for file in files if is_video(file.name)]
        if found:
            videos.setdefault(compose(folder), []).extend(found)
        else:
            notes.add("folders without a video: not classes", str(path / folder))
        others = (str(file) for file in files if not is_video(file.name))
        notes.add("files that are not videos by their names: left out", *others)
    if not videos:
        raise UserError(f"{path}: no videos in its sub-folders (looked for {' '.join(EXTENSIONS)})")
    return videos


def _list_folders(path: Path, notes: Notes) -> list[str]:
    """The names of the sub-folders (`select_folders`), sorted in the form NFC.

    Raises UserError if there is none.
    """
    names = (entry.name for entry in path.iterdir() if entry.is_dir())
    folders = sorted(select_folders(path, names, notes), key=compose)
    if not folders:
        raise UserError(f"{path}: no sub-folders; put the videos of each class in a folder of it")
    return folders


def read_csv(material: Material, columns: Sequence[str] = COLUMNS) -> Iterator[Clip]:
    """Read rows `path,label[,label…]`, or rows below a header with some of the columns.

    Raises UserError.
    """
    rows = list(material.cells())
    first = [cell.lower() for cell in rows[0][1]] if rows else [""]
    header = first if first[0] == "path" or {"path", "label"} <= set(first) else []
    if header:
        _check_header(rows.pop(0)[0], header, columns)
    elif not PurePath(first[0]).suffix and any(is_video(cells[0]) for _, cells in rows):
        raise UserError(
            f"{rows[0][0]}: {show(first[0])} is not a video, unlike the rows below; if it names "
            f"the columns, call them {', '.join(columns)}"
        )
    for place, cells in rows:
        names = header or ["path"] + ["label"] * (len(cells) - 1)
        check_width(place, cells, names)
        named = list(zip(names, cells, strict=True))
        labels = [cell for name, cell in named if name == "label" and cell]
        yield _create_clip(Node(place, dict(named) | {"label": None, "labels": labels}))


def _check_header(place: str, names: Sequence[str], columns: Sequence[str]) -> None:
    repeated = [name for name in names if name != "label" and names.count(name) > 1]
    missing = {"path", "label"} - set(names)
    for wrong in [*(name for name in names if name not in columns), *repeated, *missing]:
        raise UserError(
            f"{place}: column {show(wrong)} is unknown, missing or there twice; there are "
            f"{', '.join(columns)}"
        )


def read_json(document: Node, notes: Notes) -> Iterator[Clip]:
    """Read a list of objects with `path` and `label` or `labels`, or such a list under `videos`.

    They may have `split`, `id` and, in seconds, `start`, `end` and `segments`. Raises UserError.
    """
    videos = document.need("videos") if isinstance(document.value, dict) else document
    for video in videos.elements():
        unknown = (node.place for key, node in video.items() if key not in _KEYS)
        notes.add("unknown keys: ignored", *unknown)
        yield _create_clip(video)


def _create_clip(video: Node) -> Clip:
    """The clip of a row or of an object; its split may be missing or wrong. Raises UserError."""
    place, path = video.place, video.get_text("path")
    if not path:
        raise UserError(f"{place}: no path")
    nodes = [*filter(None, [video.get("label")]), *video.get_list("labels")]
    labels = tuple(
        str(node.count()) if isinstance(node.value, int) else compose(node.text().strip())
        for node in nodes
    )
    if not labels or not all(labels):
        raise UserError(f"{place}: no label; write at least one for each video")
    start, end = video.get_number("start"), video.get_number("end")
    segments = [node.interval() for node in video.get_list("segments")]
    if video.get("relevant_start") or video.get("relevant_end"):
        since, until = video.need("relevant_start"), video.need("relevant_end")
        segments.append((since.number(), until.number()))
    check_order(place, start, end)
    for segment in segments:
        check_order(f"{place}: relevant", *segment)
    return Clip(
        id=video.get_text("id") or _name_part(path, start, end),
        split=video.get_text("split"),
        labels=labels,
        place=place,
        path=path,
        start=start,
        end=end,
        segments=tuple(segments) or None,
    )


def _name_part(path: str, start: float | None, end: float | None) -> str:
    """The path; a part of a file as a W3C media fragment, `path#t=1.5,3`."""
    if start is None and end is None:
        return path
    return f"{path}#t={start or 0:.15g}" + ("" if end is None else f",{end:.15g}")


def merge_rows(rows: Iterable[Clip], notes: Notes) -> list[Clip]:
    """Merge the rows of each video, which differ only in labels or in the relevant segments.

    Duplicate rows are left out and noted.
    """
    groups: dict[tuple, dict[tuple, Clip]] = {}
    for row in rows:
        key = row.split, compose(row.path or ""), row.start, row.end
        group = groups.setdefault(key, {})
        if group.setdefault((row.labels, row.segments), row) is not row:
            notes.add("duplicate rows left out", row.place)
    merged = []
    for group in groups.values():
        labels = dict.fromkeys(label for row in group.values() for label in row.labels)
        segments = dict.fromkeys(part for row in group.values() for part in row.segments or ())
        first = next(iter(group.values()))
        merged.append(replace(first, labels=tuple(labels), segments=tuple(segments) or None))
    return merged


def sort_labels(labels: Collection[str]) -> tuple[str, ...]:
    """Sort class names, by value if all are integers."""
    integers = all(map(is_integer, labels))
    return tuple(sorted(labels, key=(lambda name: (int(name), name)) if integers else None))


def is_integer(label: str) -> bool:
    """Whether a label is a number rather than a name."""
    return label.isdecimal() and len(label) < 10
