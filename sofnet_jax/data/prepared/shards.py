"""Writes shards with all cores of a machine, so that it can be killed and go on."""

import contextlib
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from sofnet_jax.data.annotations.files import Material, Node
from sofnet_jax.data.prepared.record import (
    VERSION,
    Format,
    Outcome,
    Problem,
    Summary,
    Task,
    create_record,
    serialise,
)
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import format_json, write_whole
from sofnet_jax.host.workers import Failure, map_in_order

VIDEOS = 64  # in a shard: some 100 MB, and no more than is lost when the work is interrupted


@dataclass(frozen=True)
class Report:
    """What is in a shard, in its order, and what was wrong with the videos that were to be."""

    videos: tuple[Summary, ...]
    problems: tuple[Problem, ...]

    def write(self, path: Path) -> None:
        """Writes it whole, as JSON; it says that the shard is finished."""
        with write_whole(path) as partial:
            partial.write_text(format_json(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Report":
        """What `write` wrote. Raises UserError if it is none."""
        report = Material(path).document
        videos = tuple(Summary.from_json(video) for video in report.need("videos").elements())
        problems = tuple(_parse_problem(problem) for problem in report.need("problems").elements())
        return cls(videos, problems)


def _parse_problem(problem: Node) -> Problem:
    return Problem(*(problem.need(key).text() for key in ("id", "kind", "detail")))


@dataclass(frozen=True)
class Shard:
    """The tasks of one file, and how to do them.

    Called, it yields (key, record) for TFDS's own engine, in this process or in one of Beam's, and
    leaves its report.
    """

    split: str
    tasks: tuple[Task, ...]
    form: Format
    report_path: str  # written when it is finished; its name changes with all it depends on

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Reads the videos one by one."""
        outcomes = []
        for task in self.tasks:
            outcome = create_record(task, self.form)
            if outcome.record is not None:
                yield task.id, outcome.record
            outcomes.append(outcome)
        summarise(outcomes).write(Path(self.report_path))


def summarise(outcomes: Sequence[Outcome]) -> Report:
    """The report of a shard from what came of its tasks."""
    videos = tuple(outcome.summary for outcome in outcomes if outcome.summary)
    return Report(videos, tuple(p for outcome in outcomes for p in outcome.problems))


def plan_shards(split: str, tasks: Sequence[Task], form: Format, reports: Path) -> list[Shard]:
    """Divides the tasks of a split, in an order that is random but depends on their ids alone.

    Which tasks go together depends on all videos that there should be, not on those that are there,
    so that files which come later change their own shards only. Shards of none are left out.
    """
    ordered = sorted(tasks, key=lambda task: hashlib.sha256(task.id.encode()).digest())
    count = max(1, round(len(tasks) / VIDEOS))
    bounds = [len(tasks) * i // count for i in range(count + 1)]
    parts = [ordered[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    there = [tuple(task for task in part if task.path is not None) for part in parts]
    return [
        Shard(split, part, form, str(reports / f"{_digest(split, part, form)}.json"))
        for part in there
        if part
    ]


def _digest(split: str, tasks: Sequence[Task], form: Format) -> str:
    files = [_stat(task.path) for task in tasks]
    text = repr((VERSION, form, split, tasks, files))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _stat(path: str | None) -> tuple[int, int] | None:
    """Size and time of a file, by which a change of it is noticed."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


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


def count_records(path: Path) -> int:
    """How many are in a shard. Raises OSError, or RuntimeError if it is damaged."""
    if not path.stat().st_size:
        return 0
    return len(ArrayRecordDataSource([str(path)]))
