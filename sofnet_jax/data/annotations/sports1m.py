"""mini-Sports1M: the JSON or the partitions of Sports-1M, its labels, and lists of a subset.

The official files number the classes from 0, as the rows of `labels.txt`.
"""

import re
from collections.abc import Iterator, Sequence

from sofnet_jax.data.annotations.assembly import assemble, merge
from sofnet_jax.data.annotations.clip import Annotation, Clip, read_duration
from sofnet_jax.data.annotations.files import Material, Node, Notes, sort_materials
from sofnet_jax.data.annotations.lists import (
    ClassOrder,
    create_kinds,
    parse_path,
    read_lists,
    read_orders,
)
from sofnet_jax.data.annotations.names import (
    YOUTUBE,
    check_id,
    check_split,
    find_split,
    need_split,
    strip_extension,
)
from sofnet_jax.host.errors import UserError

NAME = "mini_sports1m"
_CLASSES = 487
_PARTITION = re.compile(
    r"(?:https?://)?(?:www\.|m\.)?(?:youtube\.com/watch\?v=|youtu\.be/)([\w-]++)\S*+\s++([0-9].*)"
)
_TOPIC = re.compile(r"/m/\w+,.+")


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    kinds = {
        "official": lambda m: "label487" in m.fields,
        "partition": lambda m: m.looks_like(_PARTITION),
        "topics": lambda m: m.looks_like(_TOPIC),
        **create_kinds(_CLASSES),
    }
    files = sort_materials("Sports-1M", materials, kinds, notes)
    orders = read_orders(files, _CLASSES)
    for material in files["official"] + files["partition"]:
        if len(orders) != 1:
            raise UserError(
                f"{material.path}: its labels are numbers, and {len(orders)} files name the "
                "classes; give the one labels.txt of Sports-1M as well"
            )
    found = [_read_official(m, orders[0], notes) for m in files["official"]]
    found += [_read_partition(m, orders[0]) for m in files["partition"]]
    described = merge(found, notes)
    lists = read_lists(files, _create_listed, notes)
    if not (described or any(clip.numbers for clips in lists.values() for clip in clips)):
        raise UserError(f"{materials[0].path}: no file describes videos; give the JSON or a list")
    return assemble(NAME, described, lists, orders, notes)


def _read_official(material: Material, order: ClassOrder, notes: Notes) -> Iterator[Clip]:
    for video in material.document.elements():
        id = check_id(video.need("id"))
        source = video.get("source487")
        labels = video.need("label487")
        yield Clip(
            id=id,
            split=check_split(source) if source else need_split(material.path),
            labels=order.look_up(labels.place, [node.count() for node in labels.elements()]),
            place=video.place,
            names=(id,),
            duration=read_duration(video.get("duration"), notes),
        )


def _read_partition(material: Material, order: ClassOrder) -> Iterator[Clip]:
    split = need_split(material.path)
    for row in material.rows:
        match = row.match(_PARTITION, "a YouTube address and labels")
        cells = [match[1], *match[2].split(",")]
        id, *numbers = (Node(row.place, cell.strip()) for cell in cells)
        labels = order.look_up(row.place, [number.count() for number in numbers])
        yield Clip(check_id(id), split, labels, row.place, names=(id.text(),))


def _create_listed(name: Node) -> Clip:
    """A clip with a YouTube id, or else with its path as the id."""
    path = parse_path(name)
    id = strip_extension(path.name)
    if YOUTUBE.fullmatch(id):
        return Clip(id, "", (), name.place, names=(id,))
    return Clip(str(path), find_split(*path.parts[:-1]), (), name.place, path=str(path))
