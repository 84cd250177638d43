"""Lists of videos: `<id or path> <frames> <label>` with numeric labels, or bare ids."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sofnet_jax.data.annotations.clip import Clip
from sofnet_jax.data.annotations.files import Material, Notes, Row, parse_count, show
from sofnet_jax.data.annotations.names import YOUTUBE, check_path, find_split
from sofnet_jax.host.errors import UserError

LISTED = re.compile(r".*\S[,\s]+[0-9]+[,\s]+[0-9]+")  # a row, seen from its end


@dataclass(frozen=True)
class Listed:
    """A row of a list: a clip without labels, their numbers, and its folder if it has one."""

    clip: Clip
    numbers: tuple[int, ...] = ()
    folder: str | None = None


@dataclass(frozen=True)
class Roster:
    """The rows of a list by split and id, in their order."""

    path: Path
    rows: dict[tuple[str, str], Listed]


def read_list(
    material: Material,
    create: Callable[[str, str], Listed],
    notes: Notes,
    *,
    has_paths: bool = False,
) -> Roster:
    """Read rows `<id> <frames> <label>…`; with `has_paths`, of one label, or bare YouTube ids.

    `create` makes a row from a place and an id or path; its split may be "" if only the name of the
    list says it. Raises UserError.
    """
    is_bare = has_paths and material.looks_like(YOUTUBE)
    split_of_file = find_split(material.path)

    def parse(row: Row) -> Listed:
        if is_bare and not YOUTUBE.fullmatch(row.text):
            raise UserError(f"{row.place}: {show(row.text)} is not a YouTube id")
        name, *counts = [row.text] if is_bare else _split_row(row, has_paths)
        listed = create(row.place, name)
        split = listed.clip.split or split_of_file
        if split is None:
            raise UserError(f"{row.place}: split unknown; put train or val into the list's name")
        num_frames = parse_count(row.place, "the number of frames", counts[0]) if counts else None
        numbers = tuple(parse_count(row.place, "a label", label) for label in counts[1:])
        clip = replace(listed.clip, split=split, num_frames=num_frames)
        return replace(listed, clip=clip, numbers=numbers)

    return collect(material.path, map(parse, material.rows), notes)


def _split_row(row: Row, has_path: bool) -> list[str]:
    """The id or path, the number of frames and the labels.

    A path may contain separators and has one label; an id contains none and may have several.
    """
    if has_path:
        cells = row.text.rsplit(None, 2)
        if "," in cells[-1]:
            cells = row.text.rsplit(",", 2)
    else:
        cells = row.text.split("," if "," in row.text else None)
    if len(cells) < 3:
        raise UserError(
            f"{row.place}: {len(cells)} columns in {show(row.text)}; "
            "a row is 'id,frames,label' or 'id frames label'"
        )
    return [cell.strip() for cell in cells]


def parse_path(place: str, text: str) -> PurePosixPath:
    """The path in a row, with `/` between its folders; raises UserError if it leaves its folder."""
    return PurePosixPath(check_path(place, text).replace("\\", "/"))


def collect(path: Path, listed: Iterable[Listed], notes: Notes) -> Roster:
    """Index rows and drop duplicates; raises UserError if a video has different labels."""
    rows: dict[tuple[str, str], Listed] = {}
    for row in listed:
        clip = row.clip
        first = rows.setdefault((clip.split, clip.id), row)
        if set(first.numbers) != set(row.numbers):
            raise UserError(
                f"{clip.place}: {clip.id} has different labels in {first.clip.place}; keep one row"
            )
        if first is not row:
            notes.add("duplicate rows left out", clip.place)
        elif clip.num_frames == 0:
            notes.add("rows with 0 frames: taken as unknown", clip.place)
            rows[clip.split, clip.id] = replace(row, clip=replace(clip, num_frames=None))
    return Roster(path, rows)
