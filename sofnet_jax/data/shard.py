"""Shards: how a split is divided over files, and what each of them came to hold."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sofnet_jax.data.annotations.document import Node
from sofnet_jax.data.annotations.material import Material
from sofnet_jax.data.record import (
    VERSION,
    Format,
    Outcome,
    Problem,
    Summary,
    Task,
    create_record,
)
from sofnet_jax.host.files import write_whole

VIDEOS = 64  # in a shard: some 100 MB, and no more than is lost when the work is interrupted


@dataclass(frozen=True)
class Report:
    """What is in a shard, in its order, and what was wrong with the videos that were to be."""

    videos: tuple[Summary, ...]
    problems: tuple[Problem, ...]

    def write(self, path: Path) -> None:
        """Writes it whole, as JSON; it says that the shard is finished."""
        with write_whole(path) as partial:
            partial.write_text(json.dumps(asdict(self)))

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
