"""Prepare a data set of videos for fast training, or inspect one.

usage: python -m sofnet_jax.prepare NAME --annotations=FILES --videos=FOLDER --out=FOLDER [FLAGS]
       python -m sofnet_jax.prepare --inspect PREPARED [FLAGS]
example: python -m sofnet_jax.prepare videos --annotations=videos --videos=videos --out=data

NAME is activitynet, mini_kinetics, thumos14, mini_sports1m or videos (your own). FILES are its
annotation files, or a folder of them. Rerun the same command to resume. --inspect prints what a
prepared data set contains and draws samples with their crops; with NAME, --annotations and --videos
it does so before the preparation.
"""

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from absl import flags

from sofnet_jax.data.annotations.benchmark import BENCHMARKS, describe_counts, read_annotation
from sofnet_jax.data.annotations.clip import Annotation
from sofnet_jax.data.annotations.files import Notes
from sofnet_jax.data.prepared.contact_sheet import Sheet
from sofnet_jax.data.prepared.inspection import inspect_prepared, inspect_tasks
from sofnet_jax.data.prepared.library import Library, find_tasks, write_listing
from sofnet_jax.data.prepared.manifest import PROBLEMS, read_summaries
from sofnet_jax.data.prepared.preparation import (
    configure_beam,
    create_plan,
    describe_problems,
    prepare,
    show_progress,
)
from sofnet_jax.data.prepared.record import Format, Task
from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import CONFIG
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.lock import lock_folder
from sofnet_jax.host.paths import expand
from sofnet_jax.host.workers import count_cores
from sofnet_jax.run.config import create_default, require_fields

ANNOTATIONS = flags.DEFINE_list("annotations", [], "Files or folders, separated by commas.")
VIDEOS = flags.DEFINE_string("videos", "", "Folder that contains the videos, at any depth.")
OUT = flags.DEFINE_string("out", "", "Folder to write to; the data set becomes a folder in it.")
NUM_FRAMES = flags.DEFINE_integer("num_frames", 48, "Frames to store per video.", 1)
SHORT_SIDE = flags.DEFINE_integer("short_side", 256, "Pixels; larger videos are scaled.", 16)
QUALITY = flags.DEFINE_integer("quality", 90, "JPEG quality.", 1, 100)
WORKERS = flags.DEFINE_integer("workers", 0, "Number of processes; 0: one per core.", 0)
TIME_LIMIT = flags.DEFINE_float("time_limit", 600.0, "Seconds allowed per video.", 1.0)
BEAM = flags.DEFINE_string("beam", None, "Run on Apache Beam with these options.")
LIST = flags.DEFINE_bool("list", False, "Only write train.csv and val.csv, for data.source=videos.")
INSPECT = flags.DEFINE_bool("inspect", False, "Show what is there instead of preparing it.")
SHEET = flags.DEFINE_string("sheet", "contact_sheet.png", "With --inspect: picture to write.")
SEED = flags.DEFINE_integer("seed", 0, "With --inspect: seed of the choice of samples.", 0)
flags.declare_key_flag("config")


def main(argv: list[str]) -> None:
    """Read the annotations, find the videos, and prepare, list or show them."""
    if INSPECT.value and not ANNOTATIONS.value:
        if len(argv) != 2:
            raise UserError("name one data set: python -m sofnet_jax.prepare --inspect PREPARED")
        print("\n".join(inspect_prepared(Path(expand(argv[1])), _create_sheet())))
        return
    if len(argv) != 2 or argv[1] not in BENCHMARKS:
        given = " ".join(argv[1:])
        close = get_close_matches(given, BENCHMARKS, 1)
        hint = f"did you mean {close[0]}?" if close else f"this was {given or 'nothing'}"
        raise UserError(f"say what to prepare: one of {', '.join(BENCHMARKS)}; {hint}")
    _require(ANNOTATIONS, VIDEOS)
    annotation = read_annotation(argv[1], [Path(expand(path)) for path in ANNOTATIONS.value])
    print("\n".join([*describe_counts(annotation), *annotation.notes]), flush=True)
    tasks = find_tasks(annotation, Library(Path(expand(VIDEOS.value))))
    _require_some(annotation, tasks)
    if INSPECT.value:
        print("\n".join(inspect_tasks(tasks, annotation.classes, _create_sheet(), _workers())))
        return
    _require(OUT)
    out = Path(expand(OUT.value))
    if LIST.value:
        _write_listings(out / annotation.name, tasks, annotation.classes)
    else:
        _prepare(annotation, tasks, out)


def _create_sheet() -> Sheet:
    """The sheet to draw, with the crops of the configuration, if one is given."""
    data = require_fields(CONFIG.value or create_default()).data
    return Sheet(Path(expand(SHEET.value)), data.size, tuple(data.scales), SEED.value)


def _workers() -> int:
    return WORKERS.value or count_cores()


def _prepare(annotation: Annotation, tasks: Mapping[str, Sequence[Task]], out: Path) -> None:
    name = annotation.name
    beam = None if BEAM.value is None else configure_beam(BEAM.value)
    with lock_folder(out / name, "preparation"):
        plan = create_plan(
            name,
            tasks,
            annotation.classes,
            Format(NUM_FRAMES.value, SHORT_SIDE.value, QUALITY.value),
            out=out,
            num_workers=_workers(),
            time_limit=TIME_LIMIT.value,
        )
        try:
            with show_progress(plan) as on_video:
                watched = dataclasses.replace(plan, on_video=on_video)
                folder = prepare(name, watched, out, beam)
        except KeyboardInterrupt:
            print("finished videos are kept; rerun the same command to resume", file=sys.stderr)
            raise
    print("\n".join(describe_problems(folder)), flush=True)
    if not read_summaries(folder):
        raise UserError(f"{folder}: none of the videos could be read; see {folder / PROBLEMS}")
    print(f"prepared: {folder}; train with --config.data.prepared={shlex.quote(str(out / name))}")


def _write_listings(out: Path, tasks: Mapping[str, Sequence[Task]], classes: Sequence[str]) -> None:
    notes = Notes()
    trained = {label for task in tasks.get("train", ()) if task.path for label in task.labels}
    print(f"{len(trained):,} of {len(classes):,} classes have training videos and are kept")
    for split, all_tasks in tasks.items():
        part = []
        for task in all_tasks:
            if task.path is None or trained.issuperset(task.labels):
                part.append(task)
            else:
                notes.add("validation videos of classes without training videos, left out", task.id)
        path = out / f"{split}.csv"
        try:
            count = write_listing(path, part, classes, notes)
        except OSError as error:
            raise UserError(f"cannot write to {path}: {error.strerror or error}") from error
        print(f"{path}: {count:,} of {len(part):,} videos")
    print("".join(f"{line}\n" for line in notes.lines()), end="")


def _require(*values: flags.FlagHolder) -> None:
    for flag in values:
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; see --help")


def _require_some(annotation: Annotation, tasks: Mapping[str, Sequence[Task]]) -> None:
    """Raise UserError if no annotated video was found."""
    if any(task.path for part in tasks.values() for task in part):
        return
    first = annotation.clips[0]
    hint, above = "", Path(expand(VIDEOS.value)).parent
    if first.path is not None and (above / first.path).is_file():
        hint = f"; give --videos={above}"
    raise UserError(
        f"{VIDEOS.value}: none of the {len(annotation.clips):,} annotated videos is in it; looked "
        f"for files such as {first.path or f'{first.id}.mp4'}{hint}"
    )


if __name__ == "__main__":
    command_line.run(main)
