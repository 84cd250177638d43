"""Clips: the videos that annotation files describe."""

from collections.abc import Iterable
from dataclasses import dataclass

from sofnet_jax.data.annotations.files import Notes

Interval = tuple[float, float]  # seconds

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Clip:
    """A video, or its part from `start` to `end` seconds.

    `names` are the names, without extension, that a file of the whole video may have; `trimmed`
    those of a file that is the part alone. Both are compared as `library` does it: `v_` in front is
    ignored. `path`, where the files give one, is relative to the folder of the videos instead, and
    may lack its extension.
    """

    id: str  # unique in its split
    split: str  # of SPLITS
    labels: tuple[str, ...]  # names of classes, each once
    place: str  # <file>:<row> that tells of it, for messages
    names: tuple[str, ...] = ()
    trimmed: tuple[str, ...] = ()
    path: str | None = None
    start: float | None = None
    end: float | None = None
    segments: tuple[Interval, ...] | None = None  # of its action; None: not annotated
    duration: float | None = None  # seconds, as the files claim
    num_frames: int | None = None  # as the files claim
    background: bool = False  # by the files it only resembles its classes, and shows none of them


@dataclass(frozen=True)
class Annotation:
    """All clips of a benchmark, the names of its classes in order, and what is odd (a line each).

    The order of the classes is that of their names: no list's private numbers get further than the
    reader of that list.
    """

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    notes: tuple[str, ...] = ()


_ROUNDING = 1.0  # seconds


def clean_segments(
    segments: Iterable[tuple[str, Interval]], duration: float | None, notes: Notes
) -> tuple[Interval, ...] | None:
    """The (place, interval) that lie in the video, each once, cut at its ends; None if none does.

    Segments decide neither a label nor which video it is, so that what is wrong with them is noted.
    """
    kept: dict[Interval, None] = {}
    for place, (start, end) in segments:
        problem = _find_problem(start, end, duration)
        if problem:
            notes.add(f"segments left out: {problem}", f"{place} {start:g} to {end:g} s")
            continue
        if start < 0:
            notes.add("segments cut: they begin before their video", f"{place} {start:g} s")
        if duration is not None and end > duration:
            by = f"up to {_ROUNDING:g} s" if end <= duration + _ROUNDING else "more than that"
            notes.add(
                f"segments cut: they end after their video, by {by}",
                f"{place} {end:g} of {duration:g} s",
            )
        interval = (max(start, 0.0), end if duration is None else min(end, duration))
        if interval in kept:
            notes.add("segments given twice: taken once", f"{place} {start:g} to {end:g} s")
        kept[interval] = None
    return tuple(kept) or None


def _find_problem(start: float, end: float, duration: float | None) -> str | None:
    if end < start:
        return "they end before they begin"
    if end == start:
        return "they have no length"
    if end <= 0:
        return "they end before their video"
    if duration is not None and start >= duration:
        return "they begin after their video"
    return None
