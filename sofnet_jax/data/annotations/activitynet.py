"""ActivityNet-v1.3: the official JSON, BSN's JSON and CSV, and lists with a class index."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sofnet_jax.data.annotations.assembly import UNDECIDED, assemble
from sofnet_jax.data.annotations.classes import create_kinds, read_orders
from sofnet_jax.data.annotations.clip import Annotation, Clip, clean_segments, read_duration
from sofnet_jax.data.annotations.files import (
    Material,
    Node,
    Notes,
    parse_count,
    parse_seconds,
    show,
    sort_materials,
)
from sofnet_jax.data.annotations.lists import Listed, Roster, collect, read_list
from sofnet_jax.data.annotations.names import (
    YOUTUBE,
    check_id,
    check_label,
    parse_split,
    strip_prefix,
)
from sofnet_jax.host.errors import UserError

NAME = "activitynet"
_CLASSES = 200
_TESTING = "testing"  # a split whose labels are not public
_DAMAGED = re.compile(r"[A-Za-z0-9_-]{9}")  # a YouTube id without two of its eleven characters


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    kinds = {
        "official": lambda m: "database" in _get_object(m),
        "bsn": lambda m: _is_bsn(_get_object(m)),
        "table": lambda m: {"video", "subset"} <= set(m.columns),
        **create_kinds(_CLASSES),
    }
    files = sort_materials("ActivityNet", materials, kinds, notes)
    described = _read_described(files, notes)
    rosters = [read_list(m, _create_listed, notes) for m in files["list"]]
    rosters = _repair_ids(rosters, described, notes)
    return assemble(NAME, described, rosters, read_orders(files), notes)


def _get_object(material: Material) -> dict[str, Any]:
    value = material.document.value if material.is_json else None
    return value if isinstance(value, dict) else {}


def _is_bsn(value: dict[str, Any]) -> bool:
    return bool(value) and all(isinstance(v, dict) and "annotations" in v for v in value.values())


def _read_described(files: Mapping[str, Sequence[Material]], notes: Notes) -> dict[str, Clip]:
    """The clips of all files but lists, by id; the official file wins."""
    described: dict[str, Clip] = {}
    for material in files["official"]:
        _add(described, _read_videos(material.document.need("database"), notes), notes)
    for material in files["bsn"]:
        _add(described, _read_videos(material.document, notes), notes)
    for material in files["table"]:
        _add(described, _read_table(material), notes)
    notes.add_all(
        "test videos, whose labels are not public: left out",
        (clip.place for clip in described.values() if clip.split == _TESTING),
    )
    return {id: clip for id, clip in described.items() if clip.split != _TESTING}


def _parse_subset(place: str, subset: str) -> str:
    split = _TESTING if subset.lower() in ("testing", "test") else parse_split(subset)
    if split is None:
        raise UserError(f"{place}: {show(subset)} is not training, validation or testing")
    return split


def _read_videos(videos: Node, notes: Notes) -> Iterator[Clip]:
    """The videos of the official JSON, or of BSN's, which has no subsets."""
    for key, video in videos.items():
        subset = video.get("subset")
        split = _parse_subset(subset.place, subset.text()) if subset else UNDECIDED
        seconds = read_duration(video.get("duration_second") or video.get("duration"), notes)
        id = check_id(video.place, strip_prefix(key))
        instances = [] if split == _TESTING else video.need("annotations").elements()
        labels = [check_label((n := node.need("label")).place, n.text()) for node in instances]
        segments = [((n := node.need("segment")).place, n.interval()) for node in instances]
        yield Clip(
            id=id,
            split=split,
            labels=tuple(dict.fromkeys(labels)),
            place=video.place,
            names=(id,),
            segments=clean_segments(segments, seconds, notes),
            duration=seconds,
        )


def _read_table(material: Material) -> Iterator[Clip]:
    """The rows of BSN's CSV, which have subsets and no labels."""
    for place, cells in material.table():
        id = check_id(place, strip_prefix(cells["video"]))
        seconds, frames = cells.get("seconds", ""), cells.get("numframe", "")
        duration = parse_seconds(place, "seconds", seconds) if seconds else 0.0
        yield Clip(
            id=id,
            split=_parse_subset(place, cells["subset"]),
            labels=(),
            place=place,
            names=(id,),
            duration=duration if duration > 0 else None,
            num_frames=(parse_count(place, "numFrame", frames) if frames else 0) or None,
        )


def _add(described: dict[str, Clip], clips: Iterable[Clip], notes: Notes) -> None:
    """Add what a file says to what others said. Raises UserError if it has a video twice."""
    new: dict[str, Clip] = {}
    for clip in clips:
        if new.setdefault(clip.id, clip) is not clip:
            raise UserError(f"{clip.place}: duplicate of {new[clip.id].place}; keep one")
        first = described.get(clip.id, clip)
        splits, labels = {first.split, clip.split}, {frozenset(c.labels) for c in (first, clip)}
        if len(splits - {UNDECIDED}) > 1 or len(labels - {frozenset()}) > 1:
            notes.add(
                "videos with another subset or class in a second file: the first counts",
                f"{clip.place}, {first.place}",
            )
        described[clip.id] = replace(
            first,
            split=first.split or clip.split,
            duration=first.duration or clip.duration,
            num_frames=first.num_frames or clip.num_frames,
        )


def _create_listed(place: str, text: str) -> Listed:
    id = check_id(place, strip_prefix(text))
    return Listed(Clip(id=id, split="", labels=(), place=place, names=(id,)))


def _repair_ids(
    rosters: Sequence[Roster], described: Mapping[str, Clip], notes: Notes
) -> list[Roster]:
    """The lists with their original ids.

    Public lists were made by removing every `v_`, also inside YouTube ids. Another file with the
    whole id proves what it was.
    """
    ids = {*described, *(id for roster in rosters for _, id in roster.rows)}
    whole = {id.replace("v_", ""): id for id in sorted(ids) if "v_" in id}
    return [
        collect(roster.path, [_repair_id(row, whole, notes) for row in roster.rows.values()], notes)
        for roster in rosters
    ]


def _repair_id(row: Listed, whole: Mapping[str, str], notes: Notes) -> Listed:
    clip = row.clip
    id, names = clip.id, clip.names
    if YOUTUBE.fullmatch(id):
        return row
    if id in whole:
        id = whole[id]
        names = (id,)
        notes.add("ids that lost a 'v_', repaired from another file", f"{clip.place} {id}")
    elif _DAMAGED.fullmatch(id):
        names = (*(f"{id[:i]}v_{id[i:]}" for i in range(len(id) + 1)), id)
        kind = "ids of 9 characters, which lost a 'v_': searched for under all possible ids"
        notes.add(kind, f"{clip.place} {id}")
    return replace(row, clip=replace(clip, id=id, names=names))
