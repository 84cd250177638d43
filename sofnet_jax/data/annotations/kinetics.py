"""Mini-Kinetics: lists of clips, or the official CSV of Kinetics and the names of 200 classes."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from sofnet_jax.data.annotations.assembly import assemble, merge
from sofnet_jax.data.annotations.clip import Annotation, Clip
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
    check_label,
    check_split,
    find_split,
    need_split,
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


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    kinds = {
        "table": lambda m: {"youtube_id", "time_start", "time_end"} <= m.fields,
        **create_kinds(_CLASSES),
    }
    files = _leave_out_other(sort_materials("Mini-Kinetics", materials, kinds, notes), notes)
    clips = [clip for material in files["table"] for clip in _read_table(material, notes)]
    lists = read_lists(files, _create_listed, notes)
    orders = read_orders(files, _CLASSES)
    if not (clips or any(clip.numbers for found in lists.values() for clip in found)):
        raise UserError(
            f"{materials[0].path}: no file describes clips; give lists of them, or Kinetics' CSV"
        )
    spelling = _create_spelling(clips, orders, lists.values())
    orders = [
        replace(order, names={i: spelling[_normalise(n)] for i, n in order.names.items()})
        for order in orders
    ]
    lists = {path: [_respell(clip, spelling) for clip in found] for path, found in lists.items()}
    clips = [_respell(clip, spelling) for clip in clips]
    described = merge([_select(clips, orders, lists.values(), notes)], notes)
    counts = Counter(clip.names[0] for clip in described)
    # Lists may name the whole video of a clip, if it has no other.
    whole = {clip.names[0]: clip.id for clip in described if counts[clip.names[0]] == 1}
    lists = {
        path: [replace(clip, id=whole.get(clip.id, clip.id)) for clip in found]
        for path, found in lists.items()
    }
    return assemble(NAME, described, lists, orders, notes)


def _leave_out_other(
    files: Mapping[str, Sequence[Material]], notes: Notes
) -> Mapping[str, Sequence[Material]]:
    """The files without those of the other Mini-Kinetics-200, unless all are of it."""
    other = [m for kind, found in files.items() for m in found if _is_other(kind, m)]
    telling = [m for found in files.values() for m in found if not m.looks_like(YOUTUBE)]
    if other and all(material in other for material in telling):
        notes.say(f"this is {_OTHER}: do not compare with the paper's numbers")
        return files
    for material in other:
        if material.named:
            raise UserError(f"{material.path}: of {_OTHER}; leave it out, the two cannot be mixed")
        notes.add(f"files left out, which are of {_OTHER}", str(material.path))
    return {kind: [m for m in found if m not in other] for kind, found in files.items()}


def _is_other(kind: str, material: Material) -> bool:
    """Whether a file is of the other Mini-Kinetics-200."""
    if kind == "list":
        return material.looks_like(YOUTUBE) and len(material.rows) in _OTHER_COUNTS
    rows = material.table() if kind == "table" else ()
    names = {row.get_text("label") for row in rows} or {row.text() for row in material.rows}
    return len(names) == _CLASSES and not names.isdisjoint(_OTHER_CLASSES)


def _read_table(material: Material, notes: Notes) -> Iterator[Clip]:
    """The clips of Kinetics' CSV, with ids `<YouTube id>_<start>_<end>`."""
    for row in material.table():
        split = row.get("split")
        if not row.get("label") or (split and split.text().lower() == "test"):
            notes.add("rows of Kinetics' test set, or without a label: left out", row.place)
            continue
        id = check_id(row.need("youtube_id"))
        start, end = row.need("time_start").number(), row.need("time_end").number()
        if not 0 <= start < end < 10**6:
            raise UserError(f"{row.place}: no clip lasts from {start:g} to {end:g} seconds")
        name = f"{id}_{int(start):06d}_{int(end):06d}"
        yield Clip(
            id=name,
            split=check_split(split) if split else need_split(material.path),
            labels=(check_label(row.need("label")),),
            place=row.place,
            names=(id,),
            trimmed=(name,),
            start=start,
            end=end,
        )


def _create_listed(name: Node) -> Clip:
    """A clip; its label is the folder that it is in, which may be no class."""
    path = parse_path(name)
    id = strip_extension(path.name)
    part = _PART.fullmatch(id)
    return Clip(
        id=id,
        split=find_split(*path.parts[:-1]),
        labels=(path.parent.name,) if path.parent.name else (),
        place=name.place,
        names=(part[1] if part else id,),
        trimmed=(id,) if part else (),
        start=float(part[2]) if part else None,
        end=float(part[3]) if part else None,
    )


def _normalise(name: str) -> str:
    return " ".join(re.findall(r"\w+", name.lower().replace("_", " ")))


def _create_spelling(
    clips: Sequence[Clip], orders: Sequence[ClassOrder], lists: Collection[Sequence[Clip]]
) -> dict[str, str]:
    """One spelling per class, whatever blanks, case or damaged ends (`yoga''.`) other files have.

    It is that of the CSV, else of the class list, else of the folders, if there is one per class.
    """
    names = [clip.labels[0] for clip in clips]
    names += [re.sub(r"[^\w)]+$", "", n) or n for o in orders for n in o.names.values()]
    for listed in lists:
        pairs = {(clip.labels, clip.numbers) for clip in listed}
        folders, numbers = ({pair[i] for pair in pairs} for i in (0, 1))
        if len(folders) == len(numbers) == len(pairs) > 1:
            names += [label for clip in listed for label in clip.labels]
    return {_normalise(name): name for name in reversed(names)}


def _respell(clip: Clip, spelling: Mapping[str, str]) -> Clip:
    """The clip without labels that are no class."""
    found = (spelling.get(_normalise(label)) for label in clip.labels)
    return replace(clip, labels=tuple(label for label in found if label))


def _select(
    clips: Sequence[Clip],
    orders: Sequence[ClassOrder],
    lists: Collection[Sequence[Clip]],
    notes: Notes,
) -> list[Clip]:
    """The clips of the CSV whose class is in the file of class names, or else in the lists."""
    classes = (
        {name for order in orders for name in order.names.values()}
        or {label for listed in lists for clip in listed for label in clip.labels}
        or {clip.labels[0] for clip in clips}
    )
    if clips and len(classes) > _CLASSES:
        raise UserError(
            f"{clips[0].place}: {len(classes)} classes; give the file with the names of "
            f"Mini-Kinetics' {_CLASSES} classes as well"
        )
    others = [clip.place for clip in clips if clip.labels[0] not in classes]
    notes.add("rows of Kinetics' CSV with other classes: left out", *others)
    return [clip for clip in clips if clip.labels[0] in classes]
