"""Class orders: the class that a number stands for. Every public list has an order of its own."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sofnet_jax.data.annotations.files import Kinds, Material, Notes, Row, parse_count, show
from sofnet_jax.data.annotations.lists import LISTED, Listed, Roster
from sofnet_jax.data.annotations.names import YOUTUBE, check_label
from sofnet_jax.host.errors import UserError

_NUMBERED = re.compile(r"([0-9]+)[,\s]+(\S.*)")
_TABLE = re.compile(r".*,.*|.*\s[0-9]+")
_HEADERS = ("action", "class", "classes", "label", "labels", "name")
_TELLING = re.compile(r"class|label|action|categor", re.IGNORECASE)


@dataclass(frozen=True)
class Evidence:
    """The classes of a video by name, and the place that gives them.

    If it is not `certain`, a list that contradicts it is an error.
    """

    labels: frozenset[str]
    place: str
    certain: bool = True


@dataclass(frozen=True)
class ClassOrder:
    """The classes by number in a file; the numbers are `stated` there, or those of its rows."""

    path: Path
    names: dict[int, str]
    stated: bool

    def __str__(self) -> str:
        return str(self.path) if self.stated else f"{self.path}, counted from {min(self.names)}"

    def agrees(self, row: Listed, evidence: Evidence) -> bool:
        """Whether the numbers of a row stand for classes that the evidence has."""
        return {self.names.get(number) for number in row.numbers} <= evidence.labels

    def matches(self, other: "ClassOrder") -> bool:
        """Whether the two give no number to different classes."""
        return all(self.names.get(number, name) == name for number, name in other.names.items())

    def is_parallel(self, other: "ClassOrder") -> bool:
        """Whether their common classes are in one order, whatever each is counted from."""
        a, b = ([name for _, name in sorted(o.names.items())] for o in (self, other))
        return [name for name in a if name in b] == [name for name in b if name in a]


def create_kinds(count: int, *, has_paths: bool = False) -> Kinds:
    """For `sort_materials`: lists, as `read_list` reads them, and `count` class names."""
    return {
        "list": lambda m: m.looks_like(LISTED) or (has_paths and m.looks_like(YOUTUBE)),
        "numbered": lambda m: m.looks_like(_NUMBERED),
        "names": lambda m: _is_names(m, count),
    }


def _is_names(material: Material, count: int) -> bool:
    """Whether the rows of a file are class names.

    Any text could be; a file found in a folder must have `count` rows or a telling name.
    """
    texts = [row.text for row in _skip_header(material)]
    return (
        not material.is_json
        and len(set(texts)) == len(texts) > 1
        and not material.looks_like(_TABLE)
        and not any("/" in text for text in texts)
        and not all(YOUTUBE.fullmatch(text) for text in texts)
        and (material.named or len(texts) == count or bool(_TELLING.search(material.path.name)))
    )


def read_orders(
    files: Mapping[str, Sequence[Material]], starts: Sequence[int] = (0,)
) -> list[ClassOrder]:
    """Read the files of class names; unnumbered ones are counted from each of `starts`.

    Raises UserError.
    """
    orders = [ClassOrder(m.path, _read_numbered(m), stated=True) for m in files["numbered"]]
    for material in files["names"]:
        names = [check_label(row.place, row.text) for row in _skip_header(material)]
        orders += [
            ClassOrder(material.path, dict(enumerate(names, i)), stated=False) for i in starts
        ]
    return orders


def _read_numbered(material: Material) -> dict[int, str]:
    """Read rows `0,Archery` or `1 Archery`."""
    names: dict[int, str] = {}
    for row in material.rows:
        match = _NUMBERED.fullmatch(row.text)
        if not match:
            raise UserError(f"{row.place}: {show(row.text)} is not a class number and name")
        number = parse_count(row.place, "the number", match[1])
        name = check_label(row.place, match[2])
        if number in names or name in names.values():
            raise UserError(f"{row.place}: duplicate number or name in {show(row.text)}")
        names[number] = name
    return names


def _skip_header(material: Material) -> tuple[Row, ...]:
    rows = material.rows
    return rows[1:] if rows and rows[0].text.lower() in _HEADERS else rows


def name_labels(
    roster: Roster,
    orders: Sequence[ClassOrder],
    evidence: Mapping[str, Evidence],
    notes: Notes,
) -> dict[tuple[str, str], tuple[str, ...]]:
    """The class names of each row of a list.

    Evidence wins over numbers. The order of the numbers is the one that agrees with most of the
    evidence; raises UserError if none agrees with half of it, unless every row has evidence.
    """
    rows = [row for row in roster.rows.values() if row.numbers]
    order = _choose_order(roster.path, rows, orders, evidence, notes) if rows else None
    named = {}
    for key, row in roster.rows.items():
        labels = tuple(dict.fromkeys(order.names[n] for n in row.numbers)) if order else ()
        proof = evidence.get(row.clip.id)
        if proof and labels and set(labels) != proof.labels:
            found, true = " and ".join(labels), " and ".join(sorted(proof.labels))
            problem = f"{row.clip.place} {found}, not {true} as in {proof.place}"
            if not (proof.certain or set(labels) <= proof.labels):
                raise UserError(f"{problem}; correct the one that is wrong")
            notes.add("videos with other classes by number than by name: names win", problem)
        named[key] = tuple(sorted(proof.labels)) if proof else labels
    return named


def _choose_order(
    path: Path,
    rows: Sequence[Listed],
    orders: Sequence[ClassOrder],
    evidence: Mapping[str, Evidence],
    notes: Notes,
) -> ClassOrder | None:
    """The class order of a list; None if names make it unnecessary. See `name_labels`."""
    known = [(row, evidence[row.clip.id]) for row in rows if row.clip.id in evidence]

    def count_agreeing(order: ClassOrder) -> int:
        return sum(order.agrees(row, proof) for row, proof in known)

    best = max(orders, key=lambda o: (count_agreeing(o), len(o.names)), default=None)
    score = count_agreeing(best) if best else 0
    if not known:
        chosen = _choose_only(path, rows, orders)
        if not chosen.stated:
            notes.say(f"{path}: labels are read by {chosen}; no given file confirms it")
    elif best and 2 * score > len(known):
        chosen = best
    else:
        problem = (
            f"{path}: its numbers do not follow {best or 'any file of class names'}: only "
            f"{score:,} of {len(known):,} videos agree with their names"
        )
        if len(known) < len(rows):
            raise UserError(f"{problem}; give the matching class index")
        notes.say(f"{problem}; all labels are taken by name")
        return None
    _check_numbers(chosen, rows, known)
    for other in dict.fromkeys(o.path for o in orders if not o.is_parallel(chosen)):
        notes.add(f"{other}: a different class order, not used", path.name)
    return chosen


def _choose_only(path: Path, rows: Sequence[Listed], orders: Sequence[ClassOrder]) -> ClassOrder:
    """The order where there is no evidence: stated before counted, and the only possible one."""
    usable = [o for o in orders if o.stated] or list(orders)
    if not usable:
        raise UserError(f"{path}: its labels are numbers; give the file of class names as well")
    used = {number for row in rows for number in row.numbers}
    first, *others = [o for o in usable if used <= o.names.keys()] or usable[:1]
    for other in others:
        if not other.matches(first):
            raise UserError(
                f"{path}: its numbers may follow {first} or {other}, which differ; leave one out, "
                "or give a file that has its videos' classes by name"
            )
    return first


def _check_numbers(
    order: ClassOrder, rows: Sequence[Listed], known: Sequence[tuple[Listed, Evidence]]
) -> None:
    """Raise UserError for a number that is out of range or, where it decides, mostly disproved."""
    for row in rows:
        for number in row.numbers:
            if number not in order.names:
                raise UserError(
                    f"{row.clip.place}: label {number} is out of range {min(order.names)} to "
                    f"{max(order.names)} in {order.path}"
                )
    pairs = [(number, proof) for row, proof in known for number in row.numbers]
    total = Counter(number for number, _ in pairs)
    right = Counter(number for number, proof in pairs if order.names[number] in proof.labels)
    proven = {row.clip.id for row, _ in known}
    for row in rows:
        for number in row.numbers:
            if row.clip.id not in proven and 2 * right[number] < total[number]:
                raise UserError(
                    f"{row.clip.place}: label {number} is {order.names[number]} in {order.path}, "
                    f"but only {right[number]:,} of {total[number]:,} named videos agree; give the "
                    "matching class index"
                )
