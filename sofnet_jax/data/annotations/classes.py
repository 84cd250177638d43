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

    def matches(self, other: "ClassOrder", shift: int = 0) -> bool:
        """Whether the two overlap and nowhere differ, `other` being counted from `shift` more."""
        common = [number for number in self.names if number + shift in other.names]
        return bool(common) and all(self.names[n] == other.names[n + shift] for n in common)


def create_kinds(count: int, *, has_ids: bool = False) -> Kinds:
    """For `sort_materials`: lists, with or without those of bare ids, and `count` class names."""
    return {
        "list": lambda m: m.looks_like(LISTED),
        "ids": lambda m: has_ids and m.looks_like(YOUTUBE),
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
) -> dict[Material, list[ClassOrder]]:
    """Read the files of class names; unnumbered ones are counted from each of `starts`.

    Raises UserError.
    """
    found = {m: [ClassOrder(m.path, _read_numbered(m), stated=True)] for m in files["numbered"]}
    for material in files["names"]:
        names = [check_label(row.place, row.text) for row in _skip_header(material)]
        found[material] = [
            ClassOrder(material.path, dict(enumerate(names, start)), stated=False)
            for start in starts
        ]
    return found


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
    order = _choose_order(roster, orders, evidence, notes)
    named = {}
    for key, row in roster.rows.items():
        labels = tuple(dict.fromkeys(order.names[n] for n in row.numbers)) if order else ()
        proof = evidence.get(row.clip.id)
        if proof and labels:
            _compare(row.clip.place, labels, proof, roster.path.name, notes)
        named[key] = tuple(sorted(proof.labels)) if proof else labels
    return named


def _compare(place: str, labels: Sequence[str], proof: Evidence, name: str, notes: Notes) -> None:
    """Note the difference between the labels of a row and its evidence, or raise UserError."""
    lacking = " and ".join(sorted(proof.labels - set(labels)))
    if set(labels) <= proof.labels:
        if lacking:
            kind = f"videos with fewer classes in {name} than by name: names win"
            notes.add(kind, f"{place} without {lacking}")
        return
    difference = f"{place} {' and '.join(labels)}, not {' and '.join(sorted(proof.labels))}"
    if not proof.certain:
        raise UserError(f"{difference} as in {proof.place}; correct the one that is wrong")
    kind = f"videos with different classes in {name} than by name: names win"
    notes.add(kind, f"{difference} ({proof.place})")


def _choose_order(
    roster: Roster,
    orders: Sequence[ClassOrder],
    evidence: Mapping[str, Evidence],
    notes: Notes,
) -> ClassOrder | None:
    """The class order of a list; None if names make it unnecessary. See `name_labels`."""
    rows = [row for row in roster.rows.values() if row.numbers]
    known = [(row, evidence[row.clip.id]) for row in rows if row.clip.id in evidence]
    unknown = [row for row in rows if row.clip.id not in evidence]
    if not rows:
        return None
    scores = {id(o): sum(o.agrees(row, proof) for row, proof in known) for o in orders}
    if not known:
        chosen = _choose_only(roster.path, rows, orders)
        if not chosen.stated:
            notes.say(f"{roster.path}: labels are read by {chosen}; no given file confirms it")
    else:
        best = max(orders, key=lambda o: (scores[id(o)], len(o.names)), default=None)
        if best is None or 2 * scores[id(best)] <= len(known):
            problem = f"{roster.path}: {_describe_conflict(best, known)}"
            if unknown:
                raise UserError(f"{problem}; give the matching class index")
            notes.say(f"{problem}; all labels are taken by name")
            return None
        chosen = best
    _check_numbers(chosen, rows, known, unknown)
    same = {o.path for o in orders if any(o.matches(chosen, shift) for shift in (-1, 0, 1))}
    for other in {o.path: o for o in orders if o.path not in same}.values():
        notes.add(
            f"{other.path}: a different class order, not used",
            f"{roster.path.name}, where {scores[id(other)]:,} of {len(known):,} videos agree",
        )
    return chosen


def _describe_conflict(best: ClassOrder | None, known: Sequence[tuple[Listed, Evidence]]) -> str:
    if best is None:
        return "its labels are numbers, and no file names the classes"
    wrong = [(row, proof) for row, proof in known if not best.agrees(row, proof)]
    row, proof = wrong[0]
    return (
        f"its numbers do not follow {best}: only {len(known) - len(wrong):,} of {len(known):,} "
        f"videos agree with their names (not {row.clip.id}, in {proof.place})"
    )


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
    order: ClassOrder,
    rows: Sequence[Listed],
    known: Sequence[tuple[Listed, Evidence]],
    unknown: Sequence[Listed],
) -> None:
    """Raise UserError for a number that is out of range or, where it decides, mostly disproved."""
    for row in rows:
        for number in row.numbers:
            if number not in order.names:
                raise UserError(
                    f"{row.clip.place}: label {number} is out of range {min(order.names)} to "
                    f"{max(order.names)} in {order.path}"
                )
    total: Counter[int] = Counter()
    wrong: dict[int, list[tuple[Listed, Evidence]]] = {}
    for row, proof in known:
        total.update(row.numbers)
        for number in row.numbers:
            if order.names[number] not in proof.labels:
                wrong.setdefault(number, []).append((row, proof))
    for row in unknown:
        for number in row.numbers:
            count, found = total[number], wrong.get(number, [])
            if 2 * len(found) > count:
                raise UserError(
                    f"{row.clip.place}: label {number} is {order.names[number]} in {order.path}, "
                    f"but only {count - len(found):,} of {count:,} named videos agree (not "
                    f"{found[0][0].clip.id}, in {found[0][1].place}); give the matching class index"
                )
