"""Describe a data set, prepared or not, and draw it as the network will see it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sofnet_jax.data.batch import mark_relevant
from sofnet_jax.data.prepared.contact_sheet import Sample, Sheet, draw_contact_sheet
from sofnet_jax.data.prepared.dataset import PreparedVideo, list_all_videos, read_record
from sofnet_jax.data.prepared.manifest import find_version, read_classes
from sofnet_jax.data.prepared.record import Format, Summary, Task, create_record, cut_segments
from sofnet_jax.data.video.decode import VideoError, probe
from sofnet_jax.data.video.jpeg import JpegError, decode_jpegs, to_rgb
from sofnet_jax.data.views import segment_indices
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.workers import map_in_order

VIDEOS, FRAMES = 4, 8  # of each split and of each video on the contact sheet
_BAR = 40  # characters


def inspect_prepared(path: Path, sheet: Sheet) -> list[str]:
    """Describe a prepared data set and draw a contact sheet; return lines. Raises UserError."""
    folder = find_version(path)
    classes = read_classes(folder)
    lines, samples = [], []
    for split, videos in list_all_videos(folder).items():
        lines += describe_split(split, videos, classes)
        samples += [_show(videos[i], classes) for i in _pick(len(videos), sheet.seed)]
    return _draw(samples, sheet, lines)


def inspect_tasks(
    tasks: Mapping[str, Sequence[Task]], classes: Sequence[str], sheet: Sheet, num_workers: int
) -> list[str]:
    """Like `inspect_prepared` for videos not yet prepared; durations are those in the headers."""
    lines, samples = [], []
    for split, part in tasks.items():
        there = [task for task in part if task.path is not None]
        found = map_in_order(_probe, there, num_workers=num_workers, time_limit=60.0)
        summaries = [summary for summary in found if isinstance(summary, Summary)]
        counts = f"{len(there):,} are there, {len(summaries):,} open"
        lines.append(f"{split}: of {len(part):,} annotated videos {counts}")
        if summaries:
            lines += describe_split(split, summaries, classes)
        for task in (there[i] for i in _pick(len(there), sheet.seed)):
            result = create_record(task, Format(FRAMES, 256, 90))
            if result.record is not None and result.summary is not None:
                samples.append(_create_sample(split, result.summary, classes, result.record))
    return _draw(samples, sheet, lines)


def _show(video: PreparedVideo, classes: Sequence[str]) -> Sample:
    """A sample of a prepared video. Raises UserError if its record is damaged."""
    try:
        return _create_sample(video.split, video, classes, read_record(video))
    except (VideoError, JpegError) as error:
        place = f"{video.folder}: {video.id}: " if isinstance(error, JpegError) else ""
        raise UserError(f"{place}{error}") from error


def _probe(task: Task) -> Summary | None:
    try:
        assert task.path is not None
        duration, width, height = probe(task.path)
    except VideoError:
        return None
    start, end = task.start or 0.0, min(task.end or duration, duration)
    segments = cut_segments(task.segments, start, end)
    return Summary(task.id, task.labels, 0, 0, max(end - start, 0.0), width, height, segments)


def _pick(count: int, seed: int) -> list[int]:
    """Pick a few numbers below `count`."""
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
        to_rgb(decode_jpegs(images[chosen])),
        mark_relevant(video.segments, times[chosen]) == 1,
    )


def _draw(samples: Sequence[Sample], sheet: Sheet, lines: list[str]) -> list[str]:
    if not samples:
        raise UserError("no video could be read, so there is nothing to show")
    try:
        draw_contact_sheet(sheet, samples)
    except OSError as error:
        raise UserError(f"cannot write to {sheet.path}: {error.strerror or error}") from error
    return [*lines, f"contact sheet of {len(samples)} videos: {sheet.path}"]


def describe_split(name: str, videos: Sequence[Summary], classes: Sequence[str]) -> list[str]:
    """Describe the videos of a split; return lines."""
    durations = np.array([video.duration for video in videos])
    low, middle, high = np.percentile(durations, [0, 50, 100])
    sizes = Counter(f"{video.width}×{video.height}" for video in videos)
    common = ", ".join(f"{size} {count}" for size, count in sizes.most_common(4))
    rest = len(sizes) - 4
    localised = [video for video in videos if video.segments is not None]
    lines = [
        f"{name}: {len(videos):,} videos, {durations.sum() / 3600:.2f} hours",
        f"  seconds      {low:.1f} to {high:.1f}, median {middle:.1f}, mean {durations.mean():.1f}",
        f"  resolutions  {common}" + (f" and {rest} more" if rest > 0 else ""),
        f"  frames       {sum(video.frames for video in videos):,} stored",
        f"  segments     of {len(localised):,} videos, {_share(localised):.0f} % of their time",
        f"  labels       {sum(len(v.labels) > 1 for v in videos):,} videos have several",
    ]
    return lines + [f"    {line}" for line in draw_histogram(videos, classes)]


def draw_histogram(videos: Sequence[Summary], classes: Sequence[str]) -> list[str]:
    """A line with number and bar for each class with videos; a line on those without."""
    counts = Counter(label for video in videos for label in video.labels)
    most = max(counts.values(), default=1)
    width = max(map(len, classes))
    lines = [
        f"{name:<{width}} {counts[i]:6,} {'█' * round(_BAR * counts[i] / most)}".rstrip()
        for i, name in enumerate(classes)
        if counts[i]
    ]
    empty = len(classes) - len(lines)
    return [*lines, f"{empty:,} classes have none"] if empty else lines


def _share(videos: Sequence[Summary]) -> float:
    """Percentage of the videos' time inside any of their segments."""
    inside = 0.0
    for video in videos:
        until = -np.inf
        for start, end in sorted(video.segments or ()):
            inside += max(0.0, end - max(start, until))
            until = max(until, end)
    return 100 * inside / max(sum(video.duration for video in videos), 1e-9)
