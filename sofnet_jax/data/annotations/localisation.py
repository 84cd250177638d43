"""Where in THUMOS'14's videos their actions are: temporal annotations, a file for each class."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sofnet_jax.data.annotations.cell import parse_seconds
from sofnet_jax.data.annotations.clip import Clip, Interval
from sofnet_jax.data.annotations.material import Material, Row
from sofnet_jax.data.annotations.note import Notes
from sofnet_jax.data.annotations.segment import clean_segments
from sofnet_jax.data.annotations.thumos14_id import check_id
from sofnet_jax.host.errors import UserError

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
