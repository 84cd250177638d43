"""ActivityNet-v1.3: the official JSON, BSN's JSON and CSV, and lists with a class index."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sofnet_jax.data.annotations.assembly import UNDECIDED, Parts, assemble
from sofnet_jax.data.annotations.classes import is_names, is_numbered, read_names, read_numbered
from sofnet_jax.data.annotations.clip import Annotation, Clip, clean_segments
from sofnet_jax.data.annotations.files import (
    Material,
    Node,
    Notes,
    Row,
    parse_count,
    parse_seconds,
    show,
    sort_materials,
)
from sofnet_jax.data.annotations.lists import (
    LISTED,
    Listed,
    Roster,
    collect,
    read_roster,
    require_split,
    split_left,
)
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
_TESTING = "testing"  # a split of which only the ids are public
_DAMAGED = re.compile(r"[A-Za-z0-9_-]{9}")  # an id of YouTube without two of its eleven characters


def read(materials: Sequence[Material]) -> Annotation:
    """Reads what is given of the benchmark's files. Raises UserError."""
    notes = Notes()
    kinds = {
        "official": _is_official,
        "bsn": _is_bsn,
        "table": lambda m: {"video", "subset"} <= set(m.columns),
        "list": lambda m: m.looks_like(LISTED),
        "numbered": is_numbered,
        "names": lambda m: is_names(m, _CLASSES),
    }
    files = sort_materials("ActivityNet", materials, kinds, notes)
    told = _read_told(files, notes)
    rosters = [read_roster(m, _RowReader(m), notes) for m in files["list"]]
    parts = Parts(
        told=told,
        rosters=_mend_ids(rosters, told, notes),
        numberings=[
            *map(read_numbered, files["numbered"]),
            *map(read_names, files["names"]),
        ],
    )
    return assemble(NAME, parts, _create_clip, notes)


def _is_official(material: Material) -> bool:
    value = material.document.value if material.is_json else None
    return isinstance(value, dict) and "database" in value


def _is_bsn(material: Material) -> bool:
    value = material.document.value if material.is_json else None
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(video, dict) and "annotations" in video for video in value.values())


def _read_told(files: Mapping[str, Sequence[Material]], notes: Notes) -> dict[str, Clip]:
    """The videos of all files but lists, by id; the official file counts before the others."""
    told: dict[str, Clip] = {}
    for material in files["official"]:
        videos = material.document.need("database").items()
        _add(told, [_read_official(key, video, notes) for key, video in videos], notes)
    for material in files["bsn"]:
        videos = material.document.items()
        _add(told, [_read_bsn(key, video, notes) for key, video in videos], notes)
    for material in files["table"]:
        for place, cells in material.table():
            _add_row(told, place, cells, notes)
    notes.add_all(
        "videos for testing, whose labels are not public: left out",
        (clip.place for clip in told.values() if clip.split == _TESTING),
    )
    return {id: clip for id, clip in told.items() if clip.split != _TESTING}


def _read_official(key: str, video: Node, notes: Notes) -> Clip:
    subset = video.need("subset")
    split = _parse_subset(subset.place, subset.text())
    return _read_video(key, video, split, _read_duration(video.get("duration"), notes), notes)


def _read_bsn(key: str, video: Node, notes: Notes) -> Clip:
    duration = _read_duration(video.get("duration_second"), notes)
    return _read_video(key, video, UNDECIDED, duration, notes)


def _parse_subset(place: str, subset: str) -> str:
    split = _TESTING if subset.lower() in ("testing", "test") else parse_split(subset)
    if split is None:
        raise UserError(f"{place}: {show(subset)} is not training, validation or testing")
    return split


def _read_duration(node: Node | None, notes: Notes) -> float | None:
    if node is None:
        return None
    seconds = node.number()
    if seconds <= 0:
        notes.add("durations that are not positive: taken as unknown", node.place)
    return seconds if seconds > 0 else None


def _read_video(key: str, video: Node, split: str, duration: float | None, notes: Notes) -> Clip:
    id = check_id(video.place, strip_prefix(key))
    instances = [] if split == _TESTING else video.need("annotations").elements()
    labels = [check_label((n := node.need("label")).place, n.text()) for node in instances]
    segments = [((n := node.need("segment")).place, n.interval()) for node in instances]
    return Clip(
        id=id,
        split=split,
        labels=tuple(dict.fromkeys(labels)),
        place=video.place,
        names=(id,),
        segments=clean_segments(segments, duration, notes),
        duration=duration,
    )


def _add(told: dict[str, Clip], clips: Sequence[Clip], notes: Notes) -> None:
    """Adds the videos of one file. Raises UserError if it has one of them twice."""
    new: dict[str, Clip] = {}
    for clip in clips:
        if new.setdefault(clip.id, clip) is not clip:
            raise UserError(f"{clip.place}: the same video as {new[clip.id].place}; leave one")
    for id, clip in new.items():
        first = told.setdefault(id, clip)
        if first.labels and clip.labels and set(first.labels) != set(clip.labels):
            other, those = " and ".join(clip.labels), " and ".join(first.labels)
            notes.add(
                "videos of other classes in a second file: those of the first count",
                f"{clip.place} {other}, {first.place} {those}",
            )


def _add_row(told: dict[str, Clip], place: str, cells: Mapping[str, str], notes: Notes) -> None:
    """Adds what a row of BSN's CSV tells: the split, and the duration where nothing else does."""
    id = check_id(place, strip_prefix(cells["video"]))
    clip = told.get(id) or Clip(id=id, split=UNDECIDED, labels=(), place=place, names=(id,))
    split = _parse_subset(place, cells["subset"])
    if clip.split not in (UNDECIDED, split):
        notes.add("videos in other subsets in a second file: the first counts", place)
        split = clip.split
    seconds, frames = cells.get("seconds", ""), cells.get("numframe", "")
    duration = clip.duration or (parse_seconds(place, "seconds", seconds) if seconds else 0.0)
    told[id] = replace(
        clip,
        split=split,
        duration=duration if duration > 0 else None,
        num_frames=(parse_count(place, "numFrame", frames) if frames else 0) or None,
    )


class _RowReader:
    """Reads the rows of a list; its name tells the split. Raises UserError."""

    def __init__(self, material: Material):
        self._split = require_split(material)

    def __call__(self, row: Row) -> Listed:
        text, num_frames, labels = split_left(row)
        id = check_id(row.place, strip_prefix(text))
        return Listed(row.place, id, self._split, labels, num_frames)


def _mend_ids(rosters: Sequence[Roster], told: Mapping[str, Clip], notes: Notes) -> list[Roster]:
    """The lists with the ids that they had.

    Public lists were made by removing every `v_`, and so also those inside of ids of YouTube.
    Another file that tells of a video with such an id proves what it was.
    """
    ids = {*told, *(row.id for roster in rosters for row in roster.rows.values())}
    whole = {id.replace("v_", ""): id for id in sorted(ids) if "v_" in id}
    mended = []
    for roster in rosters:
        rows = []
        for row in roster.rows.values():
            id = row.id if YOUTUBE.fullmatch(row.id) else whole.get(row.id, row.id)
            if id != row.id:
                notes.add("ids that had lost a 'v_', mended by another file", f"{row.place} {id}")
            elif _DAMAGED.fullmatch(id):
                notes.add(
                    "ids of 9 characters instead of 11, which lost a 'v_' somewhere and cannot be "
                    "mended: the video is looked for by all ids that it may have",
                    f"{row.place} {id}",
                )
            elif not YOUTUBE.fullmatch(id):
                notes.add("ids that do not have YouTube's 11 characters", f"{row.place} {id}")
            rows.append(replace(row, id=id))
        mended.append(collect(roster.path, rows, notes))
    return mended


def _create_clip(row: Listed) -> Clip:
    names: tuple[str, ...] = (row.id,)
    if _DAMAGED.fullmatch(row.id):
        names = tuple(f"{row.id[:i]}v_{row.id[i:]}" for i in range(len(row.id) + 1)) + names
    return Clip(
        id=row.id,
        split=row.split,
        labels=(),
        place=row.place,
        names=names,
        num_frames=row.num_frames,
    )
