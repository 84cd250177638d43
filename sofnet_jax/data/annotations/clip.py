"""What the files of a benchmark say of its videos, before any of these is looked for."""

from dataclasses import dataclass

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
