"""A CSV of video files, as `source.create_source` reads it."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from sofnet_jax.data.record import Task
from sofnet_jax.whole_file import write_whole

_TIMES = ("start", "end", "relevant_start", "relevant_end")


def write_listing(path: Path, tasks: Sequence[Task], classes: Sequence[str]) -> int:
    """Writes the videos that are there, with a row for each segment; returns how many these are."""
    there = [task for task in tasks if task.path is not None]
    columns = max((len(task.labels) for task in there), default=1)
    with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", *["label"] * columns, *_TIMES])
        for task in there:
            labels = [classes[label] for label in task.labels]
            writer.writerows(_rows(task, labels + [""] * (columns - len(labels))))
    return len(there)


def _rows(task: Task, labels: Sequence[str]) -> Iterator[list]:
    for segment in task.segments or [(None, None)]:
        yield [task.path, *labels, task.start, task.end, *segment]
