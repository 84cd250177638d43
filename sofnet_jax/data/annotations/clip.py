"""Clips: the videos that annotation files describe."""

from collections.abc import Iterable
from dataclasses import dataclass

from sofnet_jax.data.annotations.files import Node, Notes

Interval = tuple[float, float]  # seconds

SPLITS = ("train", "val")

# While files are read, a clip may be of these splits, too.
LEFT_OUT = {
    "testing": "test videos, whose labels are not public: left out",
    "background": "videos of the background set, without a class: left out",
}


@dataclass(frozen=True)
class Clip:
    """A video, or its part from `start` to `end` seconds.

    `names` are the file names, without extension, that the whole video may have; `trimmed` those of
    a file that contains only the part. Both are matched as in `library`: a leading `v_` is ignored.
    `path`, where the files give one, is relative to the folder of the videos and may lack its
    extension.
    """

    id: str  # unique in its split
    split: str  # of SPLITS; while files are read, "" if only a list can decide it
    labels: tuple[str, ...]  # class names, each once
    place: str  # <file>:<row> that describes it, for messages
    names: tuple[str, ...] = ()
    trimmed: tuple[str, ...] = ()
    path: str | None = None
    start: float | None = None
    end: float | None = None
    segments: tuple[Interval, ...] | None = None  # of its action; None: not annotated
    duration: float | None = None  # seconds, as the files claim
    num_frames: int | None = None  # as the files claim
    background: bool = False  # annotated as resembling its classes without showing them
    numbers: tuple[int, ...] = ()  # of its classes, as a list counts them; () once they are named


@dataclass(frozen=True)
class Annotation:
    """All clips of a benchmark, its class names in order, and notes on oddities, a line each.

    Classes are in the order of their names: the numbers in a list are used by its reader only.
    """

    name: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...]
    notes: tuple[str, ...] = ()


def read_duration(node: Node | None, notes: Notes) -> float | None:
    """Seconds; None, with a note, if they are not positive."""
    seconds = node.number() if node else 0.0
    if node and seconds <= 0:
        notes.add("durations that are not positive: taken as unknown", node.place)
    return seconds if seconds > 0 else None


def clean_segments(
    segments: Iterable[tuple[str, Interval]], duration: float | None, notes: Notes
) -> tuple[Interval, ...] | None:
    """Cut (place, interval) pairs to the video and remove duplicates; None if none is left.

    Errors in segments are noted, not raised: they affect neither labels nor identities.
    """
    kept: dict[Interval, None] = {}
    for place, (start, end) in segments:
        interval = (max(start, 0.0), end if duration is None else min(end, duration))
        example = f"{place} {start:g} to {end:g} s"
        if interval[0] >= interval[1]:
            notes.add("segments left out: they contain nothing of their video", example)
            continue
        if interval != (start, end):
            notes.add("segments cut to their video", example)
        if interval in kept:
            notes.add("duplicate segments left out", example)
        kept[interval] = None
    return tuple(kept) or None
