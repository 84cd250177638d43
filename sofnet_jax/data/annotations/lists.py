"""Lists of videos with numeric labels: `<id or path> <frames> <label>`."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sofnet_jax.data.annotations.files import Material, Notes, Row, parse_count, show
from sofnet_jax.data.annotations.names import (
    YOUTUBE,
    check_path,
    find_split,
    parse_split,
    strip_extension,
)
from sofnet_jax.host.errors import UserError

LISTED = re.compile(r".*\S[,\s]+[0-9]+[,\s]+[0-9]+")  # a row, seen from its end
_FORM = "a row is 'id,frames,label' or 'id frames label'"


@dataclass(frozen=True)
class Listed:
    """A row of a list. `folder` is the name of the one that the video is in, if it is a class's."""

    place: str
    id: str
    split: str
    labels: tuple[int, ...]  # none in lists of ids alone
    num_frames: int | None = None
    folder: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Roster:
    """A list: its rows by split and id, in its order."""

    path: Path
    rows: dict[tuple[str, str], Listed]


def read_roster(material: Material, parse: Callable[[Row], Listed], notes: Notes) -> Roster:
    """Reads a list row by row; raises UserError, also if one video has different labels in it."""
    return collect(material.path, map(parse, material.rows), notes)


def collect(path: Path, listed: Iterable[Listed], notes: Notes) -> Roster:
    """The list with these rows; raises UserError if one video has different labels in it."""
    rows: dict[tuple[str, str], Listed] = {}
    for row in listed:
        first = rows.setdefault((row.split, row.id), row)
        if set(first.labels) != set(row.labels):
            raise UserError(
                f"{row.place}: {row.id} has other labels than in {first.place}; leave one row"
            )
        if first is not row:
            notes.add("rows that repeat an earlier one: left out", row.place)
        elif row.num_frames == 0:
            notes.add("rows with 0 frames: their videos are kept", row.place)
            rows[row.split, row.id] = replace(row, num_frames=None)
    return Roster(path, rows)


def split_left(row: Row) -> tuple[str, int, tuple[int, ...]]:
    """Id, frames and labels of a row whose id has no space or comma in it."""
    cells = [c.strip() for c in (row.text.split(",") if "," in row.text else row.text.split())]
    if len(cells) < 3:
        raise UserError(f"{row.place}: {len(cells)} columns in {show(row.text)}; {_FORM}")
    labels = tuple(parse_count(row.place, "a label", cell) for cell in cells[2:])
    return cells[0], parse_count(row.place, "the number of frames", cells[1]), labels


def split_right(row: Row) -> tuple[str, int, tuple[int, ...]]:
    """Path, frames and label of a row whose path may hold what separates them."""
    cells = row.text.rsplit(None, 2)
    if "," in cells[-1]:
        cells = [cell.strip() for cell in row.text.rsplit(",", 2)]
    if len(cells) < 3:
        raise UserError(f"{row.place}: {len(cells)} columns in {show(row.text)}; {_FORM}")
    label = parse_count(row.place, "the label", cells[2])
    return cells[0], parse_count(row.place, "the number of frames", cells[1]), (label,)


def compare_rosters(a: Roster, b: Roster, notes: Notes) -> None:
    """Notes which videos only one of two lists has, where both tell of a split."""
    splits = {split for split, _ in a.rows} & {split for split, _ in b.rows}
    for one, other in ((a, b), (b, a)):
        lacking = [r for k, r in one.rows.items() if k not in other.rows and k[0] in splits]
        notes.add_all(
            f"videos of {one.path.name} that {other.path.name} lacks",
            (f"{row.id} ({row.place})" for row in lacking),
        )
    pairs = [(row, b.rows[key]) for key, row in a.rows.items() if key in b.rows]
    notes.add_all(
        f"videos with other numbers of frames in {a.path.name} than in {b.path.name}",
        (
            f"{p.id}: {p.num_frames} and {q.num_frames}"
            for p, q in pairs
            if p.num_frames != q.num_frames
        ),
    )


class PathReader:
    """Reads rows `<path> <frames> <label>`; an id is the name of a file without its extension."""

    def __init__(self, material: Material):
        self._split = find_split(material.path)

    def __call__(self, row: Row) -> Listed:
        text, num_frames, labels = split_right(row)
        path = PurePosixPath(check_path(row.place, text).replace("\\", "/"))
        splits = {split for part in path.parts[:-1] if (split := parse_split(part))}
        split = splits.pop() if len(splits) == 1 else self._split
        if split is None:
            raise UserError(
                f"{row.place}: neither the path nor the list's name tells the split; put train "
                "or val into its name"
            )
        name = strip_extension(path.name)
        return Listed(row.place, name, split, labels, num_frames, path.parent.name, str(path))


class IdReader:
    """Reads rows that are ids of YouTube and nothing else."""

    def __init__(self, material: Material):
        self._split = require_split(material)

    def __call__(self, row: Row) -> Listed:
        if not YOUTUBE.fullmatch(row.text):
            raise UserError(f"{row.place}: {show(row.text)} is no id of YouTube")
        return Listed(row.place, row.text, self._split, ())


def require_split(material: Material) -> str:
    """The split that a file's name tells; raises UserError."""
    split = find_split(material.path)
    if split is None:
        raise UserError(
            f"{material.path}: neither its name nor its folder's tells the split; put train or val "
            "into the name"
        )
    return split
