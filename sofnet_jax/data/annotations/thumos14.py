"""THUMOS'14: metadata in MATLAB files, temporal annotations, and lists.

The paper trains on its validation set and tests on its test set.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath

from sofnet_jax.data.annotations.assembly import assemble
from sofnet_jax.data.annotations.classes import ClassOrder, create_kinds, read_orders
from sofnet_jax.data.annotations.clip import Annotation, Clip, Interval, clean_segments
from sofnet_jax.data.annotations.files import (
    Material,
    Node,
    Notes,
    Row,
    parse_seconds,
    show,
    sort_materials,
)
from sofnet_jax.data.annotations.lists import Listed, Roster, read_list
from sofnet_jax.data.annotations.matlab_file import is_matlab, read_structures
from sofnet_jax.data.annotations.names import check_label
from sofnet_jax.host.errors import UserError

NAME = "thumos14"
_CLASSES = 101
_ID = re.compile(r"video_(validation|test|background)_[0-9]{7}")
_SPLITS = {"validation": "train", "test": "val", "background": None}
_TEMPORAL = re.compile(r"video_\w+\s+[-+.\w]+\s+[-+.\w]*\.[-+.\w]*")
_TEMPORAL_FILE = re.compile(r"([A-Za-z]+)_(val|validation|test)")
_AMBIGUOUS = "Ambiguous"  # instead of a class in the name of such a file
_AVOIDED = re.compile(r"video_\w+\s+[A-Z][A-Za-z]+")
_DURATION = re.compile(r"(\S*/)?video_\w+\.\w+|[0-9]+\.[0-9]+")
_ROUNDING = 0.1  # seconds


_Instance = tuple[str, Interval]  # its place and seconds
_Key = tuple[str, str]  # id and label


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    kinds = {
        "metadata": is_matlab,
        "temporal": lambda m: m.looks_like(_TEMPORAL),
        "avoided": lambda m: m.looks_like(_AVOIDED),
        "durations": lambda m: m.looks_like(_DURATION),
        **create_kinds(_CLASSES),
    }
    files = sort_materials("THUMOS'14", materials, kinds, notes)
    if not files["metadata"] and not files["list"]:
        raise UserError(
            f"{materials[0].path}: no file has the videos' classes; give validation_set.mat and "
            "test_set.mat, or lists"
        )
    described, orders = _read_metadata(files["metadata"], notes)
    rosters = [read_list(m, _create_listed, notes) for m in files["list"]]
    rosters = _repair_commas(rosters, described, orders, notes)
    orders += read_orders(files, (0, 1))
    annotation = assemble(NAME, described, rosters, orders, notes)
    durations = _read_durations(files["durations"], annotation.clips, notes)
    segments = _read_temporal(files["temporal"], _read_avoided(files["avoided"]), notes)
    known = {(clip.id, label) for clip in annotation.clips for label in clip.labels}
    notes.add_all(
        "segments of videos or of classes that the other files do not have: left out",
        (place for key, found in segments.items() if key not in known for place, _ in found),
    )
    clips = [
        _localise(replace(clip, duration=durations.get(clip.id)), segments, notes)
        for clip in annotation.clips
    ]
    notes.add_all(
        "background videos, which only resemble their class: kept, as the paper counts them",
        (f"{clip.id} ({clip.labels[0]})" for clip in clips if clip.background),
    )
    return replace(annotation, clips=tuple(clips), notes=notes.lines())


def _check_id(place: str, id: str) -> str:
    if not _ID.fullmatch(id):
        raise UserError(f"{place}: {show(id)} is not a THUMOS'14 id such as video_test_0000001")
    return id


def _get_split(id: str) -> str | None:
    """The split of an id; None for the background set."""
    return _SPLITS[id.split("_")[1]]


def _read_metadata(
    materials: Sequence[Material], notes: Notes
) -> tuple[dict[str, Clip], list[ClassOrder]]:
    """The clips by id, and the class order of each file. Raises UserError."""
    described: dict[str, Clip] = {}
    orders = []
    for material, items in zip(materials, read_structures(materials, "video_name"), strict=True):
        names: dict[int, str] = {}
        for item in items:
            clip = _read_structure(item, names)
            if clip is None:
                notes.add("videos of the background set, without a class: left out", item.place)
            elif described.setdefault(clip.id, clip) is not clip:
                raise UserError(f"{item.place}: {clip.id} again, after {described[clip.id].place}")
        if names:
            orders.append(ClassOrder(material.path, names, stated=True))
    return described, orders


def _read_structure(item: Node, names: dict[int, str]) -> Clip | None:
    """The clip, or None for the background set; adds the numbers of its classes to `names`."""
    id = _check_id(item.place, "".join(node.text() for node in item.get_list("video_name")))
    split = _get_split(id)
    if split is None:
        return None
    fields = ("primary_action", "secondary_actions")
    labels = [check_label(n.place, n.text()) for field in fields for n in item.get_list(field)]
    fields = ("primary_action_index", "secondary_actions_indices")
    numbers = [int(n.number()) for field in fields for n in item.get_list(field)]
    if numbers and len(numbers) != len(labels):
        raise UserError(f"{item.place}: {len(labels)} classes, but {len(numbers)} numbers of them")
    for label, number in zip(labels, numbers, strict=False):
        if names.setdefault(number, label) != label:
            raise UserError(f"{item.place}: class {number} is {show(label)} here, but not before")
    seconds, frames = (
        max((node.number() for node in item.get_list(field)), default=0.0)
        for field in ("video_duration_seconds", "number_of_frames")
    )
    return Clip(
        id=id,
        split=split,
        labels=tuple(dict.fromkeys(labels)),
        place=item.place,
        names=(id,),
        duration=seconds if seconds > 0 else None,
        num_frames=int(frames) if frames > 0 else None,
        background=[node.value for node in item.get_list("background_video")] == ["YES"],
    )


def _create_listed(place: str, text: str) -> Listed:
    split = _get_split(_check_id(place, text))
    if split is None:
        raise UserError(f"{place}: {text} is of the background set, which has no classes")
    return Listed(Clip(id=text, split=split, labels=(), place=place, names=(text,)))


def _repair_commas(
    rosters: Sequence[Roster],
    described: Mapping[str, Clip],
    orders: Sequence[ClassOrder],
    notes: Notes,
) -> list[Roster]:
    """Restore the commas that one public list lost between labels: 42,41 became 4241.

    Another list or the metadata proves which labels these were; 98 may also have been 9,8.
    Raises UserError if a label is out of range and nothing proves what it was.
    """
    proofs: dict[str, list[tuple[int, ...]]] = {}
    for roster in rosters:
        for (_, id), row in roster.rows.items():
            proofs.setdefault(id, []).append(row.numbers)
    number = {name: i for order in orders for i, name in order.names.items()}
    for id, clip in described.items():
        numbers = tuple(number[label] for label in clip.labels if label in number)
        proofs.setdefault(id, []).append(numbers)
    return [
        Roster(r.path, {k: _repair_row(row, proofs[k[1]], notes) for k, row in r.rows.items()})
        for r in rosters
    ]


def _repair_row(row: Listed, proofs: Sequence[tuple[int, ...]], notes: Notes) -> Listed:
    place, (number, *more) = row.clip.place, row.numbers
    if more:
        return row
    for labels in (proof[:count] for proof in proofs for count in range(2, len(proof) + 1)):
        if "".join(map(str, labels)) == str(number):
            kind = "labels that lost the comma between them, repaired from another file"
            notes.add(kind, f"{place} {number} is {','.join(map(str, labels))}")
            return replace(row, numbers=labels)
    if number > _CLASSES:
        raise UserError(
            f"{place}: label {number} is none of {_CLASSES} classes; if it lost a comma, the .mat "
            "file or another list of these videos proves where: give it as well"
        )
    return row


def _read_durations(
    materials: Sequence[Material], clips: Sequence[Clip], notes: Notes
) -> dict[str, float]:
    """Seconds by id, of clips, else from files where each video's row precedes its duration's."""
    durations = {clip.id: clip.duration for clip in clips if clip.duration}
    for material in materials:
        for name, time in zip(material.rows[::2], material.rows[1::2], strict=False):
            id = _check_id(name.place, PurePath(name.text).stem)
            seconds = parse_seconds(time.place, "the duration", time.text)
            if seconds <= 0:
                notes.add("durations that are not positive: taken as unknown", time.place)
            elif abs(durations.setdefault(id, seconds) - seconds) > _ROUNDING:
                notes.add(
                    "durations that differ from those before: the metadata, or the first, counts",
                    f"{time.place} {seconds:g}, not {durations[id]:g} s",
                )
        if len(material.rows) % 2:
            raise UserError(f"{material.rows[-1].place}: the last video has no duration")
    return durations


def _split_row(row: Row, form: str) -> tuple[str, list[str]]:
    """The id and the other cells of a row with as many words as `form`."""
    cells = row.text.split()
    if len(cells) != len(form.split()):
        raise UserError(f"{row.place}: {len(cells)} columns; a row is '{form}'")
    return _check_id(row.place, cells[0]), cells[1:]


def _read_temporal(
    materials: Sequence[Material], avoided: set[_Key], notes: Notes
) -> dict[_Key, list[_Instance]]:
    """The temporal annotations that are valid; one file per class."""
    instances: dict[_Key, list[_Instance]] = {}
    for material in materials:
        match = _TEMPORAL_FILE.fullmatch(material.path.stem)
        if not match:
            raise UserError(
                f"{material.path}: temporal annotations whose class the file's name does not say; "
                "name it as it was published, such as Diving_val.txt"
            )
        label = match[1]
        for row in material.rows:
            id, (since, until) = _split_row(row, "video start end")
            start = parse_seconds(row.place, "start", since)
            end = parse_seconds(row.place, "end", until)
            if label == _AMBIGUOUS or (id, label) in avoided:
                notes.add("segments that are ambiguous or to avoid: left out", row.place)
            else:
                instances.setdefault((id, label), []).append((row.place, (start, end)))
    return instances


def _read_avoided(materials: Sequence[Material]) -> set[_Key]:
    """Videos and classes with wrong temporal annotations: the video does not show the class."""
    rows = (_split_row(row, "video class") for material in materials for row in material.rows)
    return {(id, label) for id, (label,) in rows}


def _localise(clip: Clip, instances: Mapping[_Key, list[_Instance]], notes: Notes) -> Clip:
    """The clip with its segments, if all of its classes have some."""
    found = [
        clean_segments(instances.get((clip.id, label), ()), clip.duration, notes)
        for label in clip.labels
    ]
    if not all(found):
        if any(found):
            kind = "videos with segments of only some of their classes: taken as not localised"
            notes.add(kind, f"{clip.id}, not of {clip.labels[found.index(None)]}")
        return clip
    return replace(clip, segments=tuple(dict.fromkeys(s for part in found for s in part or ())))
