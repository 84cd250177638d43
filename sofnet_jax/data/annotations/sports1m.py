"""mini-Sports1M: the JSON or the partitions of Sports-1M, its labels, and a list of a subset.

Its files count the classes from 0 as the rows of `labels.txt`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sofnet_jax.data.annotations.assembly import Parts, assemble
from sofnet_jax.data.annotations.classes import (
    Numbering,
    is_names,
    is_numbered,
    read_names,
    read_numbered,
)
from sofnet_jax.data.annotations.clip import Annotation, Clip
from sofnet_jax.data.annotations.files import (
    Material,
    Node,
    Notes,
    parse_count,
    show,
    sort_materials,
)
from sofnet_jax.data.annotations.lists import (
    LISTED,
    IdReader,
    Listed,
    PathReader,
    Roster,
    read_roster,
    require_split,
)
from sofnet_jax.data.annotations.names import YOUTUBE, check_id, find_split, parse_split
from sofnet_jax.host.errors import UserError

NAME = "mini_sports1m"
_CLASSES = 487
_ADDRESS = re.compile(
    r"(?:https?://)?(?:www\.|m\.)?(?:youtube\.com/watch\?v=|youtu\.be/)([\w-]+)\S*"
)
_PARTITION = re.compile(_ADDRESS.pattern + r"\s+[0-9][0-9,\s]*")
_TOPIC = re.compile(r"/m/\w+,.+")


def read(materials: Sequence[Material]) -> Annotation:
    """Reads what is given of the benchmark's files. Raises UserError."""
    notes = Notes()
    kinds = {
        "official": _is_official,
        "partition": lambda m: m.looks_like(_PARTITION),
        "topics": lambda m: m.looks_like(_TOPIC),
        "list": lambda m: m.looks_like(LISTED),
        "ids": lambda m: m.looks_like(YOUTUBE),
        "numbered": is_numbered,
        "names": lambda m: is_names(m, _CLASSES),
    }
    files = sort_materials("Sports-1M", materials, kinds, notes)
    numberings = [*map(read_numbered, files["numbered"]), *map(read_names, files["names"])]
    told: dict[str, Clip] = {}
    for material in files["official"]:
        videos = _read_official(material, _get_names(material, numberings), notes)
        _add(told, videos, notes)
    for material in files["partition"]:
        _add(told, _read_partition(material, _get_names(material, numberings)), notes)
    if not told and not files["list"]:
        raise UserError(f"{materials[0].path}: no file tells of videos; give the JSON or a list")
    rosters = [_read_list(m, notes) for m in files["list"]]
    rosters += [read_roster(m, IdReader(m), notes) for m in files["ids"]]
    return assemble(NAME, Parts(told, rosters, numberings), _create_clip, notes)


def _is_official(material: Material) -> bool:
    value = material.document.value if material.is_json else None
    videos = value if isinstance(value, list) else []
    return any(isinstance(video, dict) and "label487" in video for video in videos[:10])


def _get_names(material: Material, numberings: Sequence[Numbering]) -> Mapping[int, str]:
    """The names of the classes that the official files count. Raises UserError."""
    if len(numberings) != 1:
        raise UserError(
            f"{material.path}: its labels are numbers, and {len(numberings)} files name the "
            "classes; give the one labels.txt of Sports-1M as well"
        )
    return numberings[0].names


def _look_up(place: str, number: int, names: Mapping[int, str]) -> str:
    if number not in names:
        raise UserError(f"{place}: label {number} is none of {len(names)} classes")
    return names[number]


def _read_official(material: Material, names: Mapping[int, str], notes: Notes) -> Iterator[Clip]:
    for video in material.document.elements():
        id = video.need("id")
        source = video.get("source487")
        split = parse_split(source.text()) if source else find_split(material.path)
        if split is None:
            raise UserError(f"{video.place}: no 'source487' that is train or test")
        labels = [_look_up(n.place, n.count(), names) for n in video.need("label487").elements()]
        duration = _read_duration(video.get("duration"), notes)
        yield _create_video(check_id(id.place, id.text()), split, labels, video.place, duration)


def _read_duration(node: Node | None, notes: Notes) -> float | None:
    """Seconds, which the JSON has as a number or as text."""
    if node is None:
        return None
    value = node.value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return float(value) or None
    seconds = node.number()
    if seconds <= 0:
        notes.add("durations that are not positive: taken as unknown", node.place)
    return seconds if seconds > 0 else None


def _read_partition(material: Material, names: Mapping[int, str]) -> Iterator[Clip]:
    split = require_split(material)
    for row in material.rows:
        address, *cells = row.text.split(None, 1)
        match = _ADDRESS.fullmatch(address)
        if not match or not cells:
            raise UserError(f"{row.place}: {show(row.text)} is no address of YouTube and labels")
        labels = [
            _look_up(row.place, parse_count(row.place, "a label", cell.strip()), names)
            for cell in cells[0].split(",")
        ]
        yield _create_video(check_id(row.place, match[1]), split, labels, row.place, None)


def _create_video(
    id: str, split: str, labels: Sequence[str], place: str, duration: float | None
) -> Clip:
    return Clip(
        id=id,
        split=split,
        labels=tuple(dict.fromkeys(labels)),
        place=place,
        names=(id,),
        duration=duration,
    )


def _add(told: dict[str, Clip], clips: Iterator[Clip], notes: Notes) -> None:
    for clip in clips:
        first = told.setdefault(clip.id, clip)
        if first is clip:
            continue
        if first.split != clip.split:
            notes.add("videos of both splits: taken for the first of them", clip.place)
        elif set(first.labels) != set(clip.labels):
            raise UserError(f"{clip.place}: {clip.id} has other labels in {first.place}")
        else:
            notes.add("videos that are told of again: left out", clip.place)


def _read_list(material: Material, notes: Notes) -> Roster:
    read_row = PathReader(material)
    return read_roster(material, lambda row: _identify(read_row(row)), notes)


def _identify(row: Listed) -> Listed:
    """The row with its path for an id, unless it tells an id of YouTube."""
    if YOUTUBE.fullmatch(row.id):
        return replace(row, path=None)
    return replace(row, id=row.path or row.id)


def _create_clip(row: Listed) -> Clip:
    return Clip(
        id=row.id,
        split=row.split,
        labels=(),
        place=row.place,
        names=() if row.path else (row.id,),
        path=row.path,
        num_frames=row.num_frames,
    )
