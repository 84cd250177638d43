"""A video as it is stored: some of its frames as JPEG, and their description."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from sofnet_jax.data.annotations.clip import Interval
from sofnet_jax.data.annotations.files import Node
from sofnet_jax.data.video.container import VideoError
from sofnet_jax.data.video.jpeg import JpegError, encode_jpeg
from sofnet_jax.data.video.reader import VideoReader
from sofnet_jax.data.views import segment_indices
from sofnet_jax.host.errors import UserError

VERSION = 2  # of the content of a record; raise it with any change

_LATE = 1.0  # seconds that a segment may reach beyond its video without being reported
_STORED = ("id", "available", "duration", "width", "height")  # as they are in the summary
_SHORT_OF = 0.9  # share of the annotated duration; a shorter file counts as cut off


@dataclass(frozen=True)
class Format:
    """How frames are stored: their number, their largest short side in pixels, JPEG quality."""

    num_frames: int
    short_side: int
    quality: int


@dataclass(frozen=True)
class Task:
    """A clip to prepare, and its file; None as `path`: it has none.

    `labels` are indices of classes. `duration` is the annotated one of the clip, in seconds;
    `others` are further files that could be the clip. Names of shards depend on this class's repr.
    """

    id: str
    labels: tuple[int, ...]
    path: str | None
    start: float | None = None
    end: float | None = None
    segments: tuple[Interval, ...] | None = None
    duration: float | None = None
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """A prepared video without its frames.

    Times are seconds from the beginning of its file; `frames` of the `available` frames are stored;
    `width` and `height` are the file's, in pixels.
    """

    id: str
    labels: tuple[int, ...]
    frames: int
    available: int
    duration: float
    width: int
    height: int
    segments: tuple[Interval, ...] | None

    @classmethod
    def from_json(cls, video: Node) -> "Summary":
        """Read what `dataclasses.asdict` and JSON wrote. Raises UserError if it is damaged."""
        labels = video.need("labels")
        if not labels.elements():
            raise UserError(f"{labels.place}: empty")
        segments = video.get("segments")
        return cls(
            id=video.need("id").text(),
            labels=tuple(label.count() for label in labels.elements()),
            frames=video.need("frames").count(),
            available=video.need("available").count(),
            duration=video.need("duration").number(),
            width=video.need("width").count(),
            height=video.need("height").count(),
            segments=None if segments is None else tuple(s.interval() for s in segments.elements()),
        )


@dataclass(frozen=True)
class Problem:
    """A problem with a video; `kind` is a key of `KINDS`."""

    id: str
    kind: str
    detail: str


KINDS = {
    "missing": "no file of this name",
    "unreadable": "left out",
    "crashed": "crashed the decoder; left out",
    "slow": "took too long; left out",
    "cut off": "shorter than annotated; stored as far as it goes",
    "late": "segments reach beyond the video; cut or left out",
    "short": "fewer frames than are to be stored; all were stored",
    "duplicate": "several files; the first was used",
}


@dataclass(frozen=True)
class TaskResult:
    """A record and its summary, or neither, and the problems."""

    record: dict[str, Any] | None
    summary: Summary | None
    problems: tuple[Problem, ...]


def create_record(task: Task, form: Format) -> TaskResult:
    """Read a video and create its record; an unreadable one is a problem, never an error."""
    problems = [Problem(task.id, "duplicate", other) for other in task.others]
    assert task.path is not None
    try:
        with VideoReader(task.path, short_side=form.short_side) as reader:
            footage = reader.read_footage(
                lambda count: segment_indices(count, min(form.num_frames, count), None),
                start=task.start,
                end=task.end,
            )
        images = [encode_jpeg(frame, form.quality) for frame in footage.frames]
    except (VideoError, JpegError) as error:
        reason = str(error) if isinstance(error, VideoError) else f"{task.path}: {error}"
        return TaskResult(None, None, (*problems, Problem(task.id, "unreadable", reason)))

    def report(kind: str, detail: str) -> None:
        problems.append(Problem(task.id, kind, f"{task.path}: {detail}"))

    claimed, start, end = task.duration, task.start or 0.0, footage.end
    if claimed is not None and footage.duration < _SHORT_OF * claimed:
        report("cut off", f"{footage.duration:.1f} s of {claimed:.1f} s")
    if footage.available < form.num_frames:
        report("short", f"{footage.available} frames of {form.num_frames}")
    if any(a < start - _LATE or b > end + _LATE for a, b in task.segments or ()):
        report("late", f"{start:.1f} to {end:.1f} s")
    summary = Summary(
        id=task.id,
        labels=task.labels,
        frames=len(footage.frames),
        available=footage.available,
        duration=footage.duration,
        width=footage.width,
        height=footage.height,
        segments=cut_segments(task.segments, start, end),
    )
    segments = np.array(summary.segments or (), np.float32).reshape(-1, 2)
    record = {key: getattr(summary, key) for key in _STORED} | {
        "labels": list(summary.labels),
        "frames": images,
        "times": footage.times.astype(np.float32),
        "segments": segments,
        "localised": summary.segments is not None,
    }
    return TaskResult(record, summary, tuple(problems))


def cut_segments(
    segments: tuple[Interval, ...] | None, start: float, end: float
) -> tuple[Interval, ...] | None:
    """Cut segments to a section of a video; None, as if not annotated, if none is inside.

    An annotation without segments says that nothing is relevant, and stays as it is.
    """
    if not segments:
        return segments
    cut = [(max(a, start), min(b, end)) for a, b in segments]
    return tuple((a, b) for a, b in cut if a < b) or None


def create_features(classes: Sequence[str] | None) -> tfds.features.FeaturesDict:
    """The features of a record; `classes` is None if they are to be read from disk.

    `frames` are the bytes of JPEGs, not images, since TFDS needs TensorFlow to decode those.
    `times` (of the frames), `segments` (of the action) and `duration` are seconds. `localised` is
    false if the action's segments are not annotated.
    """
    label = tfds.features.ClassLabel(names=None if classes is None else list(classes))
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "labels": tfds.features.Sequence(label),
            "frames": tfds.features.Tensor(shape=(None,), dtype=np.object_),
            "times": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "segments": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
            "localised": tfds.features.Scalar(dtype=np.bool_),
            "available": tfds.features.Scalar(dtype=np.int64),
            "duration": tfds.features.Scalar(dtype=np.float32),
            "width": tfds.features.Scalar(dtype=np.int64),
            "height": tfds.features.Scalar(dtype=np.int64),
        }
    )


def describe_features(classes: Sequence[str]) -> Any:
    """The content of TFDS's features.json."""
    return json_format.MessageToDict(create_features(classes).to_proto())


@functools.lru_cache(maxsize=1)
def _create_serialiser(classes: tuple[str, ...]) -> tuple[Any, ExampleSerializer]:
    features = create_features(classes)
    return features, ExampleSerializer(features.get_serialized_info())


def serialise(record: dict[str, Any], classes: tuple[str, ...]) -> bytes:
    """Serialise a record as TFDS does; equal records give equal bytes."""
    features, serialiser = _create_serialiser(classes)
    example = serialiser.get_tf_example(features.encode_example(record))
    return example.SerializeToString(deterministic=True)
