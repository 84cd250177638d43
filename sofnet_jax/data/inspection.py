"""Looks at a data set, prepared or not: what is in it, and how the network will see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sofnet_jax.data.contact_sheet import Sample, draw_contact_sheet
from sofnet_jax.data.decode import VideoError, probe
from sofnet_jax.data.jpeg import JpegError, decode_jpegs
from sofnet_jax.data.manifest import find_version, read_classes
from sofnet_jax.data.pipeline import mark_relevant
from sofnet_jax.data.prepared import PreparedVideo, list_all_videos, read_record
from sofnet_jax.data.record import Format, Summary, Task, create_record, cut_segments
from sofnet_jax.data.sampling import segment_indices
from sofnet_jax.data.survey import describe_split
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.workers import map_in_order

VIDEOS, FRAMES = 4, 8  # of each split on the contact sheet


@dataclass(frozen=True)
class Sheet:
    """Where to draw the contact sheet, and how: see `contact_sheet`."""

    path: Path
    size: int
    scales: tuple[float, ...]
    seed: int


def inspect_prepared(path: Path, sheet: Sheet) -> list[str]:
    """Lines on what `prepare` wrote, and a contact sheet of it. Raises UserError."""
    folder = find_version(path)
    classes = read_classes(folder)
    lines: list[str] = []
    samples: list[Sample] = []
    for split, videos in list_all_videos(folder).items():
        lines += describe_split(split, [video.summary for video in videos], classes)
        samples += [_show(videos[i], classes) for i in _pick(len(videos), sheet.seed)]
    return _draw(samples, sheet, lines)


def inspect_tasks(
    tasks: Mapping[str, Sequence[Task]], classes: Sequence[str], sheet: Sheet, num_workers: int
) -> list[str]:
    """The same of videos that are not prepared; their lengths are those their headers claim."""
    lines: list[str] = []
    samples: list[Sample] = []
    for split, part in tasks.items():
        there = [task for task in part if task.path is not None]
        found = map_in_order(_probe, there, num_workers=num_workers, time_limit=60.0)
        summaries = [summary for summary in found if isinstance(summary, Summary)]
        counts = f"{len(there):,} are there, {len(summaries):,} open"
        lines.append(f"{split}: of {len(part):,} annotated videos {counts}")
        if summaries:
            lines += describe_split(split, summaries, classes)
        samples += _sample(split, there, classes, sheet.seed)
    return _draw(samples, sheet, lines)


def _show(video: PreparedVideo, classes: Sequence[str]) -> Sample:
    """A prepared video. Raises UserError if its record is damaged."""
    try:
        return _create_sample(video.split, video.summary, classes, read_record(video))
    except VideoError as error:
        raise UserError(str(error)) from error
    except JpegError as error:
        raise UserError(f"{video.folder}: {video.id}: {error}") from error


def _probe(task: Task) -> Summary | None:
    try:
        assert task.path is not None
        duration, width, height = probe(task.path)
    except VideoError:
        return None
    start, end = task.start or 0.0, min(task.end or duration, duration)
    segments = cut_segments(task.segments, start, end)
    return Summary(task.id, task.labels, 0, 0, max(end - start, 0.0), width, height, segments)


def _sample(split: str, tasks: Sequence[Task], classes: Sequence[str], seed: int) -> list[Sample]:
    samples = []
    for i in _pick(len(tasks), seed):
        outcome = create_record(tasks[i], Format(FRAMES, 256, 90))
        if outcome.record is not None and outcome.summary is not None:
            samples.append(_create_sample(split, outcome.summary, classes, outcome.record))
    return samples


def _pick(count: int, seed: int) -> list[int]:
    """Some numbers below `count`."""
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(count, min(VIDEOS, count), replace=False).tolist())


def _create_sample(
    split: str, video: Summary, classes: Sequence[str], record: Mapping[str, Any]
) -> Sample:
    images, times = np.array(record["frames"], object), record["times"]
    chosen = segment_indices(len(images), min(FRAMES, len(images)), None)
    labels = ", ".join(classes[label] for label in video.labels)
    return Sample(
        f"{split}  {video.id}  {labels}  {video.width} x {video.height}  {video.duration:.1f} s",
        decode_jpegs(images[chosen]),
        mark_relevant(video.segments, times[chosen]) == 1,
    )


def _draw(samples: Sequence[Sample], sheet: Sheet, lines: list[str]) -> list[str]:
    if not samples:
        raise UserError("no video could be read, so there is nothing to show")
    try:
        draw_contact_sheet(
            sheet.path, samples, size=sheet.size, scales=sheet.scales, seed=sheet.seed
        )
    except OSError as error:
        raise UserError(f"cannot write to {sheet.path}: {error.strerror or error}") from error
    return [*lines, f"contact sheet of {len(samples)} videos: {sheet.path}"]
