"""THUMOS'14: metadata in MATLAB files, temporal annotations, and lists.

The paper trains on its validation set and tests on its test set.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from sofnet_jax.data.annotations.assembly import assemble
from sofnet_jax.data.annotations.classes import ClassOrder, create_kinds, read_orders
from sofnet_jax.data.annotations.clip import Annotation, Clip, Interval, clean_segments
from sofnet_jax.data.annotations.files import (
    Material,
    Notes,
    Row,
    parse_seconds,
    show,
    sort_materials,
)
from sofnet_jax.data.annotations.lists import Listed, Roster, read_list
from sofnet_jax.data.annotations.matlab_file import Structure, is_matlab, read_structures
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


@dataclass(frozen=True)
class _Instance:
    """A row of temporal annotations."""

    label: str
    place: str
    interval: Interval


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
    orders += [order for found in read_orders(files, (0, 1)).values() for order in found]
    annotation = assemble(NAME, described, rosters, orders, notes)
    durations = _read_durations(files["durations"], notes)
    clips = [_set_duration(clip, durations, notes) for clip in annotation.clips]
    instances = _read_temporal(files["temporal"], notes)
    avoided = _read_avoided(files["avoided"])
    clips = [_localise(clip, instances.get(clip.id, ()), avoided, notes) for clip in clips]
    ids = {clip.id for clip in clips}
    notes.add_all(
        "segments of videos that are left out",
        (i.place for id, found in instances.items() if id not in ids for i in found),
    )
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


def _read_structure(item: Structure, names: dict[int, str]) -> Clip | None:
    """The clip, or None for the background set; adds the numbers of its classes to `names`."""
    ids = item.texts("video_name")
    if len(ids) != 1:
        raise UserError(f"{item.place}: {len(ids)} names of one video")
    split = _get_split(_check_id(item.place, ids[0]))
    if split is None:
        return None
    texts = item.texts("primary_action") + item.texts("secondary_actions")
    labels = [check_label(item.place, text) for text in texts]
    numbers = item.numbers("primary_action_index") + item.numbers("secondary_actions_indices")
    if numbers and len(numbers) != len(labels):
        raise UserError(f"{item.place}: {len(labels)} classes, but {len(numbers)} numbers of them")
    for label, number in zip(labels, numbers, strict=False):
        if names.setdefault(int(number), label) != label:
            raise UserError(f"{item.place}: class {number:g} is {show(label)} here, but not before")
    seconds, frames = item.numbers("video_duration_seconds"), item.numbers("number_of_frames")
    return Clip(
        id=ids[0],
        split=split,
        labels=tuple(dict.fromkeys(labels)),
        place=item.place,
        names=(ids[0],),
        duration=seconds[0] if seconds and seconds[0] > 0 else None,
        num_frames=int(frames[0]) if frames and frames[0] > 0 else None,
        background=item.texts("background_video") == ("YES",),
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
    if len(row.numbers) != 1:
        return row
    (number,) = row.numbers
    for proof in proofs:
        for count in range(2, len(proof) + 1):
            if "".join(map(str, proof[:count])) == str(number):
                notes.add(
                    "labels that lost the comma between them, repaired from another file",
                    f"{row.clip.place} {number} is {','.join(map(str, proof[:count]))}",
                )
                return replace(row, numbers=proof[:count])
    if number > _CLASSES:
        raise UserError(
            f"{row.clip.place}: label {number} is none of {_CLASSES} classes; if it lost a comma, "
            "the .mat file or another list of these videos proves where: give it as well"
        )
    return row


def _read_durations(materials: Sequence[Material], notes: Notes) -> dict[str, float]:
    """Seconds by id, from files whose rows alternate between a video file and its duration."""
    durations: dict[str, float] = {}
    for material in materials:
        for name, time in zip(material.rows[::2], material.rows[1::2], strict=False):
            id = _check_id(name.place, PurePath(name.text).stem)
            seconds = parse_seconds(time.place, "the duration", time.text)
            if seconds <= 0:
                notes.add("durations that are not positive: taken as unknown", time.place)
            elif abs(durations.setdefault(id, seconds) - seconds) > _ROUNDING:
                notes.add("durations that differ between files: the first counts", time.place)
        if len(material.rows) % 2:
            raise UserError(f"{material.rows[-1].place}: the last video has no duration")
    return durations


def _set_duration(clip: Clip, durations: Mapping[str, float], notes: Notes) -> Clip:
    seconds = durations.get(clip.id)
    if seconds and clip.duration and abs(seconds - clip.duration) > _ROUNDING:
        notes.add(
            "durations that differ from the metadata: the metadata wins",
            f"{clip.id} {seconds:g}, not {clip.duration:g} s",
        )
    return replace(clip, duration=clip.duration or seconds)


def _split_row(row: Row, form: str) -> tuple[str, list[str]]:
    """The id and the other cells of a row with as many words as `form`."""
    cells = row.text.split()
    if len(cells) != len(form.split()):
        raise UserError(f"{row.place}: {len(cells)} columns; a row is '{form}'")
    return _check_id(row.place, cells[0]), cells[1:]


def _read_temporal(materials: Sequence[Material], notes: Notes) -> dict[str, list[_Instance]]:
    """The temporal annotations by id, without ambiguous instances; one file per class."""
    instances: dict[str, list[_Instance]] = {}
    for material in materials:
        match = _TEMPORAL_FILE.fullmatch(material.path.stem)
        if not match:
            raise UserError(
                f"{material.path}: temporal annotations whose class the file's name does not say; "
                "name it as it was published, such as Diving_val.txt"
            )
        for row in material.rows:
            id, (since, until) = _split_row(row, "video start end")
            start = parse_seconds(row.place, "start", since)
            end = parse_seconds(row.place, "end", until)
            if match[1] == _AMBIGUOUS:
                notes.add("segments of ambiguous instances: left out", row.place)
            else:
                instance = _Instance(match[1], row.place, (start, end))
                instances.setdefault(id, []).append(instance)
    return instances


def _read_avoided(materials: Sequence[Material]) -> set[tuple[str, str]]:
    """Videos and classes with wrong temporal annotations: the video does not show the class."""
    avoided = set()
    for row in (row for material in materials for row in material.rows):
        id, (label,) = _split_row(row, "video class")
        avoided.add((id, label))
    return avoided


def _localise(
    clip: Clip, instances: Sequence[_Instance], avoided: set[tuple[str, str]], notes: Notes
) -> Clip:
    """The clip with its segments, if all of its classes have some."""
    by_label: dict[str, list[tuple[str, Interval]]] = {}
    for instance in instances:
        if (clip.id, instance.label) in avoided:
            notes.add(
                "segments that the lists of videos to avoid rule out: left out", instance.place
            )
        elif instance.label not in clip.labels:
            notes.add(
                "segments of a class that their video does not have: left out", instance.place
            )
        else:
            found = by_label.setdefault(instance.label, [])
            found.append((instance.place, instance.interval))
    cleaned = {
        label: clean_segments(given, clip.duration, notes) or ()
        for label, given in by_label.items()
    }
    lacking = [label for label in clip.labels if not cleaned.get(label)]
    if lacking and any(cleaned.values()):
        notes.add(
            "videos with segments of only some of their classes: taken as not localised",
            f"{clip.id}, not of {lacking[0]}",
        )
    if lacking:
        return clip
    kept = dict.fromkeys(segment for label in clip.labels for segment in cleaned[label])
    return replace(clip, segments=tuple(kept))
