"""Mini-Kinetics: lists of clips, or the official CSV of Kinetics and the names of 200 classes."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from sofnet_jax.data.annotations.lists import Listed, Roster, collect, parse_path, read_list
from sofnet_jax.data.annotations.names import (
    Spelling,
    check_id,
    check_label,
    find_folder_split,
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
class _File:
    """The contents of a file: clips of Kinetics' CSV, a list, or a class order."""

    path: Path
    classes: Collection[str]  # that it names
    clips: Sequence[Clip] = ()
    roster: Roster | None = None
    order: ClassOrder | None = None

    @property
    def is_other(self) -> bool:
        """Whether it is of the other Mini-Kinetics-200."""
        if not self.classes:
            return self.roster is not None and len(self.roster.rows) in _OTHER_COUNTS
        return len(self.classes) == _CLASSES and not _OTHER_CLASSES.isdisjoint(self.classes)


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    named = {material.path for material in materials if material.named}
    files = _keep_one_benchmark(list(_read_files(materials, notes)), named, notes)
    orders = [file.order for file in files if file.order]
    rosters = [file.roster for file in files if file.roster]
    clips = [clip for file in files for clip in file.clips]
    if not (clips or any(row.numbers for roster in rosters for row in roster.rows.values())):
        raise UserError(
            f"{materials[0].path}: no file describes clips; give lists of them, or Kinetics' CSV"
        )
    spelling = _create_spelling(clips, orders, rosters)
    clips = [replace(clip, labels=(spelling(clip.labels[0]),)) for clip in clips]
    orders = [replace(o, names={i: spelling(n) for i, n in o.names.items()}) for o in orders]
    rosters = [_respell_folders(roster, spelling) for roster in rosters]
    described = _describe(clips, _list_classes(clips, orders, rosters), notes)
    rosters = [_find_parts(roster, described, notes) for roster in rosters]
    evidence = {
        row.clip.id: Evidence(frozenset([row.folder]), "its path", certain=False)
        for roster in rosters
        for row in roster.rows.values()
        if row.folder
    }
    return assemble(NAME, described, rosters, orders, notes, evidence)


def _read_files(materials: Sequence[Material], notes: Notes) -> Iterator[_File]:
    kinds = {
        "table": lambda m: {"youtube_id", "time_start", "time_end"} <= set(m.columns),
        **create_kinds(_CLASSES, has_paths=True),
    }
    files = sort_materials("Mini-Kinetics", materials, kinds, notes)
    for m in files["table"]:
        clips = list(_read_table(m, notes))
        yield _File(m.path, {clip.labels[0] for clip in clips}, clips=clips)
    for m in files["list"]:
        roster = read_list(m, _create_listed, notes, has_paths=True)
        classes = {row.folder or "" for row in roster.rows.values() if row.numbers}
        yield _File(m.path, classes, roster=roster)
    for order in read_orders(files):
        yield _File(order.path, order.names.values(), order=order)


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


def _create_listed(place: str, text: str) -> Listed:
    path = parse_path(place, text)
    id = strip_extension(path.name)
    part = _PART.fullmatch(id)
    clip = Clip(
        id=id,
        split=find_folder_split(path),
        labels=(),
        place=place,
        names=(part[1] if part else id,),
        trimmed=(id,) if part else (),
        start=float(part[2]) if part else None,
        end=float(part[3]) if part else None,
    )
    return Listed(clip, folder=path.parent.name or None)


def _keep_one_benchmark(
    files: Sequence[_File], named: Collection[Path], notes: Notes
) -> Sequence[_File]:
    """Leave out the files of the other Mini-Kinetics-200, unless all files are of it."""
    other = sorted(file.path for file in files if file.is_other)
    if other and all(file.is_other for file in files if file.classes):
        notes.say(f"this is {_OTHER}: do not compare with the paper's numbers")
        return files
    for path in other:
        if path in named:
            raise UserError(f"{path}: of {_OTHER}; leave it out, the two cannot be mixed")
        notes.add(f"files left out, which are of {_OTHER}", str(path))
    return [file for file in files if not file.is_other]


def _create_spelling(
    clips: Sequence[Clip], orders: Sequence[ClassOrder], rosters: Sequence[Roster]
) -> Spelling:
    """Spell classes as the CSV does, else as the class list, else as the folders."""
    spelling = Spelling()
    spelling.learn(clip.labels[0] for clip in clips)
    for order in orders:
        spelling.learn(order.names.values())
    for roster in rosters:
        pairs = {(row.folder, row.numbers) for row in roster.rows.values()}
        folders, numbers = ({pair[i] for pair in pairs} for i in (0, 1))
        if len(folders) == len(numbers) == len(pairs) > 1:  # one folder per class
            spelling.learn(row.folder or "" for row in roster.rows.values())
    return spelling


def _respell_folders(roster: Roster, spelling: Spelling) -> Roster:
    """The list with a class name for `folder`, or None if that is not a class."""
    rows = {
        key: replace(row, folder=spelling(row.folder or "") if row.folder in spelling else None)
        for key, row in roster.rows.items()
    }
    return replace(roster, rows=rows)


def _list_classes(
    clips: Sequence[Clip], orders: Sequence[ClassOrder], rosters: Sequence[Roster]
) -> set[str]:
    """The classes by the file that names them, else by the folders in the lists, else all."""
    classes = {name for order in orders for name in order.names.values()} or {
        row.folder for roster in rosters for row in roster.rows.values() if row.folder
    }
    labels = {clip.labels[0] for clip in clips}
    if not classes and len(labels) > _CLASSES:
        raise UserError(
            f"{clips[0].place}: {len(labels)} classes; give the file with the names of "
            f"Mini-Kinetics' {_CLASSES} classes as well"
        )
    return classes or labels


def _describe(clips: Sequence[Clip], classes: set[str], notes: Notes) -> dict[str, Clip]:
    """The clips of the CSV that have one of the classes, by id. Raises UserError."""
    described: dict[str, Clip] = {}
    for clip in clips:
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
