"""How fast videos are prepared and read, and whether speed and memory stay constant."""

import contextlib
import functools
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sofnet_jax.benchmark.stopwatch import describe_tenths, interleave
from sofnet_jax.benchmark.videos import RATE, write_video
from sofnet_jax.data.pipeline import SCALES, create_train_iterator
from sofnet_jax.data.prepared.dataset import PreparedVideo, list_videos, read_record
from sofnet_jax.data.prepared.preparation import create_plan, prepare
from sofnet_jax.data.prepared.record import Format, Task, create_record, serialise
from sofnet_jax.data.source import Source
from sofnet_jax.data.video.jpeg import decode_jpegs, to_rgb
from sofnet_jax.data.views import Look, centre_view, random_view
from sofnet_jax.host.memory import read_memory
from sofnet_jax.host.workers import count_cores

FORM = Format(num_frames=16, short_side=256, quality=90)
DIFFERENT = 64  # videos
SIZES = (168, 224)
BATCH = 20
TENTHS = 10
# Seconds, width, height and x264's constant rate factor. They give 430 to 540 kbit/s and 1.7
# Mbit/s, as in common data sets, whose small videos were scaled down.
KINDS = ((10, 340, 256, 17), (120, 320, 240, 17), (120, 1280, 720, 23))


def benchmark_pipeline(repeats: int, num_videos: int) -> list[str]:
    """Measure preparing videos, a core's frames per second, and an epoch; return lines.

    A few videos are used repeatedly, so the disk is not measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        different = _create_videos(Path(folder))
        videos = list(itertools.islice(itertools.cycle(different), num_videos))
        return [
            *_measure_preparation(Path(folder), repeats),
            *_measure_reading(different[:8], repeats),
            *_measure_epoch(Source(videos, ("a", "b"))),
        ]


def _measure_reading(videos: Sequence[PreparedVideo], repeats: int) -> list[str]:
    """Frames per second of a core, beside the JPEG codec alone on the same frames."""
    records = [read_record(video)["frames"] for video in videos]
    count = len(records) * FORM.num_frames
    codec = "the codec alone, to RGB"
    functions: dict[str, Callable[[], Any]] = {
        codec: lambda: [to_rgb(decode_jpegs(images)) for images in records],
        "Pillow alone, to RGB": lambda: [
            np.asarray(Image.open(io.BytesIO(image))) for images in records for image in images
        ],
    }
    rng = np.random.default_rng(0)
    for size in SIZES:
        test = functools.partial(centre_view, size=size)
        train = functools.partial(random_view, size=size, rng=rng, scales=SCALES, flip=True)
        functions[f"read, cropped to {size} for testing"] = functools.partial(_read, videos, test)
        functions[f"read, cropped to {size} for training"] = functools.partial(_read, videos, train)
    seconds = interleave(functions, repeats)
    kilobytes = np.mean([len(image) for images in records for image in images]) / 1000
    return [
        f"prepared frames of 456×256, {kilobytes:.1f} kB each, one core:",
        *(
            f"  {name:<38} {count / s:7.0f} frames/s  {s / seconds[codec]:5.2f} × the codec's time"
            for name, s in seconds.items()
        ),
    ]


def _read(videos: Sequence[PreparedVideo], look: Look) -> None:
    for video in videos:
        video.read(np.arange, look)


def _measure_epoch(source: Source) -> list[str]:
    """Rate and memory of the pipeline by tenths of an epoch."""
    workers, steps = count_cores(), len(source) // BATCH // TENTHS
    batches = create_train_iterator(
        source,
        batch_size=BATCH,
        num_frames=FORM.num_frames,
        size=SIZES[0],
        seed=0,
        num_workers=workers,
    )
    rates, memory = [], []
    with contextlib.closing(batches):
        next(batches)  # starts the workers
        for _ in range(TENTHS):
            start = time.perf_counter()
            frames = sum(batch["frames"].shape[0] for batch in itertools.islice(batches, steps))
            rates.append(frames * FORM.num_frames / (time.perf_counter() - start))
            memory.append(sum(read_memory(pid) for pid in _find_family()) / 2**20)
    return [
        f"{len(source):,} videos through {workers} workers, by tenths of the epoch:",
        *describe_tenths({"frames/s": rates, "MiB": memory}, 0),
        f"  the last tenth is {rates[-1] / rates[0]:.2f} × as fast as the first, and has "
        f"{memory[-1] / memory[0]:.2f} × its memory",
    ]


def _find_family() -> list[int]:
    """This process and its descendants."""
    family = [os.getpid()]
    for parent in family:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            family += map(int, task.read_text().split())
    return family


def _create_videos(folder: Path) -> list[PreparedVideo]:
    paths = [folder / "videos" / f"{i}.mp4" for i in range(DIFFERENT)]
    for seed, path in enumerate(paths):
        write_video(path, frames=FORM.num_frames, width=456, height=256, seed=seed)
    tasks = {"train": [Task(str(i), (i % 2,), str(path)) for i, path in enumerate(paths)]}
    out = folder / "prepared"
    plan = create_plan(
        "videos", tasks, ("a", "b"), FORM, out=out, num_workers=count_cores(), time_limit=600.0
    )
    return list_videos(prepare("videos", plan, out), "train")


def _measure_preparation(folder: Path, repeats: int) -> list[str]:
    """A core's seconds and the bytes for a video, and for a thousand."""
    lines = ["preparing a video, 48 frames, short side 256, JPEG quality 90, one core:"]
    for seconds, width, height, crf in KINDS:
        path = folder / f"{seconds}_{width}.mp4"
        write_video(path, frames=seconds * RATE, width=width, height=height, crf=crf)
        task = Task("0", (0,), str(path))
        size = len(_prepare(task))
        took = interleave({"": functools.partial(_prepare, task)}, min(repeats, 5))[""]
        lines.append(
            f"  {seconds:4d} s, {f'{width}×{height}':>8}, {path.stat().st_size / 1e6:4.1f} MB"
            f"{took:7.2f} s {size / 1e6:5.2f} MB; a thousand {took / 3.6:5.2f} hours of a core, "
            f"{size / 1e6:5.2f} GB"
        )
    return lines


def _prepare(task: Task) -> bytes:
    record = create_record(task, Format(48, 256, 90)).record
    assert record is not None
    return serialise(record, ("a",))
