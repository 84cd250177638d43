"""Joins what the files say: lists say which videos there are, other files describe them by name."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path

from sofnet_jax.data.annotations.clip import LEFT_OUT, Annotation, Clip
from sofnet_jax.data.annotations.files import Notes
from sofnet_jax.data.annotations.lists import ClassOrder
from sofnet_jax.host.errors import UserError

_get_key: Callable[[Clip], tuple[str, str]] = attrgetter("split", "id")


def merge(
    files: Iterable[Iterable[Clip]],
    notes: Notes,
    key: Callable[[Clip], Hashable] = attrgetter("id"),
) -> list[Clip]:
    """The clips of several files, one of each key: the first counts, later ones fill its gaps.

    A repetition in one file is noted. Raises UserError if two have different labels.
    """
    merged: dict[Hashable, Clip] = {}
    for clips in files:
        seen = set()
        for clip in clips:
            if key(clip) in seen:
                notes.add("duplicate rows left out", clip.place)
            seen.add(key(clip))
            first = merged.get(key(clip))
            merged[key(clip)] = _join(first, clip, notes) if first else clip
    return list(merged.values())


def _join(first: Clip, second: Clip, notes: Notes) -> Clip:
    if first.labels and second.labels and set(first.labels) != set(second.labels):
        labels, others = (" and ".join(clip.labels) for clip in (first, second))
        raise UserError(
            f"{second.place}: {second.id} has different labels in {first.place}: {labels}, not "
            f"{others}; correct one, or leave out the file that is wrong"
        )
    if first.split and second.split and first.split != second.split:
        notes.add(
            "videos in another split by a second file: a list, or else the first, counts",
            f"{first.place} {first.split}, {second.place} {second.split}",
        )
    if first.num_frames and second.num_frames and first.num_frames != second.num_frames:
        notes.add(
            "videos with different frame counts: the first counts",
            f"{first.place} {first.num_frames}, {second.place} {second.num_frames}",
        )
    gaps = [f.name for f in fields(Clip) if getattr(first, f.name) in (None, "", ())]
    return replace(
        first,
        background=first.background or second.background,
        **{name: getattr(second, name) for name in gaps},
    )


def assemble(
    name: str,
    described: Sequence[Clip],
    lists: Mapping[Path, Sequence[Clip]],
    orders: Sequence[ClassOrder],
    notes: Notes,
) -> Annotation:
    """Create the annotation of a benchmark.

    A split with lists consists of the listed videos, any other split of all described ones.

    Args:
        name: of the benchmark.
        described: merged clips of files that name their classes; their split may be "".
        lists: the clips of each list, with numbers.
        orders: the class orders that their numbers may follow.
        notes: receives the oddities.

    Raises:
        UserError: lists contradict each other, or nothing says what their numbers stand for.
    """
    for split, kind in LEFT_OUT.items():
        notes.add(kind, *(clip.place for clip in described if clip.split == split))
    described = [clip for clip in described if clip.split not in LEFT_OUT]
    by_id = {clip.id: clip for clip in described}
    by_name = {clip.id: clip for clip in described if clip.labels}
    named = [_name_labels(*file, by_name, orders, notes) for file in lists.items()]
    listed = merge(named, notes, _get_key)
    splits = {clip.split for clip in listed}
    undecided = [clip.place for clip in described if not clip.split]
    if undecided and not splits:
        raise UserError(f"{undecided[0]}: split unknown; give a list of each split as well")
    clips = [_join(clip, by_id[clip.id], notes) if clip.id in by_id else clip for clip in listed]
    clips += [clip for clip in described if clip.split and clip.split not in splits]
    _note_missing(named, listed, by_id, notes)
    note_both(clips, notes)
    kept = tuple(replace(clip, numbers=()) for clip in clips if clip.labels)
    notes.add("videos without a label: left out", *(c.place for c in clips if not c.labels))
    return Annotation(name, _list_classes(kept, orders), kept, notes.lines())


def _name_labels(
    path: Path,
    clips: Sequence[Clip],
    described: Mapping[str, Clip],
    orders: Sequence[ClassOrder],
    notes: Notes,
) -> list[Clip]:
    """The clips of a list with class names: as described, else as listed, else by number."""
    proofs = [described.get(clip.id, clip) for clip in clips]
    rows = [(c.numbers, p.labels) for c, p in zip(clips, proofs, strict=True) if c.numbers]
    order = _choose_order(path, rows, orders, notes) if rows else None
    named = []
    for clip, proof in zip(clips, proofs, strict=True):
        labels = order.look_up(clip.place, clip.numbers) if order else ()
        if labels and proof.labels and set(labels) != set(proof.labels):
            notes.add(
                "videos with other classes by number than by name: names win",
                f"{clip.place} {' and '.join(labels)}, not {' and '.join(proof.labels)} as in "
                f"{proof.place}",
            )
        named.append(replace(clip, labels=proof.labels or labels))
    return named


def _choose_order(
    path: Path,
    rows: Sequence[tuple[Sequence[int], Sequence[str]]],
    orders: Sequence[ClassOrder],
    notes: Notes,
) -> ClassOrder | None:
    """The class order of a list, given the numbers and the known names of each row.

    It agrees with most of the names, and with more than half of them. Without such an order,
    returns None if all names are known, and raises UserError otherwise, also if several orders are
    possible and differ.
    """
    known = [(numbers, set(labels)) for numbers, labels in rows if labels]

    def score(order: ClassOrder) -> int:
        return sum({order.names.get(n) for n in numbers} <= labels for numbers, labels in known)

    stated = [order for order in orders if order.stated]
    usable = stated if stated and not known else orders
    top = max(map(score, usable), default=0)
    best = [order for order in usable if score(order) == top]
    if not best or (known and 2 * top <= len(known)):
        problem = (
            f"{path}: its numbers do not follow {best[0] if best else 'any file of class names'}"
        )
        if known:
            problem += f": only {top:,} of {len(known):,} videos agree with their names"
        if len(known) < len(rows):
            raise UserError(f"{problem}; give the matching one as well")
        notes.say(f"{problem}; all labels are taken by name")
        return None
    used = {number for numbers, _ in rows for number in numbers}
    first, *others = [order for order in best if used <= order.names.keys()] or best[:1]
    for other in others:
        if any(first.names[number] != other.names[number] for number in used):
            raise UserError(
                f"{path}: its numbers may follow {first} or {other}, which differ; leave "
                "one out, or give a file that has its videos' classes by name"
            )
    for number in {n for numbers, labels in rows if not labels for n in numbers}:
        name = first.names.get(number)  # out of range is refused elsewhere
        having = [labels for numbers, labels in known if number in numbers]
        if name and 2 * sum(name in labels for labels in having) < len(having):
            raise UserError(
                f"{path}: number {number} is {name} in {first}, but most named videos with it "
                "have another class; give the matching one"
            )
    if not (known or first.stated):
        notes.say(f"{path}: labels are read by {first}; no given file confirms it")
    matching = {order.path for order in orders if order.matches(first)}
    for other_path in dict.fromkeys(o.path for o in orders if o.path not in matching):
        notes.add(f"{other_path}: a different class order, not used", path.name)
    return first


def _note_missing(
    lists: Sequence[Sequence[Clip]],
    listed: Sequence[Clip],
    described: Mapping[str, Clip],
    notes: Notes,
) -> None:
    """Note the videos that only some of the lists, only lists, or only other files have."""
    with_split = Counter(split for clips in lists for split in {clip.split for clip in clips})
    with_clip = Counter(key for clips in lists for key in set(map(_get_key, clips)))
    splits, ids = {"", *with_split}, {clip.id for clip in listed}
    for kind, found in {
        "videos that only some of the lists of their split have": [
            clip for clip in listed if with_clip[_get_key(clip)] < with_split[clip.split]
        ],
        "videos of lists that no other file describes": [
            clip for clip in listed if described and clip.id not in described
        ],
        "videos in no list of their split: left out": [
            clip for clip in described.values() if clip.split in splits and clip.id not in ids
        ],
    }.items():
        notes.add(kind, *(f"{clip.id} ({clip.place})" for clip in found))


def note_both(clips: Collection[Clip], notes: Notes) -> None:
    """Note the videos that are in both splits.

    Files at different paths are different videos, though they may have the same id.
    """
    train = {(clip.id, clip.path) for clip in clips if clip.split == "train"}
    both = [c for c in clips if c.split == "val" and (c.id, c.path) in train]
    notes.add(
        "videos in both splits, so that validation sees training data",
        *(f"{clip.id} ({clip.place})" for clip in both),
    )


def _list_classes(clips: Sequence[Clip], orders: Sequence[ClassOrder]) -> tuple[str, ...]:
    """The sorted classes; those without videos too if one file names all classes of the clips."""
    found = {label for clip in clips for label in clip.labels}
    whole = (set(o.names.values()) for o in orders if found <= set(o.names.values()))
    return tuple(sorted(next(whole, found)))
