"""From annotations and a folder of videos to a prepared data set."""

import contextlib
import csv
import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from tqdm import tqdm

from sofnet_jax.data.prepared.builders import (
    ABOUT,
    PROBLEM_COLUMNS,
    PROBLEMS,
    ActivityNet,
    FrameBuilder,
    MiniKinetics,
    MiniSports1M,
    Plan,
    Thumos14,
    Videos,
    names,
)
from sofnet_jax.data.prepared.dataset import list_all_videos
from sofnet_jax.data.prepared.manifest import read_plan, suggest_anew
from sofnet_jax.data.prepared.record import KINDS, Format, Task
from sofnet_jax.data.prepared.shards import plan_shards
from sofnet_jax.host.beam import create_runner
from sofnet_jax.host.errors import UserError

BUILDERS: dict[str, type[FrameBuilder]] = {
    builder.name: builder for builder in (ActivityNet, MiniKinetics, Thumos14, MiniSports1M, Videos)
}
_UNFINISHED = ".unfinished"  # folder of the shards until all of them are there


def create_plan(
    name: str,
    tasks: Mapping[str, Sequence[Task]],
    classes: Sequence[str],
    form: Format,
    *,
    out: Path,
    num_workers: int,
    time_limit: float,
) -> Plan:
    """Divides the tasks over shards."""
    reports = out / name / _UNFINISHED
    shards = {split: plan_shards(split, part, form, reports) for split, part in tasks.items()}
    missing = {split: [task.id for task in part if not task.path] for split, part in tasks.items()}
    return Plan(tuple(classes), form, shards, missing, num_workers, time_limit)


def prepare(
    name: str, plan: Plan, out: Path, beam: tfds.download.DownloadConfig | None = None
) -> Path:
    """Writes the data set, or what is missing of it, and returns its folder.

    `beam` is of `configure_beam`, whose runner then does the work; None is this machine.
    Raises UserError if the folder holds something else, is damaged, or cannot be written to.
    """
    folder = out / name / str(BUILDERS[name].VERSION)
    if not _is_prepared(folder, plan):
        _write(name, plan, out, folder, beam)
    shutil.rmtree(out / name / _UNFINISHED, ignore_errors=True)
    return folder


def _write(
    name: str,
    plan: Plan,
    out: Path,
    folder: Path,
    config: tfds.download.DownloadConfig | None,
) -> None:
    for abandoned in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(abandoned, ignore_errors=True)
    try:
        (out / name / _UNFINISHED).mkdir(parents=True, exist_ok=True)
        builder = BUILDERS[name](plan=plan, data_dir=str(out))
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS narrates
            builder.download_and_prepare(  # there is nothing to download, but TFDS makes the folder
                download_dir=str(out / name / _UNFINISHED / "downloads"), download_config=config
            )
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def show_progress(plan: Plan) -> Iterator[Callable[[int], None]]:
    """A bar with the videos that are done, a rate, and the time left; gives `Plan.on_video`."""
    total = sum(len(shard.tasks) for shard in plan.all_shards)
    with tqdm(total=total, desc="Preparing", unit="video", disable=None, smoothing=0.05) as bar:

        def on_video(count: int) -> None:
            if not bar.n and count > 1:  # were done before: no part of the rate
                bar.initial = count
            bar.update(count)

        yield on_video


def describe_problems(folder: Path) -> list[str]:
    """A table of what was wrong with the videos, by kind and split, with an example of each.

    Raises UserError.
    """
    rows = _read_problems(folder)
    if not rows:
        return ["every video was found and read"]
    splits = sorted({row["split"] for row in rows})
    counts = Counter((row["kind"], row["split"]) for row in rows)
    lines = [f"{'':<12}" + "".join(f"{split:>8}" for split in splits)]
    for kind, meaning in KINDS.items():
        found = [row for row in rows if row["kind"] == kind]
        if found:
            cells = "".join(f"{counts[kind, split]:>8,}" for split in splits)
            lines.append(f"{kind:<12}{cells}  {meaning}; such as {found[0]['id']}")
    return [*lines, f"all of them: {folder / PROBLEMS}"]


def _read_problems(folder: Path) -> list[dict[str, str]]:
    path = folder / PROBLEMS
    with suggest_anew(folder):
        try:
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                header, *rows = csv.reader(file, strict=True)
                if tuple(header) != PROBLEM_COLUMNS:
                    raise ValueError(header)
                return [dict(zip(PROBLEM_COLUMNS, row, strict=True)) for row in rows]
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        except (csv.Error, ValueError) as error:
            raise UserError(f"{path}: damaged") from error


def _is_prepared(folder: Path, plan: Plan) -> bool:
    """Whether the folder holds what is planned; False if there is nothing. Raises UserError."""
    if not folder.exists():
        return False
    if not (folder / ABOUT).is_file():
        raise UserError(f"{folder} exists, but was not prepared here; choose another --out")
    if read_plan(folder) != names(plan):
        raise UserError(
            f"{folder} was prepared from other files, annotations or settings than those given "
            "now; delete it, or choose another --out"
        )
    list_all_videos(folder)  # which looks at every file but the one that is read next
    _read_problems(folder)
    return True


def configure_beam(options: str) -> tfds.download.DownloadConfig:
    """Options of Apache Beam as TFDS takes them. Raises UserError."""
    runner, parsed = create_runner(options)
    return tfds.download.DownloadConfig(beam_runner=runner, beam_options=parsed)
