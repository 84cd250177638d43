"""ActivityNet-v1.3: the official JSON, BSN's JSON and CSV, and lists with a class index."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sofnet_jax.data.annotations.assembly import assemble, merge
from sofnet_jax.data.annotations.clip import Annotation, Clip, clean_segments, read_duration
from sofnet_jax.data.annotations.files import Material, Node, Notes, show, sort_materials
from sofnet_jax.data.annotations.lists import Roster, create_kinds, read_list, read_orders
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
    found = [_read_videos(m.document.need("database"), notes) for m in files["official"]]
    found += [_read_videos(m.document, notes) for m in files["bsn"]]
    found += [map(_read_row, m.table()) for m in files["table"]]
    described = merge(found, notes)
    notes.add(
        "test videos, whose labels are not public: left out",
        *(clip.place for clip in described if clip.split == _TESTING),
    )
    described = [clip for clip in described if clip.split != _TESTING]
    rosters = [read_list(m, _create_listed, notes) for m in files["list"]]
    rosters = _repair_ids(rosters, described, notes)
    return assemble(NAME, described, rosters, read_orders(files), notes)


def _get_object(material: Material) -> dict[str, Any]:
    value = material.document.value if material.is_json else None
    return value if isinstance(value, dict) else {}


def _is_bsn(value: dict[str, Any]) -> bool:
    return bool(value) and all(isinstance(v, dict) and "annotations" in v for v in value.values())


def _read_subset(video: Node) -> str:
    """The split of a video; "" if the file has none."""
    subset = video.get("subset")
    if subset is None:
        return ""
    word = subset.text()
    split = _TESTING if word.lower() in ("testing", "test") else parse_split(word)
    if split is None:
        raise UserError(f"{subset.place}: {show(word)} is not training, validation or testing")
    return split


def _read_videos(videos: Node, notes: Notes) -> Iterator[Clip]:
    """The videos of the official JSON, or of BSN's, which has no subsets."""
    for key, video in videos.items():
        clip = _create_listed(Node(video.place, key))
        split = _read_subset(video)
        seconds = read_duration(video.get("duration_second") or video.get("duration"), notes)
        instances = [] if split == _TESTING else video.need("annotations").elements()
        labels = [check_label(instance.need("label")) for instance in instances]
        intervals = [instance.need("segment") for instance in instances]
        segments = [(node.place, node.interval()) for node in intervals]
        yield replace(
            clip,
            split=split,
            labels=tuple(dict.fromkeys(labels)),
            segments=clean_segments(segments, seconds, notes),
            duration=seconds,
        )


def _read_row(row: Node) -> Clip:
    """A row of BSN's CSV, which has subsets and no labels."""
    frames, seconds = row.get("numframe"), row.get_number("seconds")
    return replace(
        _create_listed(row.need("video")),
        split=_read_subset(row),
        place=row.place,
        duration=seconds if seconds and seconds > 0 else None,
        num_frames=(frames.count() if frames else 0) or None,
    )


def _create_listed(name: Node) -> Clip:
    id = strip_prefix(check_id(name))
    return Clip(id=id, split="", labels=(), place=name.place, names=(id,))


def _repair_ids(rosters: Sequence[Roster], described: Sequence[Clip], notes: Notes) -> list[Roster]:
    """The lists with their original ids.

    Public lists were made by removing every `v_`, also inside YouTube ids. Another file with the
    whole id proves what it was.
    """
    clips = [*described, *(clip for roster in rosters for clip in roster.clips)]
    whole = {id.replace("v_", ""): id for id in sorted({c.id for c in clips}) if "v_" in id}
    return [
        Roster(roster.path, [_repair_id(clip, whole, notes) for clip in roster.clips])
        for roster in rosters
    ]


def _repair_id(clip: Clip, whole: Mapping[str, str], notes: Notes) -> Clip:
    if YOUTUBE.fullmatch(clip.id):
        return clip
    if id := whole.get(clip.id):
        notes.add("ids that lost a 'v_', repaired from another file", f"{clip.place} {id}")
        return replace(clip, id=id, names=(id,))
    if _DAMAGED.fullmatch(clip.id):
        kind = "ids of 9 characters, which lost a 'v_': searched for under all possible ids"
        notes.add(kind, f"{clip.place} {clip.id}")
        possible = [f"{clip.id[:i]}v_{clip.id[i:]}" for i in range(len(clip.id) + 1)]
        return replace(clip, names=(*possible, clip.id))
    return clip
