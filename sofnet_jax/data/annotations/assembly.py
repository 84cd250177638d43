"""Combines what lists say about which videos there are with what other files say by name."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from sofnet_jax.data.annotations.classes import ClassOrder, Evidence, name_labels
from sofnet_jax.data.annotations.clip import SPLITS, Annotation, Clip
from sofnet_jax.data.annotations.files import Notes
from sofnet_jax.data.annotations.lists import Roster
from sofnet_jax.host.errors import UserError

UNDECIDED = ""  # the split of a clip that only a list can decide
_Key = tuple[str, str]  # split and id


def assemble(
    name: str,
    described: Mapping[str, Clip],
    rosters: Sequence[Roster],
    orders: Sequence[ClassOrder],
    notes: Notes,
    evidence: Mapping[str, Evidence] | None = None,
) -> Annotation:
    """Create the annotation of a benchmark.

    A split with lists consists of the listed videos, any other split of all described ones.

    Args:
        name: of the benchmark.
        described: clips by id from files that name their classes; their split may be `UNDECIDED`.
        rosters: the lists.
        orders: the class orders that their numbers may follow.
        notes: receives the oddities.
        evidence: by id, the classes of listed videos that are not described.

    Raises:
        UserError: lists contradict each other, or nothing says what their numbers stand for.
    """
    proofs = dict(evidence or {}) | {
        id: Evidence(frozenset(clip.labels), clip.place)
        for id, clip in described.items()
        if clip.labels
    }
    labels = [name_labels(roster, orders, proofs, notes) for roster in rosters]
    listed = _merge(rosters, labels, notes)
    listed_splits = {split for split, _ in listed}
    clips = [_join(clip, described.get(clip.id), notes) for clip in listed.values()]
    clips += _list_rest(described, listed_splits)
    _note_missing(described, list(listed.values()), notes)
    note_both(clips, notes)
    kept = tuple(clip for clip in clips if clip.labels)
    notes.add_all("videos without a label: left out", (c.place for c in clips if not c.labels))
    return Annotation(name, _list_classes(kept, orders), kept, notes.lines())


def _merge(
    rosters: Sequence[Roster], labels: Sequence[Mapping[_Key, tuple[str, ...]]], notes: Notes
) -> dict[_Key, Clip]:
    """The clips of all lists by split and id, with labels; the first list wins."""
    merged: dict[_Key, Clip] = {}
    for roster, named in zip(rosters, labels, strict=True):
        _check_labels(roster, named, merged)
        for key, row in roster.rows.items():
            before = merged.get(key, row.clip)
            num_frames = _choose_frames(before, row.clip, notes)
            merged[key] = replace(before, labels=named[key] or before.labels, num_frames=num_frames)
    lists = Counter(split for roster in rosters for split in {split for split, _ in roster.rows})
    found = Counter(key for roster in rosters for key in roster.rows)
    notes.add_all(
        "videos that only some of the lists of their split have",
        (f"{c.id} ({c.place})" for key, c in merged.items() if found[key] < lists[key[0]]),
    )
    return merged


def _check_labels(
    roster: Roster, named: Mapping[_Key, tuple[str, ...]], merged: Mapping[_Key, Clip]
) -> None:
    """Raise UserError if a list contradicts the lists before it."""
    common = [k for k in roster.rows if named[k] and k in merged and merged[k].labels]
    different = [key for key in common if set(named[key]) != set(merged[key].labels)]
    if different:
        clip, before = roster.rows[different[0]].clip, merged[different[0]]
        raise UserError(
            f"{clip.place}: {clip.id} is {' and '.join(named[different[0]])}, but "
            f"{' and '.join(before.labels)} by {before.place}, like {len(different):,} of "
            f"{len(common):,} videos; correct it, or leave out the list that does not match the "
            "class index"
        )


def _choose_frames(a: Clip, b: Clip, notes: Notes) -> int | None:
    """The first known frame count."""
    if a.num_frames and b.num_frames and a.num_frames != b.num_frames:
        notes.add(
            "videos with different frame counts: the first counts",
            f"{a.place} {a.num_frames}, {b.place} {b.num_frames}",
        )
    return a.num_frames or b.num_frames


def _join(listed: Clip, described: Clip | None, notes: Notes) -> Clip:
    """A listed clip with what other files say about it."""
    if described is None:
        return listed
    if described.split not in (UNDECIDED, listed.split):
        notes.add(
            "videos in another split by a list than by another file: the list wins",
            f"{listed.place} {listed.split}, {described.place} {described.split}",
        )
    return replace(
        described,
        split=listed.split,
        labels=described.labels or listed.labels,
        num_frames=_choose_frames(listed, described, notes),
        names=tuple(dict.fromkeys(described.names + listed.names)),
        trimmed=tuple(dict.fromkeys(described.trimmed + listed.trimmed)),
        path=listed.path,
    )


def _list_rest(described: Mapping[str, Clip], listed: Collection[str]) -> list[Clip]:
    """The clips of splits without lists."""
    undecided = [clip.place for clip in described.values() if clip.split == UNDECIDED]
    if undecided and not listed:
        raise UserError(f"{undecided[0]}: split unknown; give a list of each split as well")
    return [c for c in described.values() if c.split in SPLITS and c.split not in listed]


def _note_missing(described: Mapping[str, Clip], listed: Sequence[Clip], notes: Notes) -> None:
    """Note the videos that only lists, or only other files, have."""
    splits, ids = {clip.split for clip in listed}, {clip.id for clip in listed}
    if described:
        notes.add_all(
            "videos of lists that no other file describes",
            (f"{clip.id} ({clip.place})" for clip in listed if clip.id not in described),
        )
    notes.add_all(
        "videos in no list of their split: left out",
        (
            f"{clip.id} ({clip.place})"
            for clip in described.values()
            if clip.id not in ids and (clip.split in splits or clip.split == UNDECIDED)
        ),
    )


def note_both(clips: Collection[Clip], notes: Notes) -> None:
    """Note the videos that are in both splits.

    Files at different paths are different videos, though they may have the same id.
    """
    train = {clip.id: clip for clip in clips if clip.split == "train"}
    notes.add_all(
        "videos in both splits, so that validation sees training data",
        (
            f"{clip.id} ({clip.place})"
            for clip in clips
            if clip.split == "val" and clip.id in train and clip.path == train[clip.id].path
        ),
    )


def _list_classes(clips: Sequence[Clip], orders: Sequence[ClassOrder]) -> tuple[str, ...]:
    """The sorted classes; those without videos too if one file names all classes of the clips."""
    found = {label for clip in clips for label in clip.labels}
    whole = (set(o.names.values()) for o in orders if found <= set(o.names.values()))
    return tuple(sorted(next(whole, found)))
