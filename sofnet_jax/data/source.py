"""Labelled videos: a folder per class, or a CSV file.

A `Source` holds any sequence of `Example`s. One for prepared data (frames stored as JPEG, say) is
a sequence whose items have the four members of `Example`; the pipeline asks for nothing else.
"""

import csv
import difflib
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from sofnet_jax.data.decode import Choose, read_frames
from sofnet_jax.errors import UserError

EXTENSIONS = tuple(
    ".mp4 .avi .mkv .webm .mov .m4v .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .vob".split()
)

Interval = tuple[float, float]  # seconds

_TIMES = ("start", "end", "relevant_start", "relevant_end")  # optional columns of a CSV file


@runtime_checkable
class Example(Protocol):
    """What the pipeline needs to know of a video."""

    @property
    def id(self) -> str:
        """Its name in predictions, unique in its source."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Its classes, as indices."""

    @property
    def relevant(self) -> tuple[Interval, ...] | None:
        """Where its action is, in seconds; None if that is not annotated."""

    def read(self, choose: Choose) -> tuple[UInt8[np.ndarray, "t h w 3"], Float[np.ndarray, "t"]]:
        """The chosen frames and their times in seconds. Raises VideoError."""


@dataclass(frozen=True)
class Video:
    """An `Example` in a video file, or in its part from `start` to `end` seconds."""

    id: str
    path: str
    labels: tuple[int, ...]
    start: float | None = None
    end: float | None = None
    relevant: tuple[Interval, ...] | None = None

    def read(self, choose: Choose) -> tuple[UInt8[np.ndarray, "t h w 3"], Float[np.ndarray, "t"]]:
        """See `Example.read`; the times count from the beginning of the file, not from `start`."""
        return read_frames(self.path, choose, start=self.start, end=self.end)


@dataclass(frozen=True)
class Source:
    """Videos, the names of their classes, and what is odd about them (a line each)."""

    videos: Sequence[Example]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> Example:
        return self.videos[i]


def create_source(path: str | os.PathLike, *, classes: Sequence[str] | None = None) -> Source:
    """Lists the videos in a folder with one sub-folder per class, or in a CSV file.

    The CSV file has the columns `path,label[,label…]`, or a header with the columns `path`, `label`
    (one or more) and, in seconds, `start`, `end`, `relevant_start`, `relevant_end`; rows that
    differ in the relevant interval alone are one video. Paths are relative to the CSV file.

    `classes` are those of the training data when this is validation data. Without them, the names
    found here are the classes: sorted, by value if all are integers. With them, integer labels
    are indices of classes. Files are not opened: what cannot be read is found when it is wanted.
    Raises UserError.
    """
    path = Path(path)
    if path.is_dir():
        source = _create_folder_source(path, classes)
    elif path.is_file():
        source = _create_csv_source(path, classes)
    else:
        raise UserError(f"{path}: no such folder or CSV file")
    found = {label for video in source.videos for label in video.labels}
    empty = [name for i, name in enumerate(source.classes) if i not in found]
    return replace(source, notes=source.notes + tuple(f"{path}: no video of '{c}'" for c in empty))


def _create_folder_source(path: Path, classes: Sequence[str] | None) -> Source:
    folders = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise UserError(f"{path}: no sub-folders; put the videos of each class in a folder of it")
    names = tuple(folders if classes is None else classes)
    index = {name: i for i, name in enumerate(names)}
    videos: list[Video] = []
    others: list[Path] = []
    for folder in folders:
        if folder not in index:
            raise UserError(f"{path / folder}: {_unknown(folder, names)}")
        files = _find_files(path / folder)
        others += [file for file in files if not _is_video(file)]
        for file in filter(_is_video, files):
            name = file.relative_to(path).as_posix()
            videos.append(Video(id=name, path=str(file), labels=(index[folder],)))
    if not videos:
        raise UserError(f"{path}: no videos in its sub-folders (looked for {' '.join(EXTENSIONS)})")
    return Source(tuple(videos), names, _note_left_out(others))


def _note_left_out(files: Sequence[Path]) -> tuple[str, ...]:
    """A line on the files that are not videos, if there are any."""
    if not files:
        return ()
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    return (f"{files[0]}{more}: not a video by its name; left out",)


def _is_video(file: Path) -> bool:
    return file.name.lower().endswith(EXTENSIONS)


def _find_files(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, sorted; follows links, but not in circles."""
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(parent, f) for f in files if f[0] != "."]
    return sorted(found)


@dataclass(frozen=True)
class _Row:
    """A row of the CSV file; `place` is `<file>:<line>`."""

    place: str
    path: str
    labels: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    relevant: Interval | None = None


def _create_csv_source(path: Path, classes: Sequence[str] | None) -> Source:
    rows = list(_read_rows(path))
    if not rows:
        raise UserError(f"{path}: no videos in it; write a line 'path,label' for each")
    names, index = _index_labels(rows, classes)
    groups: dict[tuple, list[_Row]] = {}
    notes = []
    for row in rows:
        group = groups.setdefault((row.path, row.start, row.end), [])
        same = next(
            (r for r in group if (r.labels, r.relevant) == (row.labels, row.relevant)), None
        )
        if same:
            notes.append(f"{row.place}: repeats {same.place}; left out")
        else:
            group.append(row)
    videos = tuple(_merge(group, path.parent, names, index) for group in groups.values())
    return Source(videos, names, tuple(notes))


def _merge(
    rows: Sequence[_Row], folder: Path, names: Sequence[str], index: dict[str, int]
) -> Video:
    """The video that some rows tell of, which differ in labels or in the relevant interval."""
    row = rows[0]
    labels = [(r.place, label) for r in rows for label in r.labels]
    for place, label in labels:
        if label not in index:
            raise UserError(f"{place}: {_unknown(label, names)}")
    return Video(
        id=row.path + _fragment(row.start, row.end),
        path=str(folder / row.path),
        labels=tuple(dict.fromkeys(index[label] for _, label in labels)),
        start=row.start,
        end=row.end,
        relevant=tuple(dict.fromkeys(r.relevant for r in rows if r.relevant)) or None,
    )


def _fragment(start: float | None, end: float | None) -> str:
    """A part of a file as the W3C's media fragments write it: #t=1.5,3."""
    if start is None and end is None:
        return ""
    return f"#t={start or 0:.15g}" + ("" if end is None else f",{end:.15g}")


def _index_labels(
    rows: Sequence[_Row], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of the classes, and the class of each label that is known."""
    labels = {label for row in rows for label in row.labels}
    integers = all(label.isdecimal() for label in labels)
    if classes is None:
        names = tuple(sorted(labels, key=(lambda name: (int(name), name)) if integers else None))
    else:
        names = tuple(classes)
        if integers and not any(name.isdecimal() for name in names):
            return names, {label: int(label) for label in labels if int(label) < len(names)}
    return names, {name: i for i, name in enumerate(names)}


def _unknown(label: str, names: Sequence[str]) -> str:
    if label.isdecimal() and not any(name.isdecimal() for name in names):
        return f"label {label} is out of range; the {len(names)} classes are counted from 0"
    closest = difflib.get_close_matches(label, names, n=1, cutoff=0.0)
    return f"'{label}' is not a class" + (f"; the closest is '{closest[0]}'" if closest else "")


def _read_rows(path: Path) -> Iterator[_Row]:
    lines = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    header: list[str] | None = None
    first = True
    try:
        for line in lines:
            cells = [cell.strip() for cell in line]
            place = f"{path}:{lines.line_num}"
            if not any(cells):
                continue
            columns = [cell.lower() for cell in cells]
            if first and (columns[0] == "path" or {"path", "label"} <= set(columns)):
                header = _check_header(place, columns)
            else:
                yield _parse_row(place, cells, header)
            first = False
    except csv.Error as error:
        raise UserError(f"{path}:{lines.line_num}: not CSV ({error}); check the quotes") from error


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{row}: not UTF-8 text; save it as CSV in UTF-8") from error


def _check_header(place: str, columns: list[str]) -> list[str]:
    unknown = [column for column in columns if column not in ("path", "label", *_TIMES)]
    if unknown:
        raise UserError(
            f"{place}: unknown column '{unknown[0]}'; there are path, label, {', '.join(_TIMES)}"
        )
    repeated = [c for c in columns if c != "label" and columns.count(c) > 1]
    if repeated:
        raise UserError(f"{place}: two columns '{repeated[0]}'; leave one")
    if "label" not in columns:
        raise UserError(f"{place}: no column 'label'; add one")
    return columns


def _parse_row(place: str, cells: list[str], header: list[str] | None) -> _Row:
    """Reads a row; without a header all cells after the first are labels."""
    columns = header or ["path"] + ["label"] * (len(cells) - 1)
    if len(cells) != len(columns):
        raise UserError(f"{place}: {len(cells)} columns where the header has {len(columns)}")
    named = list(zip(columns, cells, strict=True))
    values = {name: cell for name, cell in named if name != "label"}
    labels = tuple(cell for name, cell in named if name == "label" and cell)
    if not values["path"]:
        raise UserError(f"{place}: no path")
    if not labels:
        raise UserError(f"{place}: no label; write 'path,label'")
    times = {name: _parse_time(place, name, values.get(name, "")) for name in _TIMES}
    for first, last in (_TIMES[:2], _TIMES[2:]):
        start, end = times[first] or 0.0, times[last]
        if end is not None and end <= start:
            raise UserError(f"{place}: {last} {end:g} is not after {first} {start:g}")
    since, until = times["relevant_start"], times["relevant_end"]
    if (since is None) != (until is None):
        raise UserError(f"{place}: relevant_start and relevant_end go together; give both or none")
    relevant = None if since is None or until is None else (since, until)
    return _Row(place, values["path"], labels, times["start"], times["end"], relevant)


def _parse_time(place: str, name: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        time = float(cell)
    except ValueError:
        time = math.nan
    if not (math.isfinite(time) and time >= 0):
        raise UserError(f"{place}: {name} is '{cell}'; give seconds, such as 12.5")
    return time
