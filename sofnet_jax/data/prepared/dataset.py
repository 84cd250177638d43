"""Videos written by `prepare`, as a source for the pipeline."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sofnet_jax.data.annotations.clip import Interval
from sofnet_jax.data.annotations.files import Material
from sofnet_jax.data.prepared.manifest import (
    VIDEOS,
    find_version,
    read_classes,
    read_summaries,
    suggest_remedy,
)
from sofnet_jax.data.prepared.record import Summary, describe_features
from sofnet_jax.data.prepared.shards import count_records
from sofnet_jax.data.source import Shown, Source
from sofnet_jax.data.video.decode import Choose, VideoError
from sofnet_jax.data.video.jpeg import JpegError, crop, decode_jpegs
from sofnet_jax.data.views import Look, finish
from sofnet_jax.host.command_line import make_printable
from sofnet_jax.host.errors import UserError, first_line


@dataclass(frozen=True)
class PreparedVideo(Summary):
    """An `Example` in a shard."""

    folder: str
    split: str
    number: int  # in its split

    @property
    def relevant(self) -> tuple[Interval, ...] | None:
        """See `Example.relevant`."""
        return self.segments

    def read(self, choose: Choose, look: Look) -> Shown:
        """See `Example.read`; the available frames are the stored ones."""
        record = read_record(self)
        images, times = record["frames"], record["times"]
        chosen = choose(len(images))
        try:
            frames = decode_jpegs(images[chosen])
        except JpegError as error:
            raise VideoError(f"{self.folder}: {self.id}: {error}") from error
        view = look(frames[0].height, frames[0].width)
        squares = crop(frames, view.box, view.via or view.size)
        return finish(squares, view), times[chosen].astype(np.float64)


def read_record(video: PreparedVideo) -> dict[str, Any]:
    """Read all features of a video.

    Raises:
        VideoError: the record is damaged, or belongs to another video.
        UserError: a shard is missing.
    """
    try:
        record = _open(video.folder, video.split)[video.number]
        found = make_printable(record["id"].decode())
    except Exception as error:  # ArrayRecord, TFDS and protobuf raise anything for damage
        list_videos(Path(video.folder), video.split)  # says what is missing
        raise VideoError(
            f"{video.folder}: {video.id}: {first_line(error).partition(';')[0]}"
        ) from error
    if not len(record["frames"]) == len(record["times"]) > 0:
        raise VideoError(f"{video.folder}: {video.id}: record without frames or times")
    if found != make_printable(video.id):
        raise VideoError(
            f"{video.folder}: record {video.number} of {video.split} belongs to {found}, not to "
            f"{video.id}, as {VIDEOS} says; prepare it again"
        )
    return record


def create_prepared_source(path: Path, split: str) -> Source:
    """Open a split of a data set written by `python -m sofnet_jax.prepare`.

    `path` is the folder of the data set, or of one version of it. Raises UserError.
    """
    folder = find_version(path)
    return Source(list_videos(folder, split), read_classes(folder))


def list_videos(folder: Path, split: str) -> list[PreparedVideo]:
    """List the videos of a split in the order of the shards. Raises UserError.

    Shards are checked for existence but not opened, which takes longer.
    """
    videos = _number(folder, split, read_summaries(folder).get(split, []))
    with suggest_remedy(folder):
        _check_files(folder, _list_shards(folder).get(split, {}), len(videos))
    if not videos:
        raise UserError(f"{folder}: no videos in its split '{split}'")
    return videos


def list_all_videos(folder: Path) -> dict[str, list[PreparedVideo]]:
    """List the videos of each split; open every shard to check that no record is missing.

    Raises UserError.
    """
    summaries = read_summaries(folder)
    with suggest_remedy(folder):
        shards = _list_shards(folder)
        for split in sorted({*shards, *summaries}):
            _check_files(folder, shards.get(split, {}), len(summaries.get(split, [])))
            for path, count in shards.get(split, {}).items():
                _check_shard(path, count)
    return {split: _number(folder, split, part) for split, part in summaries.items()}


def _number(folder: Path, split: str, summaries: Sequence[Summary]) -> list[PreparedVideo]:
    return [
        PreparedVideo(**vars(s), folder=str(folder), split=split, number=i)
        for i, s in enumerate(summaries)
    ]


def _check_files(folder: Path, shards: Mapping[Path, int], num_videos: int) -> None:
    """Raises UserError if a shard is missing or the number of videos differs."""
    if sum(shards.values()) != num_videos:
        raise UserError(f"{folder}: its shards do not match its {VIDEOS}")
    for path in shards:
        if path.parent != folder:
            raise UserError(f"{path}: not in the folder of its data set")
        if not path.is_file():
            raise UserError(f"{path}: missing")


def _check_shard(path: Path, count: int) -> None:
    try:
        found = count_records(path)
    except (RuntimeError, OSError) as error:
        raise UserError(f"{path}: damaged ({first_line(error).partition(';')[0]})") from error
    if found != count:
        raise UserError(f"{path}: {found:,} records instead of {count:,}")


def _list_shards(folder: Path) -> dict[str, dict[Path, int]]:
    """The shards of each split with their numbers of records. Raises UserError."""
    Material(folder / "dataset_info.json").document  # noqa: B018 (raises for a damaged file)
    _check_features(folder)
    try:
        splits = tfds.builder_from_directory(str(folder)).info.splits
        return {
            name: dict(zip(map(Path, split.filepaths), split.shard_lengths, strict=True))
            for name, split in splits.items()
        }
    except Exception as error:  # TFDS and protobuf raise anything
        raise UserError(
            f"{folder}: TFDS cannot read it ({first_line(error).partition(';')[0]})"
        ) from error


def _check_features(folder: Path) -> None:
    """Raises UserError for other features than ours: TFDS would import any module they name."""
    found = Material(folder / "features.json").document
    if found.value != describe_features(read_classes(folder)):
        raise UserError(f"{found.place.removesuffix(': ')}: not the features of a prepared video")


@functools.lru_cache(maxsize=8)
def _open(folder: str, split: str) -> Any:
    """The records of a split, which a process opens once."""
    return tfds.builder_from_directory(folder).as_data_source(split)
