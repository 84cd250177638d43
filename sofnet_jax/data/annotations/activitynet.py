"""ActivityNet-v1.3: the official JSON, BSN's JSON and CSV, and lists with a class index."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sofnet_jax.data.annotations.assembly import assemble, merge
from sofnet_jax.data.annotations.clip import Annotation, Clip, clean_segments, read_duration
from sofnet_jax.data.annotations.files import Material, Node, Notes, sort_materials
from sofnet_jax.data.annotations.lists import create_kinds, read_lists, read_orders
from sofnet_jax.data.annotations.names import (
    YOUTUBE,
    check_id,
    check_label,
    check_split,
    strip_prefix,
)

NAME = "activitynet"
_CLASSES = 200
_DAMAGED = re.compile(r"[A-Za-z0-9_-]{9}")  # a YouTube id without two of its eleven characters


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    kinds = {
        "official": lambda m: "database" in m.fields,
        "bsn": lambda m: "annotations" in m.fields,
        "table": lambda m: {"video", "subset"} <= m.fields,
        **create_kinds(_CLASSES),
    }
    files = sort_materials("ActivityNet", materials, kinds, notes)
    objects = [m.document.need("database") for m in files["official"]]
    objects += [m.document for m in files["bsn"]]
    found = [[(Node(v.place, key), v) for key, v in videos.items()] for videos in objects]
    found += [[(row.need("video"), row) for row in m.table()] for m in files["table"]]
    described = merge([[_read_video(*video, notes) for video in f] for f in found], notes)
    lists = _repair_ids(read_lists(files, _create_listed, notes), described, notes)
    return assemble(NAME, described, lists, read_orders(files, _CLASSES), notes)


def _read_video(name: Node, video: Node, notes: Notes) -> Clip:
    """A video of the official JSON, of BSN's without subsets, or of BSN's CSV without labels."""
    clip = _create_listed(name)
    subset = video.get("subset")
    is_testing = subset is not None and subset.text().lower() in ("testing", "test")
    split = "testing" if is_testing else check_split(subset) if subset else ""
    durations = map(video.get, ("duration_second", "duration", "seconds"))
    seconds = read_duration(next(filter(None, durations), None), notes)
    instances = [] if is_testing else video.get_list("annotations")
    labels = [check_label(instance.need("label")) for instance in instances]
    intervals = [instance.need("segment") for instance in instances]
    frames = video.get("numframe")
    return replace(
        clip,
        split=split,
        labels=tuple(dict.fromkeys(labels)),
        place=video.place,
        segments=clean_segments([(n.place, n.interval()) for n in intervals], seconds, notes),
        duration=seconds,
        num_frames=(frames.count() if frames else 0) or None,
    )


def _create_listed(name: Node) -> Clip:
    id = strip_prefix(check_id(name))
    return Clip(id=id, split="", labels=(), place=name.place, names=(id,))


def _repair_ids(
    lists: Mapping[Path, Sequence[Clip]], described: Sequence[Clip], notes: Notes
) -> dict[Path, list[Clip]]:
    """The lists with their original ids.

    Public lists were made by removing every `v_`, also inside YouTube ids. Another file with the
    whole id proves what it was.
    """
    ids = {clip.id for clips in [described, *lists.values()] for clip in clips}
    whole = {id.replace("v_", ""): id for id in sorted(ids) if "v_" in id and YOUTUBE.fullmatch(id)}

    def repair(clip: Clip) -> Clip:
        if id := whole.get(clip.id):
            notes.add("ids that lost a 'v_', repaired from another file", f"{clip.place} {id}")
            return replace(clip, id=id, names=(id,))
        if _DAMAGED.fullmatch(clip.id):
            kind = "ids of 9 characters, which lost a 'v_': searched for under all possible ids"
            notes.add(kind, f"{clip.place} {clip.id}")
            possible = [f"{clip.id[:i]}v_{clip.id[i:]}" for i in range(len(clip.id) + 1)]
            return replace(clip, names=(*possible, clip.id))
        return clip

    return {path: list(map(repair, clips)) for path, clips in lists.items()}
