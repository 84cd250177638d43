"""THUMOS'14: metadata in MATLAB files, temporal annotations, and lists.

The paper trains on its validation set and tests on its test set.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from sofnet_jax.data.annotations.assembly import Parts, assemble
from sofnet_jax.data.annotations.classes import (
    Numbering,
    is_names,
    is_numbered,
    read_names,
    read_numbered,
)
from sofnet_jax.data.annotations.clip import Annotation, Clip, Interval, clean_segments
from sofnet_jax.data.annotations.files import (
    Material,
    Notes,
    Row,
    parse_seconds,
    show,
    sort_materials,
)
from sofnet_jax.data.annotations.lists import LISTED, Listed, Roster, read_roster, split_left
from sofnet_jax.data.annotations.matlab_file import Structure, is_matlab, read_structures
from sofnet_jax.data.annotations.names import check_label
from sofnet_jax.host.errors import UserError

_VIDEO_ID = re.compile(r"video_(validation|test|background)_[0-9]{7}")
_SPLITS = {"validation": "train", "test": "val", "background": None}


def check_id(place: str, id: str) -> str:
    """The id, if it is one of THUMOS'14; raises UserError."""
    if not _VIDEO_ID.fullmatch(id):
        raise UserError(
            f"{place}: {show(id)} is no video of THUMOS'14, as video_test_0000001 is one"
        )
    return id


def get_split(id: str) -> str | None:
    """The split of ours, or None for the background set."""
    return _SPLITS[id.split("_")[1]]


_FILE = re.compile(r"([A-Za-z]+)_(val|validation|test)")
_AMBIGUOUS = "Ambiguous"


@dataclass(frozen=True)
class Instance:
    """A row of a class's temporal annotations."""

    label: str
    place: str
    interval: Interval


def read_temporal(materials: Sequence[Material], notes: Notes) -> dict[str, list[Instance]]:
    """The temporal annotations by id; those of ambiguous instances are left out."""
    instances: dict[str, list[Instance]] = {}
    for material in materials:
        match = _FILE.fullmatch(material.path.stem)
        if not match:
            raise UserError(
                f"{material.path}: temporal annotations of a class that the file's name does not "
                "tell; call it as it was published, such as Diving_val.txt"
            )
        for row in material.rows:
            id, interval = _parse_temporal(row)
            if match[1] == _AMBIGUOUS:
                notes.add("segments of ambiguous instances: left out", row.place)
            else:
                instances.setdefault(id, []).append(Instance(match[1], row.place, interval))
    return instances


def _parse_temporal(row: Row) -> tuple[str, Interval]:
    cells = row.text.split()
    if len(cells) != 3:
        raise UserError(f"{row.place}: {len(cells)} columns; a row is 'video start end'")
    start, end = (
        parse_seconds(row.place, *pair) for pair in zip(("start", "end"), cells[1:], strict=True)
    )
    return check_id(row.place, cells[0]), (start, end)


def read_avoided(materials: Sequence[Material]) -> set[tuple[str, str]]:
    """Videos and classes whose temporal annotations are wrong: the videos do not show the class."""
    avoided = set()
    for row in (row for material in materials for row in material.rows):
        cells = row.text.split()
        if len(cells) != 2:
            raise UserError(f"{row.place}: {len(cells)} columns; a row is 'video class'")
        avoided.add((check_id(row.place, cells[0]), cells[1]))
    return avoided


def localise(
    clip: Clip, instances: Sequence[Instance], avoided: set[tuple[str, str]], notes: Notes
) -> Clip:
    """The clip with its segments, if they cover all of its classes."""
    by_label: dict[str, list[Instance]] = {}
    for instance in instances:
        if (clip.id, instance.label) in avoided:
            notes.add(
                "segments that the lists of videos to avoid call wrong: left out", instance.place
            )
        elif instance.label not in clip.labels:
            notes.add(
                "segments of a class that their video does not have: left out", instance.place
            )
        else:
            by_label.setdefault(instance.label, []).append(instance)
    cleaned = {
        label: clean_segments(((i.place, i.interval) for i in found), clip.duration, notes)
        for label, found in by_label.items()
    }
    lacking = [label for label in clip.labels if not cleaned.get(label)]
    if lacking and any(cleaned.values()):
        notes.add(
            "videos with segments of some of their classes only: taken as not localised",
            f"{clip.id}, not of {lacking[0]}",
        )
    if lacking:
        return clip
    segments = dict.fromkeys(s for label in clip.labels for s in cleaned[label] or ())
    return replace(clip, segments=tuple(segments))


NAME = "thumos14"
_CLASSES = 101
_TEMPORAL = re.compile(r"video_\w+\s+[-+.\w]+\s+[-+.\w]*\.[-+.\w]*")
_AVOIDED = re.compile(r"video_\w+\s+[A-Z][A-Za-z]+")
_DURATION = re.compile(r"(\S*/)?video_\w+\.\w+|[0-9]+\.[0-9]+")
_TOLERANCE = 0.1  # seconds


def read(materials: Sequence[Material]) -> Annotation:
    """Reads what is given of the benchmark's files. Raises UserError."""
    notes = Notes()
    kinds = {
        "metadata": is_matlab,
        "temporal": lambda m: m.looks_like(_TEMPORAL),
        "avoided": lambda m: m.looks_like(_AVOIDED),
        "durations": lambda m: m.looks_like(_DURATION),
        "list": lambda m: m.looks_like(LISTED),
        "numbered": is_numbered,
        "names": lambda m: is_names(m, _CLASSES),
    }
    files = sort_materials("THUMOS'14", materials, kinds, notes)
    if not files["metadata"] and not files["list"]:
        raise UserError(
            f"{materials[0].path}: no file tells of the videos' classes; give validation_set.mat "
            "and test_set.mat, or lists"
        )
    told, numberings = _read_metadata(files["metadata"], notes)
    rosters = [read_roster(m, _read_row, notes) for m in files["list"]]
    parts = Parts(
        told=told,
        rosters=_mend_commas(rosters, told, numberings, notes),
        numberings=[
            *numberings,
            *map(read_numbered, files["numbered"]),
            *(read_names(m, first) for m in files["names"] for first in (0, 1)),
        ],
    )
    annotation = assemble(NAME, parts, _create_clip, notes)
    durations = _read_durations(files["durations"], notes)
    clips = [_set_duration(clip, durations, notes) for clip in annotation.clips]
    instances = read_temporal(files["temporal"], notes)
    avoided = read_avoided(files["avoided"])
    clips = [localise(clip, instances.get(clip.id, ()), avoided, notes) for clip in clips]
    _note_rest(clips, instances, notes)
    return replace(annotation, clips=tuple(clips), notes=notes.lines())


def _read_metadata(
    materials: Sequence[Material], notes: Notes
) -> tuple[dict[str, Clip], list[Numbering]]:
    """The videos by id, and the numbers of their classes. Raises UserError."""
    told: dict[str, Clip] = {}
    numberings = []
    for material in materials:
        names: dict[int, str] = {}
        for item in read_structures(material, "video_name"):
            clip = _read_structure(item, names)
            if clip is None:
                notes.add(
                    "videos of the background set: left out, for they have no class", item.place
                )
            elif told.setdefault(clip.id, clip) is not clip:
                raise UserError(f"{item.place}: {clip.id} again, after {told[clip.id].place}")
        if names:
            numberings.append(Numbering(material.path, names, stated=True))
    return told, numberings


def _read_structure(item: Structure, names: dict[int, str]) -> Clip | None:
    """The video, or None of the background set; adds its classes' numbers to `names`."""
    ids = item.texts("video_name")
    if len(ids) != 1:
        raise UserError(f"{item.place}: {len(ids)} names of one video")
    split = get_split(check_id(item.place, ids[0]))
    if split is None:
        return None
    labels, numbers = (
        item.texts("primary_action") + item.texts("secondary_actions"),
        item.numbers("primary_action_index") + item.numbers("secondary_actions_indices"),
    )
    if numbers and len(numbers) != len(labels):
        raise UserError(f"{item.place}: {len(labels)} classes, but {len(numbers)} numbers of them")
    for label, number in zip(labels, numbers, strict=False):
        if names.setdefault(int(number), check_label(item.place, label)) != label:
            raise UserError(f"{item.place}: class {number:g} is {show(label)} here, but not before")
    seconds, frames = item.numbers("video_duration_seconds"), item.numbers("number_of_frames")
    return Clip(
        id=ids[0],
        split=split,
        labels=tuple(dict.fromkeys(check_label(item.place, label) for label in labels)),
        place=item.place,
        names=(ids[0],),
        duration=seconds[0] if seconds and seconds[0] > 0 else None,
        num_frames=int(frames[0]) if frames and frames[0] > 0 else None,
        background=item.texts("background_video") == ("YES",),
    )


def _read_row(row: Row) -> Listed:
    id, num_frames, labels = split_left(row)
    split = get_split(check_id(row.place, id))
    if split is None:
        raise UserError(f"{row.place}: {id} is of the background set, which has no classes")
    return Listed(row.place, id, split, labels, num_frames)


def _mend_commas(
    rosters: Sequence[Roster],
    told: Mapping[str, Clip],
    numberings: Sequence[Numbering],
    notes: Notes,
) -> list[Roster]:
    """The lists with the commas that one public list lost between labels: 42,41 became 4241.

    Another list, or the metadata, proves which labels these were; so 98 may have been 9,8 as well.
    Raises UserError where a label is no class and nothing proves what it was.
    """
    whole: dict[str, list[tuple[int, ...]]] = {}
    for roster in rosters:
        for row in roster.rows.values():
            whole.setdefault(row.id, []).append(row.labels)
    number = {name: i for numbering in numberings for i, name in numbering.names.items()}
    for id, clip in told.items():
        numbers = tuple(number[label] for label in clip.labels if label in number)
        whole.setdefault(id, []).append(numbers)
    mended = []
    for roster in rosters:
        rows = {
            key: _mend_row(row, whole[row.id], notes) if len(row.labels) == 1 else row
            for key, row in roster.rows.items()
        }
        mended.append(replace(roster, rows=rows))
    return mended


def _mend_row(row: Listed, whole: Sequence[tuple[int, ...]], notes: Notes) -> Listed:
    for labels in whole:
        for count in range(2, len(labels) + 1):
            if "".join(map(str, labels[:count])) == str(row.labels[0]):
                notes.add(
                    "labels that had lost the comma between them, mended by another file",
                    f"{row.place} {row.labels[0]} is {','.join(map(str, labels[:count]))}",
                )
                return replace(row, labels=labels[:count])
    if row.labels[0] > _CLASSES:
        raise UserError(
            f"{row.place}: label {row.labels[0]} is none of {_CLASSES} classes; if it lost a "
            "comma, the .mat file or another list of these videos proves where: give it as well"
        )
    return row


def _create_clip(row: Listed) -> Clip:
    return Clip(
        id=row.id,
        split=row.split,
        labels=(),
        place=row.place,
        names=(row.id,),
        num_frames=row.num_frames,
    )


def _read_durations(materials: Sequence[Material], notes: Notes) -> dict[str, float]:
    """Seconds by id: rows of a video's file and of its duration take turns."""
    durations: dict[str, float] = {}
    for material in materials:
        for name, time in zip(material.rows[::2], material.rows[1::2], strict=False):
            id = check_id(name.place, PurePath(name.text).stem)
            seconds = parse_seconds(time.place, "the duration", time.text)
            if seconds <= 0:
                notes.add("durations that are not positive: taken as unknown", time.place)
            elif abs(durations.setdefault(id, seconds) - seconds) > _TOLERANCE:
                notes.add("durations that differ between files: the first counts", time.place)
        if len(material.rows) % 2:
            raise UserError(f"{material.rows[-1].place}: the last video has no duration")
    return durations


def _set_duration(clip: Clip, durations: Mapping[str, float], notes: Notes) -> Clip:
    seconds = durations.get(clip.id)
    if seconds and clip.duration and abs(seconds - clip.duration) > _TOLERANCE:
        notes.add(
            "durations that differ from those in the metadata, which count",
            f"{clip.id} {seconds:g}, not {clip.duration:g} s",
        )
    return replace(clip, duration=clip.duration or seconds)


def _note_rest(
    clips: Sequence[Clip], instances: Mapping[str, Sequence[Instance]], notes: Notes
) -> None:
    ids = {clip.id for clip in clips}
    notes.add_all(
        "segments of videos that are left out",
        (i.place for id, found in instances.items() if id not in ids for i in found),
    )
    notes.add_all(
        "background videos, which only resemble their class: kept, as the paper counts them",
        (f"{clip.id} ({clip.labels[0]})" for clip in clips if clip.background),
    )
