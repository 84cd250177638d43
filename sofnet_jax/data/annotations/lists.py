"""Lists of videos, `<id or path> <frames> <label>` or bare ids, and the classes by number."""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sofnet_jax.data.annotations.clip import Clip
from sofnet_jax.data.annotations.files import Kinds, Material, Node, Notes, show
from sofnet_jax.data.annotations.names import YOUTUBE, check_label, check_path, need_split
from sofnet_jax.host.errors import UserError

_LISTED = re.compile(r".*\S[,\s]+[0-9]+[,\s]+[0-9]+")  # a row, seen from its end
_CELL = re.compile(r"[^,\s]+")
_COUNT = re.compile(r"[0-9]{1,9}")
_NUMBERED = re.compile(r"([0-9]+)(?:\s*[,;:|]|\s)[,\s]*(\S.*)")
_NAME = re.compile(r"(?![\w-]{11}$)(?!.*\s[0-9]+$)[^,/]+")  # no id, no path, no row of a table
_HEADERS = ("action", "class", "classes", "label", "labels", "name")
_TELLING = re.compile(r"class|label|action|categor", re.IGNORECASE)


@dataclass(frozen=True)
class ClassOrder:
    """The classes by number in a file; the numbers are `stated` there, or those of its rows.

    Every public list has an order of its own.
    """

    path: Path
    names: dict[int, str]
    stated: bool = True

    def __str__(self) -> str:
        return str(self.path) if self.stated else f"{self.path}, counted from {min(self.names)}"

    def look_up(self, place: str, numbers: Sequence[int]) -> tuple[str, ...]:
        """The classes of the numbers, each once; raises UserError if one has none."""
        for number in numbers:
            if number not in self.names:
                raise UserError(
                    f"{place}: label {number} is none of {len(self.names)} classes in {self}; "
                    "correct it, or give the class index of this file"
                )
        return tuple(dict.fromkeys(self.names[number] for number in numbers))

    def matches(self, other: "ClassOrder") -> bool:
        """Whether the two give no number to different classes."""
        return all(self.names.get(number, name) == name for number, name in other.names.items())


def create_kinds(count: int) -> Kinds:
    """For `sort_materials`: lists, as `read_list` reads them, and `count` class names.

    Any text could be class names; a file found in a folder must have `count` rows or a telling
    name.
    """
    return {
        "list": lambda m: m.looks_like(_LISTED) or m.looks_like(YOUTUBE),
        "classes": lambda m: (
            m.looks_like(_NUMBERED)
            or m.looks_like(_NAME)
            and len({row.value for row in m.rows}) == len(m.rows) > 1
            and (m.named or len(_skip_header(m)) == count or bool(_TELLING.search(m.path.name)))
        ),
    }


def read_lists(
    files: Mapping[str, Sequence[Material]], create: Callable[[Node], Clip], notes: Notes
) -> dict[Path, list[Clip]]:
    """Read the lists, by path.

    `create` makes a clip from an id or path; its split may be "" if only the name of the list says
    it. Raises UserError.
    """
    return {m.path: [_read_row(row, m, create, notes) for row in m.rows] for m in files["list"]}


def _read_row(row: Node, material: Material, create: Callable[[Node], Clip], notes: Notes) -> Clip:
    """Read `<id or path> <frames> <label>…`, or a bare id if there are mostly such in the file.

    The numbers are taken from the end, since a path may contain what separates them.
    """
    cells = list(_CELL.finditer(row.text()))
    last = itertools.takewhile(lambda cell: _COUNT.fullmatch(cell[0]), reversed(cells[1:]))
    numbers = [int(cell[0]) for cell in last][::-1]
    if len(numbers) < 2 and not material.looks_like(YOUTUBE):
        raise UserError(
            f"{row.place}: {show(row.value)} is not a row 'id,frames,label' or 'id frames label'"
        )
    name = row.text()[: cells[-1 - len(numbers)].end()] if numbers else row.text()
    clip = create(Node(row.place, name))
    if numbers[:1] == [0]:
        notes.add("rows with 0 frames: taken as unknown", row.place)
    return replace(
        clip,
        split=clip.split or need_split(material.path),
        num_frames=next(iter(numbers), 0) or None,
        numbers=tuple(numbers[1:]),
    )


def parse_path(node: Node) -> PurePosixPath:
    """The path in a row, with `/` between its folders; raises UserError if it leaves its folder."""
    return PurePosixPath(check_path(node).replace("\\", "/"))


def read_orders(
    files: Mapping[str, Sequence[Material]], count: int, starts: Sequence[int] = (0,)
) -> list[ClassOrder]:
    """Read the files of class names; unnumbered ones are counted from each of `starts`.

    Raises UserError, also for more than `count` unnumbered names: the first may be a header.
    """
    orders = []
    for material in files["classes"]:
        if material.looks_like(_NUMBERED):
            orders.append(ClassOrder(material.path, _read_numbered(material)))
            continue
        rows = _skip_header(material)
        if len(rows) > count or rows[0].value.startswith("#"):
            raise UserError(
                f"{rows[0].place}: {show(rows[0].value)} begins {len(rows)} class names, of which "
                f"there are {count} at most; delete this line if it is a header"
            )
        names = [check_label(row) for row in rows]
        orders += [ClassOrder(material.path, dict(enumerate(names, i)), False) for i in starts]
    return orders


def _read_numbered(material: Material) -> dict[int, str]:
    """Read rows `0,Archery` or `1 Archery`."""
    names: dict[int, str] = {}
    for row in material.rows:
        match = row.match(_NUMBERED, "a class number and name")
        number, name = (Node(row.place, cell) for cell in match.groups())
        if number.count() in names or check_label(name) in names.values():
            raise UserError(f"{row.place}: duplicate number or name in {show(row.value)}")
        names[number.count()] = check_label(name)
    return names


def _skip_header(material: Material) -> tuple[Node, ...]:
    rows = material.rows
    return rows[1:] if rows and rows[0].value.lower() in _HEADERS else rows
