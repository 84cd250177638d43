"""What is in a data set: counts, durations, resolutions, labels."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sofnet_jax.data.record import Summary

_BAR = 40  # characters


def describe_split(name: str, videos: Sequence[Summary], classes: Sequence[str]) -> list[str]:
    """Lines on the videos of a split."""
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
    """A line for each class that has videos: how many, and a bar; a line for those without."""
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
    """Per cent of the time of the videos that is inside their segments."""
    inside = sum(_union(video) for video in videos)
    return 100 * inside / max(sum(video.duration for video in videos), 1e-9)


def _union(video: Summary) -> float:
    """Seconds that are in any of the segments."""
    total, until = 0.0, -np.inf
    for start, end in sorted(video.segments or ()):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
