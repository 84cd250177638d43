"""Videos that `prepare` has written, as a source for the pipeline."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sofnet_jax.data.annotations.clip import Interval
from sofnet_jax.data.builders.frames import ABOUT, VIDEOS
from sofnet_jax.data.decode import Choose, VideoError
from sofnet_jax.data.jpeg import JpegError, show_jpegs
from sofnet_jax.data.record import Summary
from sofnet_jax.data.source import Shown, Source
from sofnet_jax.data.transforms import Look
from sofnet_jax.errors import UserError


@dataclass(frozen=True)
class PreparedVideo:
    """An `Example` in a shard."""

    summary: Summary
    folder: str
    split: str
    number: int  # in its split

    @property
    def id(self) -> str:
        """See `Example.id`."""
        return self.summary.id

    @property
    def labels(self) -> tuple[int, ...]:
        """See `Example.labels`."""
        return self.summary.labels

    @property
    def relevant(self) -> tuple[Interval, ...] | None:
        """See `Example.relevant`."""
        return self.summary.segments

    def read(self, choose: Choose, look: Look) -> Shown:
        """See `Example.read`; the frames available are those stored."""
        record = read_record(self)
        images, times = record["frames"], record["times"]
        chosen = choose(len(images))
        try:
            return show_jpegs(images[chosen], look), times[chosen].astype(np.float64)
        except JpegError as error:
            raise VideoError(f"{self.folder}: {self.id}: {error}") from error


def read_record(video: PreparedVideo) -> dict[str, Any]:
    """All features of a video. Raises VideoError."""
    try:
        return _open(video.folder, video.split)[video.number]
    except (RuntimeError, OSError) as error:
        raise VideoError(f"{video.folder}: {video.id}: {_first_line(error)}") from error


def create_prepared_source(path: Path, split: str) -> Source:
    """A split of what `python -m sofnet_jax.prepare` wrote.

    `path` is the folder of the data set, or of one version of it. Raises UserError.
    """
    folder = find_version(path)
    return Source(list_videos(folder, split), read_classes(folder))


def read_classes(folder: Path) -> tuple[str, ...]:
    """The names of the classes of a prepared data set, in order."""
    return tuple(json.loads((folder / ABOUT).read_text())["classes"])


def list_videos(folder: Path, split: str) -> list[PreparedVideo]:
    """The videos of a split, in their order in the shards. Raises UserError."""
    videos = [
        PreparedVideo(summary, str(folder), split, i)
        for i, summary in enumerate(read_summaries(folder).get(split, ()))
    ]
    if not videos:
        raise UserError(f"{folder}: no videos in its split '{split}'")
    if len(_open(str(folder), split)) != len(videos):
        raise UserError(f"{folder}: its shards are not those of its {VIDEOS}; prepare it anew")
    return videos


def find_version(path: Path) -> Path:
    """The folder of the latest version of a prepared data set. Raises UserError."""
    if (path / ABOUT).is_file():
        return path
    found = [version.parent for version in path.glob(f"*/{ABOUT}")]
    if not found:
        raise UserError(f"{path}: nothing prepared in it; see python -m sofnet_jax.prepare --help")
    return max(found, key=lambda folder: [int(part) for part in folder.name.split(".")])


def read_summaries(folder: Path) -> dict[str, list[Summary]]:
    """What is known of the videos of each split. Raises UserError."""
    summaries: dict[str, list[Summary]] = {}
    text = (folder / VIDEOS).read_text()
    for row, line in enumerate(text.splitlines(), 1):
        try:
            values = json.loads(line)
            summaries.setdefault(values["split"], []).append(Summary.from_json(values))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / VIDEOS}:{row}: damaged; prepare it anew") from error
    return summaries


@functools.lru_cache(maxsize=8)
def _open(folder: str, split: str) -> Any:
    """The records of a split; a process opens them once."""
    return tfds.builder_from_directory(folder).as_data_source(split)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].partition(";")[0]
