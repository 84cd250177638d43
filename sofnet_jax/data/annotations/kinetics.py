"""Mini-Kinetics: lists of clips, or the official CSV of Kinetics and the names of 200 classes."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sofnet_jax.data.annotations.assembly import assemble
from sofnet_jax.data.annotations.classes import ClassOrder, Evidence, create_kinds, read_orders
from sofnet_jax.data.annotations.clip import Annotation, Clip
from sofnet_jax.data.annotations.files import (
    Material,
    Notes,
    parse_seconds,
    show,
    sort_materials,
)
from sofnet_jax.data.annotations.lists import (
    Listed,
    Roster,
    collect,
    parse_path,
    read_ids,
    read_list,
    require_split,
)
from sofnet_jax.data.annotations.names import (
    Spelling,
    check_id,
    check_label,
    find_split,
    parse_split,
    strip_extension,
)
from sofnet_jax.host.errors import UserError

NAME = "mini_kinetics"
_CLASSES = 200
_PART = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{6})_([0-9]{6})")

# A different Mini-Kinetics-200 (https://github.com/s9xie/Mini-Kinetics-200) shares 102 classes with
# the paper's; these are five of its 98 others. Its lists are bare YouTube ids.
_OTHER = "another Mini-Kinetics-200 (80,000 and 5,000 clips) than the paper's (121,215 and 9,867)"
_OTHER_CLASSES = {"abseiling", "baking cookies", "balloon blowing", "barbequing", "bench pressing"}
_OTHER_COUNTS = (80_000, 5_000)


@dataclass(frozen=True)
class _Files:
    """The contents of the files: clips of Kinetics' CSV, lists, and class orders."""

    tables: Mapping[Material, Sequence[Clip]]
    lists: Mapping[Material, Roster]
    ids: Mapping[Material, Roster]
    orders: Mapping[Material, Sequence[ClassOrder]]

    def without(self, materials: Collection[Material]) -> "_Files":
        """The contents of the other files."""
        return _Files(
            {m: clips for m, clips in self.tables.items() if m not in materials},
            {m: roster for m, roster in self.lists.items() if m not in materials},
            {m: roster for m, roster in self.ids.items() if m not in materials},
            {m: orders for m, orders in self.orders.items() if m not in materials},
        )

    @property
    def clips(self) -> list[Clip]:
        """The clips of all tables."""
        return [clip for clips in self.tables.values() for clip in clips]


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    files = _keep_one_benchmark(_read_files(materials, notes), notes)
    if not (files.tables or files.lists):
        raise UserError(
            f"{materials[0].path}: no file describes clips; give lists of them, or Kinetics' CSV"
        )
    spelling = _create_spelling(files)
    orders = [_respell(order, spelling, notes) for (order,) in files.orders.values()]
    rosters = [_respell_folders(roster, spelling) for roster in files.lists.values()]
    classes = _list_classes(files, spelling, orders, rosters)
    described = _describe(files.clips, spelling, classes, notes)
    rosters = [_find_parts(r, described, notes) for r in (*rosters, *files.ids.values())]
    evidence = _collect_evidence(rosters, described, notes)
    return assemble(NAME, described, rosters, orders, notes, evidence)


def _read_files(materials: Sequence[Material], notes: Notes) -> _Files:
    kinds = {
        "table": lambda m: {"youtube_id", "time_start", "time_end"} <= set(m.columns),
        **create_kinds(_CLASSES, has_ids=True),
    }
    files = sort_materials("Mini-Kinetics", materials, kinds, notes)
    return _Files(
        tables={m: list(_read_table(m, notes)) for m in files["table"]},
        lists={
            m: read_list(m, partial(_create_listed, find_split(m.path)), notes, has_paths=True)
            for m in files["list"]
        },
        ids={
            m: read_ids(m, partial(_create_listed, require_split(m.path)), notes)
            for m in files["ids"]
        },
        orders=read_orders(files),
    )


def _read_table(material: Material, notes: Notes) -> Iterator[Clip]:
    """The clips of Kinetics' CSV, with ids `<YouTube id>_<start>_<end>`."""
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
        name = f"{id}_{int(start):06d}_{int(end):06d}"
        yield Clip(
            id=name,
            split=split,
            labels=(check_label(place, cells["label"]),),
            place=place,
            names=(id,),
            trimmed=(name,),
            start=start,
            end=end,
        )


def _create_listed(split: str | None, place: str, text: str) -> Listed:
    path, split = parse_path(place, text, split)
    id = strip_extension(path.name)
    part = _PART.fullmatch(id)
    clip = Clip(
        id=id,
        split=split,
        labels=(),
        place=place,
        names=(part[1] if part else id,),
        trimmed=(id,) if part else (),
        start=float(part[2]) if part else None,
        end=float(part[3]) if part else None,
    )
    return Listed(clip, folder=path.parent.name or None)


def _keep_one_benchmark(files: _Files, notes: Notes) -> _Files:
    """Leave out the files of the other Mini-Kinetics-200, unless all files are of it."""
    other, is_mixed = _find_other(files)
    if other and not is_mixed:
        notes.say(f"this is {_OTHER}: do not compare with the paper's numbers")
        return files
    for material in sorted(other, key=lambda m: m.path):
        if material.named:
            raise UserError(f"{material.path}: of {_OTHER}; leave it out, the two cannot be mixed")
        notes.add(f"files left out, which are of {_OTHER}", str(material.path))
    return files.without(other)


def _find_other(files: _Files) -> tuple[set[Material], bool]:
    """The files of the other Mini-Kinetics-200, and whether others name classes of the paper's."""
    names: dict[Material, set[str]] = {
        **{m: {clip.labels[0] for clip in clips} for m, clips in files.tables.items()},
        **{m: {row.folder or "" for row in r.rows.values()} for m, r in files.lists.items()},
        **{m: set(order.names.values()) for m, (order,) in files.orders.items()},
    }
    other = {m for m, n in names.items() if len(n) == _CLASSES and n & _OTHER_CLASSES}
    ours = names.keys() - other
    classes = {name for m in ours & files.orders.keys() for name in names[m]}
    labels = {clip.names[0]: clip.labels[0] for clip in files.clips}
    for material, roster in files.ids.items():
        found = {labels[id] for _, id in roster.rows if id in labels}
        if len(roster.rows) in _OTHER_COUNTS or (classes and not found <= classes):
            other.add(material)
    return other, bool(ours)


def _create_spelling(files: _Files) -> Spelling:
    """Spell classes as the CSV does, else as the class list, else as the folders."""
    spelling = Spelling()
    spelling.learn(clip.labels[0] for clip in files.clips)
    for (order,) in files.orders.values():
        spelling.learn(order.names.values())
    for roster in files.lists.values():
        pairs = {(row.folder, row.numbers) for row in roster.rows.values()}
        folders, numbers = ({pair[i] for pair in pairs} for i in (0, 1))
        if len(folders) == len(numbers) == len(pairs) > 1:  # one folder per class
            spelling.learn(row.folder or "" for row in roster.rows.values())
    return spelling


def _respell(order: ClassOrder, spelling: Spelling, notes: Notes) -> ClassOrder:
    names = {number: spelling(name) for number, name in order.names.items()}
    notes.add_all(
        "class names that are spelled differently elsewhere",
        (
            f"{order.path}: {show(name)} is {show(names[number])}"
            for number, name in order.names.items()
            if names[number] != name
        ),
    )
    return replace(order, names=names)


def _respell_folders(roster: Roster, spelling: Spelling) -> Roster:
    """The list with a class name for `folder`, or None if that is not a class."""
    rows = {
        key: replace(row, folder=spelling(row.folder or "") if row.folder in spelling else None)
        for key, row in roster.rows.items()
    }
    return replace(roster, rows=rows)


def _list_classes(
    files: _Files, spelling: Spelling, orders: Sequence[ClassOrder], rosters: Sequence[Roster]
) -> set[str]:
    """The classes by the file that names them, else by the folders in the lists, else all."""
    classes = {name for order in orders for name in order.names.values()} or {
        row.folder for roster in rosters for row in roster.rows.values() if row.folder
    }
    labels = {spelling(clip.labels[0]) for clip in files.clips}
    if not classes and len(labels) > _CLASSES:
        raise UserError(
            f"{next(iter(files.tables)).path}: {len(labels)} classes; give the file with the names "
            f"of Mini-Kinetics' {_CLASSES} classes as well"
        )
    return classes or labels


def _describe(
    clips: Sequence[Clip], spelling: Spelling, classes: set[str], notes: Notes
) -> dict[str, Clip]:
    """The clips of the CSV that have one of the classes, by id. Raises UserError."""
    described: dict[str, Clip] = {}
    for clip in (replace(c, labels=(spelling(c.labels[0]),)) for c in clips):
        if clip.labels[0] not in classes:
            notes.add("rows of Kinetics' CSV with other classes: left out", clip.place)
            continue
        first = described.setdefault(clip.id, clip)
        if first.labels != clip.labels:
            raise UserError(
                f"{clip.place}: {clip.id} has different labels in {first.place}; keep one"
            )
        if first is not clip:
            notes.add("duplicate rows left out", clip.place)
    return described


def _find_parts(roster: Roster, described: Mapping[str, Clip], notes: Notes) -> Roster:
    """The list with ids of clips in place of those of whole videos with a single clip."""
    parts: dict[str, list[str]] = {}
    for clip in described.values():
        parts.setdefault(clip.names[0], []).append(clip.id)
    whole = {id: found[0] for id, found in parts.items() if len(found) == 1}
    rows = [
        replace(row, clip=replace(row.clip, id=whole.get(id, id)))
        for (_, id), row in roster.rows.items()
    ]
    return collect(roster.path, rows, notes)


def _collect_evidence(
    rosters: Sequence[Roster], described: Mapping[str, Clip], notes: Notes
) -> dict[str, Evidence]:
    """The classes that folders in the lists imply; the CSV wins."""
    evidence = {}
    for row in (row for roster in rosters for row in roster.rows.values()):
        if row.folder is None:
            continue
        clip = described.get(row.clip.id)
        if clip is None:
            evidence[row.clip.id] = Evidence(frozenset([row.folder]), "its path", certain=False)
        elif row.folder not in clip.labels:
            notes.add(
                "clips in folders of other classes than in Kinetics' CSV: the CSV wins",
                f"{row.clip.place} {row.folder}, {clip.place} {clip.labels[0]}",
            )
    return evidence
