"""Class orders: which class a number in a list stands for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sofnet_jax.data.annotations.files import Material, Notes, Row, parse_count, show
from sofnet_jax.data.annotations.lists import LISTED, Listed, Roster
from sofnet_jax.data.annotations.names import YOUTUBE, check_label
from sofnet_jax.host.errors import UserError

_NUMBERED = re.compile(r"([0-9]+)[,\s]+(\S.*)")
_TABLE = re.compile(r".*,.*|.*\s[0-9]+")
_HEADERS = ("action", "class", "classes", "label", "labels", "name")
_TELLING = re.compile(r"class|label|action|categor", re.IGNORECASE)


@dataclass(frozen=True)
class Numbering:
    """The classes by number as a file gives them; `stated` unless the numbers are just its rows."""

    path: Path
    names: dict[int, str]
    stated: bool

    def __str__(self) -> str:
        return str(self.path) if self.stated else f"{self.path}, counted from {min(self.names)}"


@dataclass(frozen=True)
class Evidence:
    """What a file tells of a video by name: its classes, and where it does so.

    What is not `certain` does not outweigh a number that says otherwise.
    """

    labels: frozenset[str]
    place: str
    certain: bool = True


def is_numbered(material: Material) -> bool:
    """Whether a file has rows `0,Archery` or `1 Archery`."""
    return material.looks_like(_NUMBERED) and not material.looks_like(LISTED)


def is_names(material: Material, count: int) -> bool:
    """Whether the rows of a file are names of classes.

    Any text could be; one that was found and not named has `count` of them, or a telling name.
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


def read_numbered(material: Material) -> Numbering:
    """Reads a file with rows `0,Archery`. Raises UserError."""
    names: dict[int, str] = {}
    for row in material.rows:
        match = _NUMBERED.fullmatch(row.text)
        if not match:
            raise UserError(f"{row.place}: {show(row.text)} is no number and name of a class")
        number = parse_count(row.place, "the number", match[1])
        name = check_label(row.place, match[2])
        if number in names or name in names.values():
            raise UserError(f"{row.place}: the number or the name of {show(row.text)} stands twice")
        names[number] = name
    return Numbering(material.path, names, stated=True)


def read_names(material: Material, first: int = 0) -> Numbering:
    """Reads a file of names, whose rows are counted from `first`. Raises UserError."""
    names: dict[int, str] = {}
    for number, row in enumerate(_skip_header(material), first):
        names[number] = check_label(row.place, row.text)
    return Numbering(material.path, names, stated=False)


def _skip_header(material: Material) -> tuple[Row, ...]:
    rows = material.rows
    return rows[1:] if rows and rows[0].text.lower() in _HEADERS else rows


def name_labels(
    roster: Roster,
    numberings: Sequence[Numbering],
    evidence: Mapping[str, Evidence],
    notes: Notes,
) -> dict[tuple[str, str], tuple[str, ...]]:
    """The classes of each row of a list by name.

    Numbers mean what they mean in the numbering that agrees with what other files tell by name.
    Raises UserError if none does, unless every row is told of by name.
    """
    numbering = choose_numbering(roster, numberings, evidence, notes)
    named = {}
    for key, row in roster.rows.items():
        labels = _look_up(row, numbering) if numbering else ()
        told = evidence.get(row.id)
        if told and labels and not set(labels) <= told.labels:
            _report_difference(row, labels, told, roster, notes)
        elif told and labels and set(labels) < told.labels:
            lacking = " and ".join(sorted(told.labels - set(labels)))
            notes.add(
                f"videos with fewer classes in {roster.path.name} than by name, which counts",
                f"{row.place} without {lacking}",
            )
        named[key] = tuple(sorted(told.labels)) if told else labels
    return named


def _look_up(row: Listed, numbering: Numbering) -> tuple[str, ...]:
    return tuple(dict.fromkeys(numbering.names[label] for label in row.labels))


def _report_difference(
    row: Listed, labels: Sequence[str], told: Evidence, roster: Roster, notes: Notes
) -> None:
    difference = f"{row.place} {' and '.join(labels)}, not {' and '.join(sorted(told.labels))}"
    if not told.certain:
        raise UserError(f"{difference} as in {told.place}; correct the one that is wrong")
    notes.add(
        f"videos of other classes in {roster.path.name} than where they are told by name, which "
        "counts",
        f"{difference} ({told.place})",
    )


def choose_numbering(
    roster: Roster,
    numberings: Sequence[Numbering],
    evidence: Mapping[str, Evidence],
    notes: Notes,
) -> Numbering | None:
    """The numbering of a list's labels; None if it is not needed. See `name_labels`."""
    rows = [row for row in roster.rows.values() if row.labels]
    if not rows:
        return None
    known = [row for row in rows if row.id in evidence]
    if known:
        chosen = _choose_by_evidence(roster, rows, known, numberings, evidence, notes)
    else:
        chosen = _choose_only(roster, rows, numberings)
    if chosen:
        _check_range(rows, chosen)
        _check_numbers(rows, chosen, evidence)
        if not known and not chosen.stated:
            notes.say(f"{roster.path}: labels are by {chosen}; no file that is given proves it")
        for other in _list_others(numberings, chosen):
            score = sum(_agrees(row, other, evidence) for row in known)
            notes.add(
                f"{other.path}: another order of the classes than that of the lists; not used",
                f"{roster.path.name}, where {score:,} of {len(known):,} videos would be right",
            )
    return chosen


def _choose_by_evidence(
    roster: Roster,
    rows: Sequence[Listed],
    known: Sequence[Listed],
    numberings: Sequence[Numbering],
    evidence: Mapping[str, Evidence],
    notes: Notes,
) -> Numbering | None:
    scores = {i: sum(_agrees(row, n, evidence) for row in known) for i, n in enumerate(numberings)}
    best = max(scores, key=lambda i: (scores[i], len(numberings[i].names)), default=None)
    if best is not None and 2 * scores[best] > len(known):
        return numberings[best]
    if best is None:
        problem = "its labels are numbers, and no file says of which classes"
    else:
        first = next(row for row in known if not _agrees(row, numberings[best], evidence))
        problem = (
            f"its numbers follow another order than {numberings[best]}, by which only "
            f"{scores[best]:,} of {len(known):,} videos are what they are by name (not "
            f"{first.id}, in {evidence[first.id].place})"
        )
    if len(known) < len(rows):
        raise UserError(f"{roster.path}: {problem}; give the class index that belongs to it")
    notes.say(f"{roster.path}: {problem}; all of its videos are told of by name, which is used")
    return None


def _agrees(row: Listed, numbering: Numbering, evidence: Mapping[str, Evidence]) -> bool:
    return {numbering.names.get(label) for label in row.labels} <= evidence[row.id].labels


def _choose_only(
    roster: Roster, rows: Sequence[Listed], numberings: Sequence[Numbering]
) -> Numbering:
    """The numbering where none can be proved: stated before counted, else the only one."""
    used = {label for row in rows for label in row.labels}
    usable = [n for n in numberings if n.stated] or list(numberings)
    if not usable:
        raise UserError(
            f"{roster.path}: its labels are numbers; give the file with the names of the classes "
            "as well"
        )
    fitting = [n for n in usable if used <= n.names.keys()] or usable[:1]
    for other in fitting[1:]:
        if not _is_same(other, fitting[0]):
            raise UserError(
                f"{roster.path}: its numbers may be those of {fitting[0]} or of {other}, which "
                "differ; leave one out, or give a file that tells its videos by name"
            )
    return fitting[0]


def _check_range(rows: Sequence[Listed], numbering: Numbering) -> None:
    for row in rows:
        for label in row.labels:
            if label not in numbering.names:
                low, high = min(numbering.names), max(numbering.names)
                raise UserError(
                    f"{row.place}: label {label} is no class; there are {low} to {high} in "
                    f"{numbering.path}"
                )


def _check_numbers(
    rows: Sequence[Listed], numbering: Numbering, evidence: Mapping[str, Evidence]
) -> None:
    """Raises UserError if a number that only itself tells of a video is elsewhere another class."""
    known = {number: [0, 0] for number in numbering.names}  # how often: in all, and right
    other: dict[int, Listed] = {}
    for row in (row for row in rows if row.id in evidence):
        for number in row.labels:
            agrees = numbering.names[number] in evidence[row.id].labels
            known[number] = [known[number][0] + 1, known[number][1] + agrees]
            if not agrees:
                other.setdefault(number, row)
    for row in (row for row in rows if row.id not in evidence):
        for number in row.labels:
            count, right = known[number]
            if 2 * right < count:
                first = other[number]
                raise UserError(
                    f"{row.place}: label {number} is {numbering.names[number]} in "
                    f"{numbering.path}, but so are only {right:,} of {count:,} videos that are "
                    f"told of by name (not {first.id}, in {evidence[first.id].place}); give the "
                    "class index that belongs to the list"
                )


def _list_others(numberings: Sequence[Numbering], chosen: Numbering) -> list[Numbering]:
    """Those of files that order the classes otherwise, whatever they are counted from."""
    same = {n.path for n in numberings for by in (-1, 0, 1) if _is_same(n, chosen, by)}
    others = {n.path: n for n in numberings if n.path not in same}
    return list(others.values())


def _is_same(a: Numbering, b: Numbering, by: int = 0) -> bool:
    """Whether two do not contradict each other when one is counted from `by` more."""
    common = [number for number in a.names if number + by in b.names]
    return bool(common) and all(a.names[number] == b.names[number + by] for number in common)
