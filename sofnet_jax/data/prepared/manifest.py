"""What `prepare` writes beside the shards: classes, the videos in order, and their problems.

Three files: `videos.jsonl` (the `Summary` of every record, in order), `problems.csv` (what was
wrong with which video) and `prepared.json` (classes, format and the names of the shards).
"""

import contextlib
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sofnet_jax.data.annotations.files import Material, parse_json
from sofnet_jax.data.prepared.record import Format, Summary
from sofnet_jax.data.prepared.shards import ShardSummary
from sofnet_jax.host.errors import UserError, explain_unreadable

VIDEOS, PROBLEMS, ABOUT = "videos.jsonl", "problems.csv", "prepared.json"
_COLUMNS = ("split", "kind", "id", "detail")
_VERSION = re.compile(r"\d+(\.\d+)*")


def write_manifest(
    folder: Path,
    form: Format,
    classes: Sequence[str],
    shards: Mapping[str, Sequence[str]],
    summaries: Mapping[str, Sequence[ShardSummary]],
    missing: Mapping[str, Sequence[str]],
) -> None:
    """Write the three files; `shards` are names, `missing` the ids of videos without a file."""
    with (folder / VIDEOS).open("w") as file:
        for split, parts in summaries.items():
            for video in (video for part in parts for video in part.videos):
                file.write(json.dumps({"split": split} | asdict(video)) + "\n")
    rows = [
        (split, problem.kind, problem.id, problem.detail)
        for split, parts in summaries.items()
        for part in parts
        for problem in part.problems
    ]
    rows += [(split, "missing", id, "") for split, ids in missing.items() for id in ids]
    path = folder / PROBLEMS
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *sorted(rows)])
    about = {"format": asdict(form), "classes": classes, "shards": shards}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


@contextlib.contextmanager
def suggest_remedy(folder: Path) -> Iterator[None]:
    """Add the remedy to a UserError about a file of a prepared data set."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; delete {folder} and prepare it again") from error


@explain_unreadable()
def find_version(path: Path) -> Path:
    """The folder of the latest version of a prepared data set. Raises UserError."""
    if (path / ABOUT).is_file():
        return path
    found = sorted(path.iterdir()) if path.is_dir() else []
    versions = [f for f in found if _VERSION.fullmatch(f.name) and (f / ABOUT).is_file()]
    if not versions:
        raise UserError(f"{path}: nothing prepared in it; see python -m sofnet_jax.prepare --help")
    return max(versions, key=lambda folder: [int(part) for part in folder.name.split(".")])


def read_classes(folder: Path) -> tuple[str, ...]:
    """The names of the classes, in order. Raises UserError."""
    with suggest_remedy(folder):
        classes = Material(folder / ABOUT).document.need("classes")
        return tuple(name.text() for name in classes.elements())


def read_shard_names(folder: Path) -> Any:
    """The names of each split's shards (`Plan.shard_names`). Raises UserError."""
    with suggest_remedy(folder):
        return Material(folder / ABOUT).document.need("shards").value


def read_summaries(folder: Path) -> dict[str, list[Summary]]:
    """The summaries of the videos of each split. Raises UserError."""
    num_classes = len(read_classes(folder))
    summaries: dict[str, list[Summary]] = {}
    with suggest_remedy(folder):
        for row in Material(folder / VIDEOS).rows:
            video = parse_json(row.place, row.text())
            summary = Summary.from_json(video)
            if max(summary.labels) >= num_classes:
                raise UserError(
                    f"{row.place}: label {max(summary.labels)} is out of range; the {num_classes} "
                    "classes are counted from 0"
                )
            summaries.setdefault(video.need("split").text(), []).append(summary)
    return summaries


def read_problems(folder: Path) -> list[dict[str, str]]:
    """The rows of problems.csv: split, kind, id and detail. Raises UserError."""
    path = folder / PROBLEMS
    with suggest_remedy(folder):
        try:
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                header, *rows = csv.reader(file, strict=True)
                if tuple(header) != _COLUMNS:
                    raise ValueError(header)
                return [dict(zip(_COLUMNS, row, strict=True)) for row in rows]
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        except (csv.Error, ValueError) as error:
            raise UserError(f"{path}: damaged") from error
