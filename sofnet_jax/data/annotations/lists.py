"""Lists of videos, `<id or path> <frames> <label>` or bare ids, and the classes by number."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from sofnet_jax.data.annotations.clip import Clip
from sofnet_jax.data.annotations.files import Kinds, Material, Node, Notes, show
from sofnet_jax.data.annotations.names import YOUTUBE, check_label, check_path, need_split
from sofnet_jax.host.errors import UserError

_LISTED = re.compile(r".*\S[,\s]+[0-9]+[,\s]+[0-9]+")  # a row, seen from its end
_NUMBERED = re.compile(r"([0-9]+)[,\s]+(\S.*)")
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


def create_kinds(count: int, *, has_paths: bool = False) -> Kinds:
    """For `sort_materials`: lists, as `read_list` reads them, and `count` class names.

    Any text could be class names; a file found in a folder must have `count` rows or a telling
    name.
    """
    return {
        "list": lambda m: m.looks_like(_LISTED) or (has_paths and m.looks_like(YOUTUBE)),
        "numbered": lambda m: m.looks_like(_NUMBERED),
        "names": lambda m: (
            m.looks_like(_NAME)
            and len({row.value for row in m.rows}) == len(m.rows) > 1
            and (m.named or len(_skip_header(m)) == count or bool(_TELLING.search(m.path.name)))
        ),
    }


def read_list(
    material: Material, create: Callable[[Node], Clip], notes: Notes, *, has_paths: bool = False
) -> list[Clip]:
    """Read rows `<id> <frames> <label>…`; with `has_paths`, of one label, or bare YouTube ids.

    `create` makes a clip from an id or path; its split may be "" if only the name of the list says
    it. Raises UserError.
    """
    is_bare = has_paths and material.looks_like(YOUTUBE)
    clips = []
    for row in material.rows:
        if is_bare:
            row.match(YOUTUBE, "a YouTube id")
        name, *cells = [row.value] if is_bare else _split_row(row, has_paths)
        clip = create(Node(row.place, name))
        frames, *numbers = (Node(row.place, cell).count() for cell in cells or ["0"])
        if cells and not frames:
            notes.add("rows with 0 frames: taken as unknown", row.place)
        clips.append(
            replace(
                clip,
                split=clip.split or need_split(material.path),
                num_frames=frames or None,
                numbers=tuple(numbers),
            )
        )
    return clips


def _split_row(row: Node, has_path: bool) -> list[str]:
    """The id or path, the number of frames and the labels.

    A path may contain separators and has one label; an id contains none and may have several.
    """
    text = row.text()
    if has_path:
        cells = text.rsplit(None, 2)
        if "," in cells[-1]:
            cells = text.rsplit(",", 2)
    else:
        cells = text.split("," if "," in text else None)
    if len(cells) < 3:
        raise UserError(
            f"{row.place}: {len(cells)} columns in {show(text)}; "
            "a row is 'id,frames,label' or 'id frames label'"
        )
    return [cell.strip() for cell in cells]


def parse_path(node: Node) -> PurePosixPath:
    """The path in a row, with `/` between its folders; raises UserError if it leaves its folder."""
    return PurePosixPath(check_path(node).replace("\\", "/"))


def read_orders(
    files: Mapping[str, Sequence[Material]], starts: Sequence[int] = (0,)
) -> list[ClassOrder]:
    """Read the files of class names; unnumbered ones are counted from each of `starts`.

    Raises UserError.
    """
    orders = [ClassOrder(m.path, _read_numbered(m)) for m in files["numbered"]]
    for material in files["names"]:
        names = [check_label(row) for row in _skip_header(material)]
        orders += [
            ClassOrder(material.path, dict(enumerate(names, i)), stated=False) for i in starts
        ]
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
