"""A video as it is stored: some of its frames as JPEG, and what is known of it."""

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format
from jaxtyping import Float
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from sofnet_jax.data.annotations.clip import Interval
from sofnet_jax.data.annotations.files import Node
from sofnet_jax.data.video.decode import VideoError, read_footage
from sofnet_jax.data.video.jpeg import JpegError, encode_jpeg
from sofnet_jax.data.views import segment_indices
from sofnet_jax.host.errors import UserError

VERSION = 2  # of what is in a record: raise it with any change

_LATE = 1.0  # seconds that a segment may end after its video without a word of it
_SHORT_OF = 0.9  # of the annotated duration; below it a file is taken to be cut off


@dataclass(frozen=True)
class Format:
    """How frames are stored: how many, pixels of their short side at most, quality of the JPEG."""

    num_frames: int
    short_side: int
    quality: int


@dataclass(frozen=True)
class Task:
    """A clip to prepare, and where it is; `path` None: nowhere, and there is nothing to do.

    `labels` are indices of classes. `duration` is what the annotation claims, in seconds, of the
    clip; `others` are further files that could be it.
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
    """What is known of a prepared video without its frames.

    Times in seconds from the beginning of its file; `frames` is how many are stored of the
    `available` ones; `width` and `height` are the file's, in pixels.
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
        """What `dataclasses.asdict` and JSON made of one. Raises UserError if it is none."""
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
    """What was wrong with a video: its `kind` is a key of `KINDS`."""

    id: str
    kind: str
    detail: str


KINDS = {
    "missing": "no file of this name",
    "unreadable": "left out",
    "crashed": "the decoder died of it; left out",
    "slow": "took too long; left out",
    "cut off": "shorter than annotated; what there is was taken",
    "late": "segments of it begin before it, or end after it; cut, or left out",
    "short": "fewer frames than are stored of a video; all were taken",
    "duplicate": "several files; the first was taken",
}


@dataclass(frozen=True)
class Outcome:
    """What came of a task: a record and its summary, or neither, and what was wrong."""

    record: dict[str, Any] | None
    summary: Summary | None
    problems: tuple[Problem, ...]


def create_record(task: Task, form: Format) -> Outcome:
    """Reads a video and makes its record; what cannot be read is a problem, never an error."""
    problems = [Problem(task.id, "duplicate", other) for other in task.others]
    assert task.path is not None
    try:
        footage = read_footage(
            task.path,
            lambda count: segment_indices(count, min(form.num_frames, count), None),
            start=task.start,
            end=task.end,
            short_side=form.short_side,
        )
        images = [encode_jpeg(frame, form.quality) for frame in footage.frames]
    except (VideoError, JpegError) as error:
        reason = str(error) if isinstance(error, VideoError) else f"{task.path}: {error}"
        return Outcome(None, None, (*problems, Problem(task.id, "unreadable", reason)))
    claimed = task.duration
    if claimed is not None and footage.duration < _SHORT_OF * claimed:
        detail = f"{task.path}: {footage.duration:.1f} s of {claimed:.1f} s"
        problems.append(Problem(task.id, "cut off", detail))
    if footage.available < form.num_frames:
        detail = f"{task.path}: {footage.available} frames of {form.num_frames}"
        problems.append(Problem(task.id, "short", detail))
    segments = cut_segments(task.segments, task.start or 0.0, footage.end)
    if task.segments and _reaches_beyond(task.segments, task.start or 0.0, footage.end):
        detail = f"{task.path}: {task.start or 0.0:.1f} to {footage.end:.1f} s"
        problems.append(Problem(task.id, "late", detail))
    summary = Summary(
        id=task.id,
        labels=task.labels,
        frames=len(footage.frames),
        available=footage.available,
        duration=footage.duration,
        width=footage.width,
        height=footage.height,
        segments=segments,
    )
    record = _describe(summary, footage.times) | {"frames": images}
    return Outcome(record, summary, tuple(problems))


def cut_segments(
    segments: tuple[Interval, ...] | None, start: float, end: float
) -> tuple[Interval, ...] | None:
    """What of the segments is in a part of a video; None, as if not annotated, if none of them is.

    An annotation without any says that nothing is relevant, and stays.
    """
    if not segments:
        return segments
    cut = [(max(a, start), min(b, end)) for a, b in segments]
    return tuple((a, b) for a, b in cut if a < b) or None


def _reaches_beyond(segments: tuple[Interval, ...], start: float, end: float) -> bool:
    return any(a < start - _LATE or b > end + _LATE for a, b in segments)


def _describe(summary: Summary, times: Float[np.ndarray, "t"]) -> dict[str, Any]:
    """The parts of a record that are no pictures."""
    segments = np.array(summary.segments or (), np.float32).reshape(-1, 2)
    plain = asdict(summary)
    return {key: plain[key] for key in ("id", "available", "duration", "width", "height")} | {
        "labels": list(summary.labels),
        "times": times.astype(np.float32),
        "segments": segments,
        "localised": summary.segments is not None,
    }


def create_features(classes: Sequence[str] | None) -> tfds.features.FeaturesDict:
    """The features of a record (see `record`); the classes are None until they are read from disk.

    `frames` are the bytes of JPEGs, not images, since TFDS decodes those with TensorFlow alone.
    `times` (of the frames), `segments` (of the action) and `duration` are seconds. `localised` is
    false where the action's segments are not annotated.
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
    """What TFDS writes of them into its features.json."""
    return json_format.MessageToDict(create_features(classes).to_proto())


@functools.lru_cache(maxsize=1)
def _create_serialiser(classes: tuple[str, ...]) -> tuple[Any, ExampleSerializer]:
    features = create_features(classes)
    return features, ExampleSerializer(features.get_serialized_info())


def serialise(record: dict[str, Any], classes: tuple[str, ...]) -> bytes:
    """A record as TFDS writes it; equal records are equal bytes."""
    features, serialiser = _create_serialiser(classes)
    example = serialiser.get_tf_example(features.encode_example(record))
    return example.SerializeToString(deterministic=True)
