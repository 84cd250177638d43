"""Labelled videos: a folder per class, or a CSV file.

A `Source` holds any sequence of `Example`s, whose four members are all that the pipeline needs.
"""

import difflib
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from sofnet_jax.data.annotations.clip import Clip, Interval
from sofnet_jax.data.annotations.files import Material, Notes
from sofnet_jax.data.annotations.names import compose
from sofnet_jax.data.annotations.own import (
    is_integer,
    merge_rows,
    read_class_folder,
    read_csv,
    sort_labels,
)
from sofnet_jax.data.video.decode import Choose, Frames, read_frames
from sofnet_jax.data.views import Look, show
from sofnet_jax.host.errors import UserError, explain_unreadable
from sofnet_jax.host.paths import expand, find_spelling

Shown = tuple[UInt8[np.ndarray, "t size size 3"], Float[np.ndarray, "t"]]


@runtime_checkable
class Example(Protocol):
    """A labelled video, as the pipeline sees it."""

    @property
    def id(self) -> str:
        """Its name in predictions, unique in its source."""

    @property
    def labels(self) -> tuple[int, ...]:
        """Its classes, as indices."""

    @property
    def relevant(self) -> tuple[Interval, ...] | None:
        """The intervals of its action in seconds; None if not annotated."""

    def read(self, choose: Choose, look: Look) -> Shown:
        """Read the view `look` of the chosen frames, and their times. Raises VideoError."""


@dataclass(frozen=True)
class Video:
    """An `Example` in a video file, or in a section of it from `start` to `end` seconds."""

    id: str
    path: str
    labels: tuple[int, ...]
    start: float | None = None
    end: float | None = None
    relevant: tuple[Interval, ...] | None = None
    short_side: int = 0  # pixels; larger frames are first scaled down to it; 0: never
    keep: bool = False  # whether to keep all frames in memory once they are decoded

    def read(self, choose: Choose, look: Look) -> Shown:
        """See `Example.read`; the times count from the beginning of the file, not from `start`."""
        if self.keep:
            frames, times = self._kept
            chosen = choose(len(frames))
            frames, times = frames[chosen], times[chosen]
        else:
            frames, times = self._decode(choose)
        return show(frames, look(*frames.shape[1:3])), times

    @functools.cached_property
    def _kept(self) -> Frames:
        return self._decode(np.arange)

    def _decode(self, choose: Choose) -> Frames:
        return read_frames(
            self.path, choose, start=self.start, end=self.end, short_side=self.short_side
        )


@dataclass(frozen=True)
class Source:
    """Videos, the names of their classes, and remarks on them (a line each)."""

    videos: Sequence[Example]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, i: int) -> Example:
        return self.videos[i]


Part = Literal["all", "most", "held out"]


def select_part(source: Source, part: Part, held_out: float) -> Source:
    """Some of the videos: all, or one of two parts that share none.

    In every class, a share `held_out` of the videos, by a hash of their names, is held out.
    """
    if part == "all":
        return source
    by_class: dict[int, list[Example]] = {}
    for video in sorted(source.videos, key=lambda video: blake2b(video.id.encode()).digest()):
        by_class.setdefault(video.labels[0], []).append(video)
    apart = {
        video.id
        for videos in by_class.values()
        for video in videos[: round(held_out * len(videos))]
    }
    chosen = [v for v in source.videos if (v.id in apart) == (part == "held out")]
    return replace(source, videos=chosen)


@explain_unreadable()
def create_source(
    path: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    short_side: int = 0,
    keep: bool = False,
) -> Source:
    """List the videos in a folder with one sub-folder per class, or in a CSV file.

    The CSV file has the columns `path,label[,label…]`, or a header with the columns `path`, `label`
    (one or more) and, in seconds, `start`, `end`, `relevant_start`, `relevant_end`; rows that
    differ only in the relevant interval are one video. Paths are relative to the CSV file.

    For validation data, `classes` are those of the training data, and integer labels are indices
    of them. Without `classes`, the names found are sorted, by value if all are integers. Videos are
    not opened before they are read. For `short_side` and `keep` see `Video`. Raises UserError.
    """
    path = Path(expand(path))
    if path.is_dir():
        videos, names, notes = _list_folder(path, classes)
    elif path.is_file():
        videos, names, notes = _list_csv(path, classes)
    else:
        raise UserError(
            f"{path}: no such file or folder; give a folder with one "
            "sub-folder per class, or a CSV of path,label"
        )
    found = {label for video in videos for label in video.labels}
    empty = [name for i, name in enumerate(names) if i not in found]
    return Source(
        tuple(replace(video, short_side=short_side, keep=keep) for video in videos),
        names,
        (*notes, *(f"{path}: no video of '{name}'" for name in empty)),
    )


_Listing = tuple[list[Video], tuple[str, ...], Sequence[str]]  # videos, classes, notes


def _list_folder(path: Path, classes: Sequence[str] | None) -> _Listing:
    notes = Notes()
    found = read_class_folder(path, notes)
    names = tuple(found if classes is None else classes)
    index = {compose(name): i for i, name in enumerate(names)}
    videos: list[Video] = []
    for folder, files in found.items():
        if folder not in index:
            raise UserError(f"{path / folder}: {_unknown(folder, names)}")
        for file in files:
            name = file.relative_to(path).as_posix()
            videos.append(Video(name, str(file), (index[folder],)))
    return videos, names, notes.lines()


def _list_csv(path: Path, classes: Sequence[str] | None) -> _Listing:
    rows = list(read_csv(Material(path)))
    if not rows:
        raise UserError(f"{path}: no videos in it; write a line 'path,label' for each")
    names, index = _index_labels(rows, classes)
    for row in rows:
        for label in row.labels:
            if label not in index:
                raise UserError(f"{row.place}: {_unknown(label, names)}")
    notes = Notes()
    videos = [
        Video(
            id=clip.id,
            path=find_spelling(str(path.parent / expand(clip.path or ""))),
            labels=tuple(dict.fromkeys(index[label] for label in clip.labels)),
            start=clip.start,
            end=clip.end,
            relevant=clip.segments,
        )
        for clip in merge_rows(rows, notes)
    ]
    return videos, names, notes.lines()


def _index_labels(
    rows: Sequence[Clip], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The names of the classes, and the class of each known label."""
    labels = {label for row in rows for label in row.labels}
    if classes is None:
        names = sort_labels(labels)
    else:
        names = tuple(classes)
        integers = all(map(is_integer, labels))
        if integers and not any(name.isdecimal() for name in names):
            return names, {label: int(label) for label in labels if int(label) < len(names)}
    return names, {compose(name): i for i, name in enumerate(names)}


def _unknown(label: str, names: Sequence[str]) -> str:
    if label.isdecimal() and not any(name.isdecimal() for name in names):
        return f"label {label} is out of range; the {len(names)} classes are counted from 0"
    closest = difflib.get_close_matches(label, names, n=1, cutoff=0.0)
    return f"'{label}' is not a class" + (f"; the closest is '{closest[0]}'" if closest else "")
