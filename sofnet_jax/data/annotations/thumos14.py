"""THUMOS'14: metadata in MATLAB files, temporal annotations, and lists.

The paper trains on its validation set and tests on its test set.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from sofnet_jax.data.annotations.assembly import assemble, merge
from sofnet_jax.data.annotations.clip import (
    Annotation,
    Clip,
    Interval,
    clean_segments,
    read_duration,
)
from sofnet_jax.data.annotations.files import Material, Node, Notes, sort_materials
from sofnet_jax.data.annotations.lists import (
    ClassOrder,
    create_kinds,
    read_lists,
    read_orders,
)
from sofnet_jax.data.annotations.matlab import read_structures
from sofnet_jax.data.annotations.names import check_label
from sofnet_jax.host.errors import UserError

NAME = "thumos14"
_CLASSES = 101
_ID = re.compile(r"video_(validation|test|background)_[0-9]{7}")
_SPLITS = {"validation": "train", "test": "val", "background": "background"}
_TEMPORAL = re.compile(r"video_\w+\s+[-+.\w]+\s+[-+.\w]*\.[-+.\w]*")
_TEMPORAL_FILE = re.compile(r"([A-Za-z]+)_(val|validation|test)")
_AMBIGUOUS = "Ambiguous"  # instead of a class in the name of such a file
_AVOIDED = re.compile(r"video_\w+\s+[A-Z][A-Za-z]+")
_DURATION = re.compile(r"(\S*/)?video_\w+\.\w+|[0-9]+\.[0-9]+")

_Instances = dict[tuple[str, str], list[tuple[str, Interval]]]  # place, seconds by id and label


def read(materials: Sequence[Material]) -> Annotation:
    """Read the given files of the benchmark. Raises UserError."""
    notes = Notes()
    kinds = {
        "metadata": lambda m: m.data.startswith(b"MATLAB "),
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
    found = read_structures(files["metadata"], "video_name")
    metadata = {
        material.path: [_read_structure(item) for item in items]
        for material, items in zip(files["metadata"], found, strict=True)
    }
    lists = read_lists(files, _create_listed, notes)
    lists = _repair_commas(lists, [*metadata.values(), *lists.values()], notes)
    orders = [_create_order(*file) for file in metadata.items()]
    orders = [order for order in orders if order.names] + read_orders(files, _CLASSES, (0, 1))
    durations = [_read_durations(material, notes) for material in files["durations"]]
    described = merge([*metadata.values(), *durations], notes)
    annotation = assemble(NAME, described, lists, orders, notes)
    segments = _read_temporal(files["temporal"], files["avoided"], notes)
    known = {(clip.id, label) for clip in annotation.clips for label in clip.labels}
    notes.add(
        "segments of videos or of classes that the other files do not have: left out",
        *(place for key, found in segments.items() if key not in known for place, _ in found),
    )
    clips = [_localise(clip, segments, notes) for clip in annotation.clips]
    notes.add(
        "background videos, which only resemble their class: kept, as the paper counts them",
        *(f"{clip.id} ({clip.labels[0]})" for clip in clips if clip.background),
    )
    return replace(annotation, clips=tuple(clips), notes=notes.lines())


def _check_id(node: Node) -> str:
    return node.match(_ID, "a THUMOS'14 id such as video_test_0000001")[0]


def _create_listed(name: Node) -> Clip:
    id = _check_id(name)
    split = _SPLITS[id.split("_")[1]]
    if split == "background":
        raise UserError(f"{name.place}: {id} is of the background set, which has no classes")
    return Clip(id, split, (), name.place, names=(id,))


def _read_structure(item: Node) -> Clip:
    """A clip with labels and their numbers."""
    id = _check_id(Node(item.place, "".join(node.text() for node in item.get_list("video_name"))))
    labels = item.get_list("primary_action", "secondary_actions")
    numbers = item.get_list("primary_action_index", "secondary_actions_indices")
    seconds, frames = (
        max((node.number() for node in item.get_list(field)), default=0.0)
        for field in ("video_duration_seconds", "number_of_frames")
    )
    return Clip(
        id=id,
        split=_SPLITS[id.split("_")[1]],
        labels=tuple(dict.fromkeys(map(check_label, labels))),
        place=item.place,
        names=(id,),
        duration=seconds if seconds > 0 else None,
        num_frames=int(frames) if frames > 0 else None,
        background=[node.value for node in item.get_list("background_video")] == ["YES"],
        numbers=tuple(int(node.number()) for node in numbers),
    )


def _create_order(path: Path, clips: Iterable[Clip]) -> ClassOrder:
    """The classes by number in a file of metadata."""
    whole = [clip for clip in clips if len(clip.numbers) == len(clip.labels)]
    pairs = (pair for clip in whole for pair in zip(clip.numbers, clip.labels, strict=True))
    return ClassOrder(path, dict(pairs))


def _repair_commas(
    lists: Mapping[Path, Sequence[Clip]], files: Iterable[Iterable[Clip]], notes: Notes
) -> dict[Path, list[Clip]]:
    """Restore the commas that one public list lost between labels: 42,41 became 4241.

    Another file proves which labels these were; 98 may also have been 9,8.
    """
    proofs = {
        (clip.id, "".join(map(str, clip.numbers[:count]))): clip.numbers[:count]
        for clips in files
        for clip in clips
        for count in range(2, len(clip.numbers) + 1)
    }

    def repair(clip: Clip) -> Clip:
        labels = proofs.get((clip.id, "".join(map(str, clip.numbers[:1]))))
        if labels is None or len(clip.numbers) > 1:
            return clip
        kind = "labels that lost the comma between them, repaired from another file"
        whole = ",".join(map(str, labels))
        notes.add(kind, f"{clip.place} {clip.numbers[0]} is {whole}")
        return replace(clip, numbers=labels)

    return {path: list(map(repair, clips)) for path, clips in lists.items()}


def _read_durations(material: Material, notes: Notes) -> Iterator[Clip]:
    """The clips of a file in which each video's row precedes its duration's."""
    for name, time in itertools.zip_longest(material.rows[::2], material.rows[1::2]):
        if time is None:
            raise UserError(f"{name.place}: the last video has no duration")
        clip = _create_listed(Node(name.place, PurePath(name.text()).stem))
        yield replace(clip, duration=read_duration(time, notes))


def _split_row(row: Node, form: str) -> tuple[str, list[Node]]:
    """The id and the other cells of a row with as many words as `form`."""
    cells = [Node(row.place, cell) for cell in row.text().split()]
    if len(cells) != len(form.split()):
        raise UserError(f"{row.place}: {len(cells)} columns; a row is '{form}'")
    return _check_id(cells[0]), cells[1:]


def _read_temporal(
    materials: Sequence[Material], to_avoid: Sequence[Material], notes: Notes
) -> _Instances:
    """The temporal annotations that are valid; one file per class.

    Files of rows to avoid name videos that do not show the class.
    """
    rows = (_split_row(row, "video class") for material in to_avoid for row in material.rows)
    avoided = {(id, label.text()) for id, (label,) in rows}
    instances: _Instances = {}
    for material in materials:
        match = _TEMPORAL_FILE.fullmatch(material.path.stem)
        if not match:
            raise UserError(
                f"{material.path}: temporal annotations whose class the file's name does not say; "
                "name it as it was published, such as Diving_val.txt"
            )
        label = match[1]
        for row in material.rows:
            id, (start, end) = _split_row(row, "video start end")
            interval = start.number(), end.number()
            if label == _AMBIGUOUS or (id, label) in avoided:
                notes.add("segments that are ambiguous or to avoid: left out", row.place)
            else:
                instances.setdefault((id, label), []).append((row.place, interval))
    return instances


def _localise(clip: Clip, instances: _Instances, notes: Notes) -> Clip:
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
