"""mini-Sports1M: the JSON or the partitions of Sports-1M, its labels, and lists of a subset.

The official files number the classes from 0, as the rows of `labels.txt`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sofnet_jax.data.annotations.assembly import assemble
from sofnet_jax.data.annotations.classes import ClassOrder, create_kinds, read_orders
from sofnet_jax.data.annotations.clip import Annotation, Clip, read_duration
from sofnet_jax.data.annotations.files import (
    Material,
    Notes,
    parse_count,
    parse_seconds,
    show,
    sort_materials,
)
from sofnet_jax.data.annotations.lists import Listed, parse_path, read_list
from sofnet_jax.data.annotations.names import (
    YOUTUBE,
    check_id,
    find_folder_split,
    find_split,
    parse_split,
    strip_extension,
)
from sofnet_jax.host.errors import UserError

NAME = "mini_sports1m"
_CLASSES = 487
_ADDRESS = re.compile(
    r"(?:https?://)?(?:www\.|m\.)?(?:youtube\.com/watch\?v=|youtu\.be/)([\w-]+)\S*"
)
_PARTITION = re.compile(_ADDRESS.pattern + r"\s+[0-9][0-9,\s]*")
_TOPIC = re.compile(r"/m/\w+,.+")


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    kinds = {
        "official": _is_official,
        "partition": lambda m: m.looks_like(_PARTITION),
        "topics": lambda m: m.looks_like(_TOPIC),
        **create_kinds(_CLASSES, has_paths=True),
    }
    files = sort_materials("Sports-1M", materials, kinds, notes)
    orders = read_orders(files)
    described: dict[str, Clip] = {}
    for material in files["official"]:
        for clip in _read_official(material, _get_names(material, orders), notes):
            _add(described, clip, notes)
    for material in files["partition"]:
        for clip in _read_partition(material, _get_names(material, orders)):
            _add(described, clip, notes)
    rosters = [read_list(m, _create_listed, notes, has_paths=True) for m in files["list"]]
    if not (described or any(row.numbers for r in rosters for row in r.rows.values())):
        raise UserError(f"{materials[0].path}: no file describes videos; give the JSON or a list")
    return assemble(NAME, described, rosters, orders, notes)


def _is_official(material: Material) -> bool:
    value = material.document.value if material.is_json else None
    videos = value if isinstance(value, list) else []
    return any(isinstance(video, dict) and "label487" in video for video in videos[:10])


def _get_names(material: Material, orders: Sequence[ClassOrder]) -> Mapping[int, str]:
    """The class names by their number in the official files. Raises UserError."""
    if len(orders) != 1:
        raise UserError(
            f"{material.path}: its labels are numbers, and {len(orders)} files name the classes; "
            "give the one labels.txt of Sports-1M as well"
        )
    return orders[0].names


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
        duration = video.get("duration")
        if duration and isinstance(duration.value, str) and duration.value.isdecimal():
            seconds = parse_seconds(duration.place, "the duration", duration.value)
            duration = replace(duration, value=seconds)
        clip = _create_clip(check_id(id.place, id.text()), split, labels, video.place)
        yield replace(clip, duration=read_duration(duration, notes))


def _read_partition(material: Material, names: Mapping[int, str]) -> Iterator[Clip]:
    split = find_split(material.path)
    if split is None:
        raise UserError(f"{material.path}: split unknown; put train or val into its name")
    for row in material.rows:
        address, *cells = row.text.split(None, 1)
        match = _ADDRESS.fullmatch(address)
        if not match or not cells:
            raise UserError(f"{row.place}: {show(row.text)} is not a YouTube address and labels")
        labels = [
            _look_up(row.place, parse_count(row.place, "a label", cell.strip()), names)
            for cell in cells[0].split(",")
        ]
        yield _create_clip(check_id(row.place, match[1]), split, labels, row.place)


def _add(described: dict[str, Clip], clip: Clip, notes: Notes) -> None:
    """Add a clip; a duplicate is noted. Raises UserError if its labels differ."""
    first = described.setdefault(clip.id, clip)
    if first.split == clip.split and set(first.labels) != set(clip.labels):
        raise UserError(f"{clip.place}: {clip.id} has different labels in {first.place}; keep one")
    if first is not clip:
        notes.add("duplicate videos: the first counts", f"{clip.place}, {first.place}")


def _create_clip(id: str, split: str, labels: Sequence[str], place: str) -> Clip:
    return Clip(id, split, tuple(dict.fromkeys(labels)), place, names=(id,))


def _create_listed(place: str, text: str) -> Listed:
    """A clip with a YouTube id, or else with its path as the id."""
    path = parse_path(place, text)
    name, split = strip_extension(path.name), find_folder_split(path)
    if YOUTUBE.fullmatch(name):
        return Listed(_create_clip(name, split, (), place))
    return Listed(Clip(id=str(path), split=split, labels=(), place=place, path=str(path)))
