"""A CSV of video files, as `source.create_source` reads it."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sofnet_jax.data.annotations.note import Notes
from sofnet_jax.data.record import Task
from sofnet_jax.host.files import write_whole

_TIMES = ("start", "end", "relevant_start", "relevant_end")


def write_listing(path: Path, tasks: Sequence[Task], classes: Sequence[str], notes: Notes) -> int:
    """Writes the videos that are there, with a row for each segment; returns how many these are.

    Paths are absolute, since `create_source` takes others as relative to the CSV.
    Raises OSError.
    """
    there = [task for task in tasks if _can_be_written(task, notes)]
    columns = max((len(task.labels) for task in there), default=1)
    with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", *["label"] * columns, *_TIMES])
        for task in there:
            labels = [classes[label] for label in task.labels]
            writer.writerows(_rows(task, labels + [""] * (columns - len(labels))))
    return len(there)


def _can_be_written(task: Task, notes: Notes) -> bool:
    """Whether the video is there under a name that text can hold."""
    if task.path is None:
        return False
    try:
        task.path.encode()
    except UnicodeEncodeError:
        notes.add("files with names that are not UTF-8: left out", ascii(task.path))
        return False
    return True


def _rows(task: Task, labels: Sequence[str]) -> Iterator[list]:
    assert task.path is not None
    path = os.path.abspath(task.path)
    for segment in task.segments or [(None, None)]:
        yield [path, *labels, task.start, task.end, *segment]
