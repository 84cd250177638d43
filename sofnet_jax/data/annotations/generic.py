"""Videos of one's own for `prepare`: a folder for each class, CSV, or JSON."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from sofnet_jax.data.annotations.assembly import note_both
from sofnet_jax.data.annotations.cell import show
from sofnet_jax.data.annotations.class_folder import list_folders, read_class_folder
from sofnet_jax.data.annotations.clip import SPLITS, Annotation, Clip
from sofnet_jax.data.annotations.extension import EXTENSIONS, is_video
from sofnet_jax.data.annotations.identity import check_label, check_path
from sofnet_jax.data.annotations.material import Material, find_files
from sofnet_jax.data.annotations.note import Notes
from sofnet_jax.data.annotations.own_row import (
    MORE_COLUMNS,
    OwnRow,
    group_rows,
    is_header,
    name_video,
    read_csv,
    read_json,
    sort_labels,
)
from sofnet_jax.data.annotations.split import find_split, parse_split
from sofnet_jax.host.errors import UserError

__all__ = ["EXTENSIONS", "NAME", "find_files", "read"]
NAME = "videos"


def read(paths: Sequence[Path]) -> Annotation:
    """Reads CSV and JSON files, and folders with one folder per class, or of such files.

    Paths are relative to the folder of the videos, which for a folder per class is the one that is
    given, or the one above it if its own name tells the split. Raises UserError.
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
        rows = list(read_csv(material, MORE_COLUMNS))
    if not rows:
        raise UserError(f"{material.path}: no videos in it; write a line 'path,label' for each")
    return [_set_split(row, find_split(material.path)) for row in rows]


def _set_split(row: OwnRow, split_of_file: str | None) -> OwnRow:
    """The row with one of our splits: its own, or that of the file, or that in the path."""
    path = check_path(row.place, row.path)
    if row.split is None:
        found = {s for part in PurePosixPath(path).parts[:-1] if (s := parse_split(part))}
        split = split_of_file or (found.pop() if len(found) == 1 else None)
        if split is None:
            raise UserError(
                f"{row.place}: nothing tells the split; add a column 'split' with train and val, "
                "or put one of them into the name of the file"
            )
    else:
        split = parse_split(row.split)
        if split is None:
            raise UserError(f"{row.place}: the split is {show(row.split)}; write train or val")
    return replace(row, path=path, split=split)


def _read_folder(path: Path, notes: Notes) -> list[OwnRow]:
    """The rows of the files in a folder that tell of videos, or its videos by class."""
    tables = [
        Material(file, named=False)
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix.lower() in (".csv", ".json")
    ]
    found = [table for table in tables if _is_own(table)]
    notes.add_all(
        "files left out, which tell of no videos", (str(t.path) for t in tables if t not in found)
    )
    if found:
        return [row for table in found for row in _read_file(table, notes)]
    folders = list_folders(path)
    if all(parse_split(folder) for folder in folders):
        splits = {folder: parse_split(folder) or "" for folder in folders}
        return [
            row
            for folder, split in splits.items()
            for row in _list(path / folder, path, split, notes)
        ]
    named = parse_split(path.name)
    if named is None:
        raise UserError(
            f"{path}: nothing tells the split; put the folders of the classes into folders train "
            "and val"
        )
    return _list(path, path.parent, named, notes)


def _is_own(material: Material) -> bool:
    """Whether a file that was found tells of videos as ours do."""
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
    return is_header(cells) or (len(cells) > 1 and is_video(cells[0].strip().strip('"')))


def _list(folder: Path, root: Path, split: str, notes: Notes) -> list[OwnRow]:
    """A row for each video in a folder per class; its id is relative to that folder."""
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
                notes.add("files with names that cannot be shown: left out", ascii(path))
    return rows


def _create_clips(rows: Sequence[OwnRow], notes: Notes) -> Iterator[Clip]:
    groups, repeated = group_rows(rows)
    notes.add_all("rows that repeat an earlier one: left out", (n.split(": ")[0] for n in repeated))
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
