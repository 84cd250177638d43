"""From annotations and a folder of videos to a prepared data set."""

import contextlib
import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from tqdm import tqdm

from sofnet_jax.data.prepared.builders import FrameBuilder, Plan
from sofnet_jax.data.prepared.dataset import list_all_videos
from sofnet_jax.data.prepared.manifest import ABOUT, PROBLEMS, read_problems, read_shard_names
from sofnet_jax.data.prepared.record import KINDS, Format, Task
from sofnet_jax.data.prepared.shards import plan_shards
from sofnet_jax.host.beam import create_runner
from sofnet_jax.host.errors import UserError

_UNFINISHED = ".unfinished"  # folder of the shards until all are written


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
    """Divide the tasks into shards."""
    folder = out / name / _UNFINISHED
    shards = {split: plan_shards(split, part, form, folder) for split, part in tasks.items()}
    missing = {split: [task.id for task in part if not task.path] for split, part in tasks.items()}
    return Plan(tuple(classes), form, shards, missing, num_workers, time_limit)


def prepare(
    name: str, plan: Plan, out: Path, beam: tfds.download.DownloadConfig | None = None
) -> Path:
    """Write the data set, or resume writing it, and return its folder.

    With `beam` (`configure_beam`) its runner does the work, without it this machine.
    Raises UserError if the folder holds something else, is damaged, or cannot be written to.
    """
    folder = out / name / str(FrameBuilder.VERSION)
    unfinished = out / name / _UNFINISHED
    if not _is_prepared(folder, plan):
        for abandoned in folder.parent.glob(f"incomplete.*_{folder.name}"):
            shutil.rmtree(abandoned, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True, exist_ok=True)
            builder = FrameBuilder(name, plan=plan, data_dir=str(out))
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS narrates
                # There is nothing to download, but TFDS creates the folder.
                builder.download_and_prepare(
                    download_dir=str(unfinished / "downloads"), download_config=beam
                )
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    shutil.rmtree(unfinished, ignore_errors=True)
    return folder


@contextlib.contextmanager
def show_progress(plan: Plan) -> Iterator[Callable[[int], None]]:
    """Show a bar with the videos done, their rate and the time left; yield `Plan.on_video`."""
    total = sum(len(shard.tasks) for shard in plan.all_shards)
    with tqdm(total=total, desc="Preparing", unit="video", disable=None, smoothing=0.05) as bar:

        def on_video(count: int) -> None:
            if not bar.n and count > 1:  # done before, so not part of the rate
                bar.initial = count
            bar.update(count)

        yield on_video


def describe_problems(folder: Path) -> list[str]:
    """A table of the problems by kind and split, with an example of each.

    Raises UserError.
    """
    rows = read_problems(folder)
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


def _is_prepared(folder: Path, plan: Plan) -> bool:
    """Whether the folder holds the planned data; False if there is none. Raises UserError."""
    if not folder.exists():
        return False
    if not (folder / ABOUT).is_file():
        raise UserError(f"{folder} exists, but was not prepared here; choose another --out")
    if read_shard_names(folder) != plan.shard_names:
        raise UserError(
            f"{folder} was prepared from other files, annotations or settings than those given "
            "now; delete it, or choose another --out"
        )
    list_all_videos(folder)  # checks every file but the one that is read next
    read_problems(folder)
    return True


def configure_beam(options: str) -> tfds.download.DownloadConfig:
    """Convert options of Apache Beam to TFDS's form. Raises UserError."""
    runner, parsed = create_runner(options)
    return tfds.download.DownloadConfig(beam_runner=runner, beam_options=parsed)
