"""Write shards with all cores of a machine; can be killed and resumed."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from sofnet_jax.data.annotations.files import Material
from sofnet_jax.data.prepared.record import (
    VERSION,
    Format,
    Problem,
    Summary,
    Task,
    TaskResult,
    create_record,
    serialise,
)
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import format_json, write_whole
from sofnet_jax.host.workers import Failure, map_in_order

VIDEOS = 64  # in a shard: some 100 MB, which is the most that an interruption loses


@dataclass(frozen=True)
class ShardSummary:
    """The videos in a shard, in order, and the problems of those that should be in it."""

    videos: tuple[Summary, ...]
    problems: tuple[Problem, ...]

    @classmethod
    def create(cls, results: Sequence[TaskResult]) -> "ShardSummary":
        """Summarise the results of a shard's tasks."""
        videos = tuple(result.summary for result in results if result.summary)
        return cls(videos, tuple(p for result in results for p in result.problems))

    def write(self, path: Path) -> None:
        """Write JSON, whole or not at all; the file marks the shard as finished."""
        with write_whole(path) as partial:
            partial.write_text(format_json(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "ShardSummary":
        """Read the file of `write`. Raises UserError if it is damaged."""
        document = Material(path).document
        videos = tuple(Summary.from_json(video) for video in document.need("videos").elements())
        problems = tuple(
            Problem(*(problem.need(key).text() for key in ("id", "kind", "detail")))
            for problem in document.need("problems").elements()
        )
        return cls(videos, problems)


@dataclass(frozen=True)
class Shard:
    """The tasks of one file, and the format to store them in.

    Called, it yields (key, record) for TFDS's own engine, in this process or in one of Beam's, and
    writes its summary.
    """

    split: str
    tasks: tuple[Task, ...]
    form: Format
    summary_path: Path  # its name changes with everything the shard depends on

    @property
    def data_path(self) -> Path:
        """Where its records are until all shards are finished."""
        return self.summary_path.with_suffix(".array_record")

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Read the videos one by one."""
        results = []
        for task in self.tasks:
            result = create_record(task, self.form)
            if result.record is not None:
                yield task.id, result.record
            results.append(result)
        ShardSummary.create(results).write(self.summary_path)


def plan_shards(split: str, tasks: Sequence[Task], form: Format, folder: Path) -> list[Shard]:
    """Divide the tasks of a split, in a random order that depends on their ids alone.

    The division depends on all videos that should exist, not on those that do, so that a file added
    later changes its own shard only. Empty shards are left out.
    """
    ordered = sorted(tasks, key=lambda task: hashlib.sha256(task.id.encode()).digest())
    count = max(1, round(len(tasks) / VIDEOS))
    bounds = [len(tasks) * i // count for i in range(count + 1)]
    parts = [ordered[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    there = [tuple(task for task in part if task.path is not None) for part in parts]
    return [
        Shard(split, part, form, folder / f"{_digest(split, part, form)}.json")
        for part in there
        if part
    ]


def _digest(split: str, tasks: Sequence[Task], form: Format) -> str:
    """A name that changes with the content of a shard, and with size and time of its files."""
    files: list[tuple[int, int] | None] = []
    for task in tasks:
        try:
            found = os.stat(task.path or "")
            files.append((found.st_size, found.st_mtime_ns))
        except OSError:
            files.append(None)
    text = repr((VERSION, form, split, tasks, files))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def write_shards(
    shards: Sequence[Shard],
    classes: tuple[str, ...],
    *,
    num_workers: int,
    time_limit: float,
    on_video: Callable[[int], None],
) -> None:
    """Write the shards that are not finished yet, each beside its summary.

    `on_video` is called with the number of videos just done, those of finished shards at once. A
    video that takes more than `time_limit` seconds is left out. Raises UserError if the disk is
    full.
    """
    left = [shard for shard in shards if not is_finished(shard)]
    on_video(sum(len(shard.tasks) for shard in shards) - sum(len(shard.tasks) for shard in left))
    work = functools.partial(_create, classes)
    items = ((task, shard.form) for shard in left for task in shard.tasks)
    results = map_in_order(work, items, num_workers=num_workers, time_limit=time_limit)
    with contextlib.closing(results):
        for shard in left:
            try:
                _write_shard(shard, results, on_video)
            except OSError as error:
                reason = error.strerror or error
                raise UserError(f"cannot write to {shard.data_path.parent}: {reason}") from error


def is_finished(shard: Shard) -> bool:
    """Whether its summary, which is written last, is there, and as many records as it lists."""
    try:
        summary = ShardSummary.read(shard.summary_path)
        return len(summary.videos) == count_records(shard.data_path)
    except (OSError, RuntimeError, UserError):
        return False


def _create(classes: tuple[str, ...], item: tuple) -> tuple[TaskResult, bytes | None]:
    """The work of a process: the bytes of a record, and the task's result without the record."""
    result = create_record(*item)
    data = None if result.record is None else serialise(result.record, classes)
    return replace(result, record=None), data


def _write_shard(shard: Shard, items: Iterator[Any], on_video: Callable[[int], None]) -> None:
    """Write the next items as records, check them, and then write the summary."""
    results = []
    with write_whole(shard.data_path) as partial:
        with _open_writer(partial) as write:
            for task, item in zip(shard.tasks, items, strict=False):
                on_video(1)
                if isinstance(item, Failure):
                    problem = Problem(task.id, item.kind, f"{task.path}: {item.detail}")
                    results.append(TaskResult(None, None, (problem,)))
                    continue
                result, data = item
                results.append(result)
                if data is not None:
                    write(data)
        summary = ShardSummary.create(results)
        found = count_records(partial)
        if found != len(summary.videos):
            raise OSError(f"{found} of {len(summary.videos)} records were written")
    summary.write(shard.summary_path)


@contextlib.contextmanager
def _open_writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that appends a record. Raises OSError if the disk is full."""
    writer = ArrayRecordWriter(str(path), "group_size:1")  # as TFDS writes them

    def write(data: bytes) -> None:
        with _translate_errors():
            writer.write(data)

    try:
        yield write
    except BaseException:
        with contextlib.suppress(OSError), _translate_errors():
            writer.close()
        raise
    with _translate_errors():
        writer.close()


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Turn ArrayRecord's RuntimeError, a page long, into OSError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(";")[0].removeprefix("write() failed: ")
        raise OSError(reason) from error


def count_records(path: Path) -> int:
    """Count the records of a shard. Raises OSError, or RuntimeError if it is damaged."""
    if not path.stat().st_size:
        return 0
    return len(ArrayRecordDataSource([str(path)]))
