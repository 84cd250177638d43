"""Mini-Kinetics: lists of clips, or the official CSV of Kinetics and the names of 200 classes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sofnet_jax.data.annotations.assembly import Parts, assemble
from sofnet_jax.data.annotations.classes import (
    Evidence,
    Numbering,
    is_names,
    is_numbered,
    read_names,
    read_numbered,
)
from sofnet_jax.data.annotations.clip import Annotation, Clip
from sofnet_jax.data.annotations.files import Material, Notes, parse_seconds, show, sort_materials
from sofnet_jax.data.annotations.lists import (
    LISTED,
    IdReader,
    Listed,
    PathReader,
    Roster,
    collect,
    read_roster,
)
from sofnet_jax.data.annotations.names import (
    YOUTUBE,
    Spelling,
    check_id,
    check_label,
    find_split,
    parse_split,
)
from sofnet_jax.host.errors import UserError

NAME = "mini_kinetics"
_CLASSES = 200
_PART = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{6})_([0-9]{6})")

# Another Mini-Kinetics-200 (https://github.com/s9xie/Mini-Kinetics-200) shares 102 classes with the
# paper's; these are five of its 98 others. Its lists are ids of YouTube and nothing else.
_OTHER = "another Mini-Kinetics-200 (80,000 and 5,000 clips) than the paper's (121,215 and 9,867)"
_OTHER_CLASSES = {"abseiling", "baking cookies", "balloon blowing", "barbequing", "bench pressing"}
_OTHER_COUNTS = (80_000, 5_000)


@dataclass(frozen=True)
class _Part:
    """A row of Kinetics' CSV: a part of a video."""

    place: str
    id: str
    split: str
    label: str
    start: float
    end: float


@dataclass(frozen=True)
class _Files:
    """All that the files hold, as it stands there."""

    parts: Mapping[Material, Sequence[_Part]]
    rosters: Mapping[Material, Roster]
    ids: Mapping[Material, Roster]
    numberings: Mapping[Material, Numbering]


def read(materials: Sequence[Material]) -> Annotation:
    """Reads what is given of the benchmark's files. Raises UserError."""
    notes = Notes()
    files = _keep_one_benchmark(_read_files(materials, notes), notes)
    if not (files.parts or files.rosters):
        raise UserError(
            f"{materials[0].path}: no file tells of clips; give lists of them, or Kinetics' CSV"
        )
    spelling = _create_spelling(files)
    numberings = [_respell(n, spelling, notes) for n in files.numberings.values()]
    rosters = [_find_folders(roster, spelling) for roster in files.rosters.values()]
    classes = _list_classes(files, spelling, numberings, rosters)
    told = _tell(files, spelling, classes, notes)
    rosters = [_find_parts(r, told, notes) for r in (*rosters, *files.ids.values())]
    evidence = _collect_evidence(rosters, told, notes)
    return assemble(NAME, Parts(told, rosters, numberings, evidence), _create_clip, notes)


def _read_files(materials: Sequence[Material], notes: Notes) -> _Files:
    kinds = {
        "table": lambda m: {"youtube_id", "time_start", "time_end"} <= set(m.columns),
        "list": lambda m: m.looks_like(LISTED),
        "ids": lambda m: m.looks_like(YOUTUBE),
        "numbered": is_numbered,
        "names": lambda m: is_names(m, _CLASSES),
    }
    files = sort_materials("Mini-Kinetics", materials, kinds, notes)
    return _Files(
        parts={m: list(_read_parts(m, notes)) for m in files["table"]},
        rosters={m: read_roster(m, PathReader(m), notes) for m in files["list"]},
        ids={m: read_roster(m, IdReader(m), notes) for m in files["ids"]},
        numberings={m: read_numbered(m) for m in files["numbered"]}
        | {m: read_names(m) for m in files["names"]},
    )


def _read_parts(material: Material, notes: Notes) -> Iterator[_Part]:
    split_of_file = find_split(material.path)
    for place, cells in material.table():
        word = cells.get("split", "")
        if word.lower() == "test" or not cells.get("label"):
            notes.add("rows of Kinetics' test set, or without a label: left out", place)
            continue
        split = parse_split(word) if word else split_of_file
        if split is None:
            raise UserError(f"{place}: the split is {show(word)}; expected train or val")
        id = check_id(place, cells["youtube_id"])
        start = parse_seconds(place, "time_start", cells["time_start"])
        end = parse_seconds(place, "time_end", cells["time_end"])
        if not 0 <= start < end < 10**6:
            raise UserError(f"{place}: no clip lasts from {start:g} to {end:g} seconds")
        yield _Part(place, id, split, check_label(place, cells["label"]), start, end)


def _keep_one_benchmark(files: _Files, notes: Notes) -> _Files:
    """Leaves out the files of the other Mini-Kinetics-200, unless there are no others."""
    other, ours = _find_other(files)
    if other and not ours:
        notes.say(f"this is {_OTHER}: do not compare with the paper's numbers")
        return files
    for material in sorted(other, key=lambda m: m.path):
        if material.named:
            raise UserError(
                f"{material.path}: of {_OTHER}; leave it out, for the two cannot be mixed"
            )
        notes.add(f"files left out, which are of {_OTHER}", str(material.path))
    return _Files(
        parts={m: parts for m, parts in files.parts.items() if m not in other},
        rosters={m: roster for m, roster in files.rosters.items() if m not in other},
        ids={m: roster for m, roster in files.ids.items() if m not in other},
        numberings={m: n for m, n in files.numberings.items() if m not in other},
    )


def _find_other(files: _Files) -> tuple[set[Material], set[Material]]:
    """The files of the other Mini-Kinetics-200, and those that name classes of ours."""
    names: dict[Material, set[str]] = {
        **{m: {part.label for part in parts} for m, parts in files.parts.items()},
        **{m: {row.folder or "" for row in r.rows.values()} for m, r in files.rosters.items()},
        **{m: set(n.names.values()) for m, n in files.numberings.items()},
    }
    other = {m for m, found in names.items() if _is_other(found)}
    ours = names.keys() - other
    classes = {name for m in ours & files.numberings.keys() for name in names[m]}
    labels = {part.id: part.label for parts in files.parts.values() for part in parts}
    for m, roster in files.ids.items():
        found = {labels[row.id] for row in roster.rows.values() if row.id in labels}
        if len(roster.rows) in _OTHER_COUNTS or (classes and not found <= classes):
            other.add(m)
    return other, ours


def _is_other(names: set[str]) -> bool:
    return len(names) == _CLASSES and bool(names & _OTHER_CLASSES)


def _create_spelling(files: _Files) -> Spelling:
    """The names of classes: the CSV's if there is one, else the class list's, else the folders'."""
    spelling = Spelling()
    for parts in files.parts.values():
        spelling.learn(part.label for part in parts)
    for numbering in files.numberings.values():
        spelling.learn(numbering.names.values())
    for roster in files.rosters.values():
        if _has_class_folders(roster):
            spelling.learn(row.folder or "" for row in roster.rows.values())
    return spelling


def _has_class_folders(roster: Roster) -> bool:
    """Whether a list's folders and labels stand for one another."""
    pairs = {(row.folder, row.labels) for row in roster.rows.values()}
    folders, labels = {folder for folder, _ in pairs}, {labels for _, labels in pairs}
    return len(folders) == len(labels) == len(pairs) > 1


def _respell(numbering: Numbering, spelling: Spelling, notes: Notes) -> Numbering:
    names = {}
    for number, name in numbering.names.items():
        names[number] = spelling(name)
        if names[number] != name:
            notes.add(
                "names of classes that are spelled otherwise elsewhere",
                f"{numbering.path}: {show(name)} is {show(names[number])}",
            )
    return replace(numbering, names=names)


def _find_folders(roster: Roster, spelling: Spelling) -> Roster:
    """The list with a name of a class for `folder`, or None where that is no class's."""
    rows = {
        key: replace(row, folder=spelling(row.folder or "") if row.folder in spelling else None)
        for key, row in roster.rows.items()
    }
    return replace(roster, rows=rows)


def _list_classes(
    files: _Files, spelling: Spelling, numberings: Sequence[Numbering], rosters: Sequence[Roster]
) -> set[str]:
    """The classes of the benchmark, by the file that names them or by the folders in the lists."""
    classes = {name for numbering in numberings for name in numbering.names.values()} or {
        row.folder for roster in rosters for row in roster.rows.values() if row.folder
    }
    labels = {spelling(part.label) for parts in files.parts.values() for part in parts}
    if not classes and len(labels) > _CLASSES:
        raise UserError(
            f"{next(iter(files.parts)).path}: {len(labels)} classes; give the file with the names "
            f"of Mini-Kinetics' {_CLASSES} classes as well"
        )
    return classes or labels


def _tell(files: _Files, spelling: Spelling, classes: set[str], notes: Notes) -> dict[str, Clip]:
    """The clips of the CSV files, by `<id>_<start>_<end>`. Raises UserError."""
    told: dict[str, Clip] = {}
    for part in (part for parts in files.parts.values() for part in parts):
        label = spelling(part.label)
        if label not in classes:
            notes.add("rows of Kinetics' CSV of other classes: left out", part.place)
            continue
        name = f"{part.id}_{int(part.start):06d}_{int(part.end):06d}"
        clip = Clip(
            id=name,
            split=part.split,
            labels=(label,),
            place=part.place,
            names=(part.id,),
            trimmed=(name,),
            start=part.start,
            end=part.end,
        )
        first = told.setdefault(name, clip)
        if first.labels != clip.labels:
            raise UserError(f"{part.place}: {name} has another label in {first.place}; leave one")
        if first is not clip:
            notes.add("rows that repeat an earlier one: left out", part.place)
    return told


def _find_parts(roster: Roster, told: Mapping[str, Clip], notes: Notes) -> Roster:
    """The list with the clips' ids where it has those of whole videos."""
    parts: dict[str, list[str]] = {}
    for clip in told.values():
        parts.setdefault(clip.names[0], []).append(clip.id)
    whole = {id: found[0] for id, found in parts.items() if len(found) == 1}
    rows = [replace(row, id=whole.get(row.id, row.id)) for row in roster.rows.values()]
    return collect(roster.path, rows, notes)


def _collect_evidence(
    rosters: Sequence[Roster], told: Mapping[str, Clip], notes: Notes
) -> dict[str, Evidence]:
    """What the folders in the lists tell; where the CSV tells otherwise, it counts."""
    evidence = {}
    for row in (row for roster in rosters for row in roster.rows.values()):
        if row.folder is None:
            continue
        if row.id not in told:
            evidence[row.id] = Evidence(frozenset([row.folder]), "its path", certain=False)
        elif row.folder not in told[row.id].labels:
            notes.add(
                "clips in folders of other classes than in Kinetics' CSV, which counts",
                f"{row.place} {row.folder}, {told[row.id].place} {told[row.id].labels[0]}",
            )
    return evidence


def _create_clip(row: Listed) -> Clip:
    part = _PART.fullmatch(row.id)
    return Clip(
        id=row.id,
        split=row.split,
        labels=(),
        place=row.place,
        names=(part[1] if part else row.id,),
        trimmed=(row.id,) if part else (),
        start=float(part[2]) if part else None,
        end=float(part[3]) if part else None,
        num_frames=row.num_frames,
    )
