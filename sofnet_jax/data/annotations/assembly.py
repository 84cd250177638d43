"""Puts together what lists say of which videos there are, and what other files tell by name."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sofnet_jax.data.annotations.classes import Evidence, Numbering, name_labels
from sofnet_jax.data.annotations.clip import SPLITS, Annotation, Clip
from sofnet_jax.data.annotations.files import Notes
from sofnet_jax.data.annotations.lists import Listed, Roster, compare_rosters
from sofnet_jax.host.errors import UserError

UNDECIDED = ""  # the split of a clip that only a list can tell


@dataclass
class Parts:
    """What the files of a benchmark hold.

    `told` are the clips that a file tells of by name, by id, some still `UNDECIDED`; `evidence` is
    what is told by name of the rows of lists alone.
    """

    told: Mapping[str, Clip] = field(default_factory=dict)
    rosters: Sequence[Roster] = ()
    numberings: Sequence[Numbering] = ()
    evidence: Mapping[str, Evidence] = field(default_factory=dict)


_Labels = Mapping[tuple[str, str], tuple[str, ...]]


def assemble(name: str, parts: Parts, create: Callable[[Listed], Clip], notes: Notes) -> Annotation:
    """The annotation of a benchmark.

    Where lists tell of a split, it is their videos, with what else is told of them; where none
    does, it is all that are told of. `create` makes the clip of a row, but for its labels.
    Raises UserError, also if two lists contradict each other.
    """
    evidence = dict(parts.evidence)
    for id, clip in parts.told.items():
        if clip.labels:
            evidence[id] = Evidence(frozenset(clip.labels), clip.place)
    labels = [name_labels(r, parts.numberings, evidence, notes) for r in parts.rosters]
    rows = _merge(parts.rosters, labels, notes)
    clips = [
        _join(row, named, parts.told.get(row.id), create, notes) for row, named in rows.values()
    ]
    clips += _rest(list(parts.told.values()), {split for split, _ in rows})
    _note_missing(parts.told, [row for row, _ in rows.values()], notes)
    note_both(clips, notes)
    kept = tuple(clip for clip in clips if clip.labels)
    notes.add_all("videos without a label: left out", (c.place for c in clips if not c.labels))
    return Annotation(name, _list_classes(kept, parts.numberings), kept, notes.lines())


def _merge(
    rosters: Sequence[Roster], labels: Sequence[_Labels], notes: Notes
) -> dict[tuple[str, str], tuple[Listed, tuple[str, ...]]]:
    """The rows of all lists by split and id, with their classes; those of the first list count."""
    merged: dict[tuple[str, str], tuple[Listed, tuple[str, ...]]] = {}
    for i, (roster, named) in enumerate(zip(rosters, labels, strict=True)):
        for earlier in rosters[:i]:
            compare_rosters(earlier, roster, notes)
        _check_labels(roster, named, merged)
        for key, row in roster.rows.items():
            before, _ = merged.get(key, (row, ()))
            if before.num_frames is None and row.num_frames is not None:
                before = replace(before, num_frames=row.num_frames)
            merged[key] = before, named[key] or merged.get(key, (row, ()))[1]
    return merged


def _check_labels(
    roster: Roster,
    named: _Labels,
    merged: Mapping[tuple[str, str], tuple[Listed, tuple[str, ...]]],
) -> None:
    """Raises UserError if a list contradicts the lists before it."""
    common = [key for key in roster.rows if named[key] and key in merged and merged[key][1]]
    other = [key for key in common if set(named[key]) != set(merged[key][1])]
    if not other:
        return
    row, (before, labels) = roster.rows[other[0]], merged[other[0]]
    first = (
        f"{row.id} is {' and '.join(named[other[0]])}, but {' and '.join(labels)} by {before.place}"
    )
    if 2 * len(other) > len(common):
        raise UserError(
            f"{row.place}: {first}, and so are {len(other):,} of {len(common):,} videos: the lists "
            "number the classes in different orders; leave out the list that the class index is "
            "not of"
        )
    raise UserError(f"{row.place}: {first}; correct the one that is wrong")


def _join(
    row: Listed,
    labels: tuple[str, ...],
    told: Clip | None,
    create: Callable[[Listed], Clip],
    notes: Notes,
) -> Clip:
    clip = create(row)
    if told is None:
        return replace(clip, labels=labels)
    if told.split not in (UNDECIDED, row.split):
        notes.add(
            "videos that a list puts into another split than the file that tells of them: the list "
            "counts",
            f"{row.place} {row.split}, {told.place} {told.split}",
        )
    if row.num_frames and told.num_frames and row.num_frames != told.num_frames:
        notes.add(
            "videos with another number of frames in a list than elsewhere: of no use here",
            f"{row.place} {row.num_frames}, {told.num_frames} elsewhere",
        )
    return replace(
        told,
        split=row.split,
        labels=told.labels or labels,
        num_frames=row.num_frames or told.num_frames,
        names=tuple(dict.fromkeys(told.names + clip.names)),
        trimmed=tuple(dict.fromkeys(told.trimmed + clip.trimmed)),
        path=clip.path,
    )


def _rest(told: Sequence[Clip], listed: set[str]) -> list[Clip]:
    """The clips of the splits that no list tells of."""
    undecided = [clip.place for clip in told if clip.split == UNDECIDED]
    if undecided and not listed:
        raise UserError(
            f"{undecided[0]}: nothing says which split it is in; give a list of each split as well"
        )
    return [clip for clip in told if clip.split in SPLITS and clip.split not in listed]


def _note_missing(told: Mapping[str, Clip], rows: Sequence[Listed], notes: Notes) -> None:
    """Notes the videos that only lists, or only other files, tell of."""
    listed, ids = {row.split for row in rows}, {row.id for row in rows}
    if told:
        notes.add_all(
            "videos of lists that no file tells of by name",
            (f"{row.id} ({row.place})" for row in rows if row.id not in told),
        )
    notes.add_all(
        "videos in no list of their split: left out",
        (
            f"{clip.id} ({clip.place})"
            for clip in told.values()
            if clip.id not in ids and (clip.split in listed or clip.split == UNDECIDED)
        ),
    )


def note_both(clips: Collection[Clip], notes: Notes) -> None:
    """Notes the videos that are trained with and validated on.

    Files at different paths are different videos, though they may have the same id.
    """
    train = {clip.id: clip for clip in clips if clip.split == "train"}
    notes.add_all(
        "videos that are in both splits, so that validation is on what was trained with",
        (
            f"{clip.id} ({clip.place})"
            for clip in clips
            if clip.split == "val" and clip.id in train and clip.path == train[clip.id].path
        ),
    )


def _list_classes(clips: Sequence[Clip], numberings: Sequence[Numbering]) -> tuple[str, ...]:
    """The classes by name; with those without a video, where a file names all classes of clips."""
    found = {label for clip in clips for label in clip.labels}
    for numbering in numberings:
        if found <= set(numbering.names.values()):
            return tuple(sorted(numbering.names.values()))
    return tuple(sorted(found))
