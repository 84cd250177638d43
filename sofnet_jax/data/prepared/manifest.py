"""What `prepare` writes beside the shards: the classes, and what every record is of."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sofnet_jax.data.annotations.files import Material, parse_document
from sofnet_jax.data.prepared.builders import ABOUT, VIDEOS
from sofnet_jax.data.prepared.record import Summary
from sofnet_jax.host.errors import UserError

_VERSION = re.compile(r"\d+(\.\d+)*")


@contextlib.contextmanager
def suggest_anew(folder: Path) -> Iterator[None]:
    """Adds to a UserError about a file of a prepared data set what to do."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; delete {folder} and prepare it anew") from error


def find_version(path: Path) -> Path:
    """The folder of the latest version of a prepared data set. Raises UserError."""
    if (path / ABOUT).is_file():
        return path
    found = [about.parent for about in path.glob(f"*/{ABOUT}")]
    versions = [folder for folder in found if _VERSION.fullmatch(folder.name)]
    if not versions:
        raise UserError(f"{path}: nothing prepared in it; see python -m sofnet_jax.prepare --help")
    return max(versions, key=lambda folder: [int(part) for part in folder.name.split(".")])


def read_classes(folder: Path) -> tuple[str, ...]:
    """The names of the classes, in order. Raises UserError."""
    with suggest_anew(folder):
        classes = Material(folder / ABOUT).document.need("classes")
        return tuple(name.text() for name in classes.elements())


def read_plan(folder: Path) -> Any:
    """What `frames.names` said of the plan it was prepared by. Raises UserError."""
    with suggest_anew(folder):
        return Material(folder / ABOUT).document.need("shards").value


def read_summaries(folder: Path) -> dict[str, list[Summary]]:
    """What is known of the videos of each split. Raises UserError."""
    num_classes = len(read_classes(folder))
    summaries: dict[str, list[Summary]] = {}
    with suggest_anew(folder):
        for row in Material(folder / VIDEOS).rows:
            video = parse_document(Path(row.place), row.text)
            summary = Summary.from_json(video)
            if max(summary.labels) >= num_classes:
                raise UserError(
                    f"{row.place}: label {max(summary.labels)} is out of range; the {num_classes} "
                    "classes are counted from 0"
                )
            summaries.setdefault(video.need("split").text(), []).append(summary)
    return summaries
