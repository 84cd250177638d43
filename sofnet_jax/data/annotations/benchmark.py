"""The annotations of a benchmark, and how many videos the paper counts in it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sofnet_jax.data.annotations import activitynet, kinetics, own, sports1m, thumos14
from sofnet_jax.data.annotations.clip import SPLITS, Annotation
from sofnet_jax.data.annotations.files import create_materials
from sofnet_jax.host.errors import UserError, explain_unreadable

_READERS = {module.NAME: module.read for module in (activitynet, kinetics, thumos14, sports1m)}
BENCHMARKS = (*_READERS, own.NAME)

# Section 4 of the paper; it does not say how many videos mini-Sports1M has.
_PAPER = {
    activitynet.NAME: {"train": 10_024, "val": 4_926, "classes": 200},
    kinetics.NAME: {"train": 121_215, "val": 9_867, "classes": 200},
    thumos14.NAME: {"train": 1_010, "val": 1_574, "classes": 101},
}


@explain_unreadable()
def read_annotation(name: str, paths: Sequence[Path]) -> Annotation:
    """Read the annotation files of a benchmark, given by name or in folders.

    File types are detected from their contents. Raises UserError for an unrecognised file that was
    given by name, for anything that would make labels or identities wrong, and if no video has a
    label; other oddities are among the notes.
    """
    if name == own.NAME:
        return own.read(paths)
    if name not in _READERS:
        raise UserError(f"'{name}' is not a benchmark; choose one of {', '.join(BENCHMARKS)}")
    materials = create_materials(paths)
    try:
        annotation = _READERS[name](materials)
        if not annotation.clips:
            where = " or ".join(map(str, paths))
            raise UserError(f"no labelled videos in {where}; give the files that name some")
        return annotation
    except UserError as error:
        folders = [path for path in paths if path.is_dir()]
        if not folders:
            raise
        raise UserError(
            f"{error}; if {folders[0]} has files of other data sets too, give only those of {name}"
        ) from error


def describe_counts(annotation: Annotation) -> list[str]:
    """Lines that compare the numbers of videos and classes with those of the paper."""
    paper = _PAPER.get(annotation.name, {})
    lines = []
    for split in SPLITS:
        clips = [clip for clip in annotation.clips if clip.split == split]
        lines.append(f"{split}: {_compare(len(clips), paper.get(split))} videos")
        if clips:
            counts = count_classes(annotation, split)
            least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
            lines.append(
                f"{split}: from {counts[least]:,} ('{least}') to {counts[most]:,} ('{most}') "
                "videos in a class"
            )
    lines.append(f"{_compare(len(annotation.classes), paper.get('classes'))} classes")
    return lines


def count_classes(annotation: Annotation, split: str) -> dict[str, int]:
    """The number of videos of each class in a split."""
    labels = Counter(n for clip in annotation.clips if clip.split == split for n in clip.labels)
    return {name: labels[name] for name in annotation.classes}


def _compare(count: int, paper: int | None) -> str:
    if paper is None:
        return f"{count:,}"
    if count == paper:
        return f"{count:,} (as in the paper)"
    difference = f"{abs(count - paper):,} {'fewer' if count < paper else 'more'}"
    return f"{count:,} ({difference} than the paper's {paper:,})"
