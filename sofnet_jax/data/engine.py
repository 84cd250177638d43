"""Writes shards with all cores of a machine, so that it can be killed and go on."""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from sofnet_jax.data.features import serialise
from sofnet_jax.data.record import Outcome, Problem, Task, create_record
from sofnet_jax.data.shard import Report, Shard, summarise
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_whole
from sofnet_jax.host.workers import Failure, map_in_order


def write_shards(
    shards: Sequence[Shard],
    classes: tuple[str, ...],
    *,
    num_workers: int,
    time_limit: float,
    on_video: Callable[[int], None],
) -> None:
    """Writes the shards that are not finished yet, each beside its report.

    `on_video` is told how many videos are done, those of finished shards at once. A video that
    takes more than `time_limit` seconds is left out. Raises UserError if there is no room.
    """
    left = [shard for shard in shards if not is_finished(shard)]
    on_video(sum(len(shard.tasks) for shard in shards) - sum(len(shard.tasks) for shard in left))
    work = functools.partial(_create, classes)
    items = ((task, shard.form) for shard in left for task in shard.tasks)
    results = map_in_order(work, items, num_workers=num_workers, time_limit=time_limit)
    with contextlib.closing(results):
        for shard in left:
            ours = itertools.islice(results, len(shard.tasks))
            try:
                _write_shard(shard, _count(zip(shard.tasks, ours, strict=True), on_video))
            except OSError as error:
                reason = error.strerror or error
                raise UserError(f"cannot write to {data_path(shard).parent}: {reason}") from error


def data_path(shard: Shard) -> Path:
    """Where the records of a shard are until all shards are done."""
    return Path(shard.report_path).with_suffix(".array_record")


def is_finished(shard: Shard) -> bool:
    """Whether its report, which is written last, is there, and as many records as it says."""
    try:
        report = Report.read(Path(shard.report_path))
        return len(report.videos) == count_records(data_path(shard))
    except (OSError, RuntimeError, UserError):
        return False


_Result = tuple[Outcome, bytes | None] | Failure


def _create(classes: tuple[str, ...], item: tuple) -> tuple[Outcome, bytes | None]:
    """What a worker does: the bytes of a record, and the rest of what came of the task."""
    outcome = create_record(*item)
    data = None if outcome.record is None else serialise(outcome.record, classes)
    return replace(outcome, record=None), data


def _count(
    pairs: Iterable[tuple[Task, _Result]], on_video: Callable[[int], None]
) -> Iterator[tuple[Outcome, bytes | None]]:
    for task, result in pairs:
        on_video(1)
        if isinstance(result, Failure):
            problem = Problem(task.id, result.kind, f"{task.path}: {result.detail}")
            yield Outcome(None, None, (problem,)), None
        else:
            yield result


def _write_shard(shard: Shard, results: Iterable[tuple[Outcome, bytes | None]]) -> None:
    """Writes the records, sees that they are there, and then says so in the report."""
    outcomes = []
    with write_whole(data_path(shard)) as partial:
        with _open_writer(partial) as write:
            for outcome, data in results:
                outcomes.append(outcome)
                if data is not None:
                    write(data)
        _sync(partial)
        report = summarise(outcomes)
        found = count_records(partial)
        if found != len(report.videos):
            raise OSError(f"{found} of {len(report.videos)} records were written")
    report.write(Path(shard.report_path))


@contextlib.contextmanager
def _open_writer(path: Path) -> Iterator[Callable[[bytes], None]]:
    """Gives a function that appends a record. Raises OSError if there is no room."""
    writer = ArrayRecordWriter(str(path), "group_size:1")  # as TFDS writes them

    def write(data: bytes) -> None:
        with _room():
            writer.write(data)

    try:
        yield write
    except BaseException:
        with contextlib.suppress(OSError), _room():
            writer.close()
        raise
    with _room():
        writer.close()


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """What ArrayRecord raises as RuntimeError, with a page of its own terms, as OSError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition(";")[0].removeprefix("write() failed: ")
        raise OSError(reason) from error


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def count_records(path: Path) -> int:
    """How many are in a shard. Raises OSError, or RuntimeError if it is damaged."""
    if not path.stat().st_size:
        return 0
    return len(ArrayRecordDataSource([str(path)]))
