"""Milliseconds a video of trained networks beside each other, for Table 3 of a report."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sofnet_jax.benchmark.stopwatch import describe_host, interleave
from sofnet_jax.benchmark.workload import recognize
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_json
from sofnet_jax.inference.load import load
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.program import recognize as recognize_on_device
from sofnet_jax.report.collection import Collection, Run
from sofnet_jax.report.table3 import FILE, LOOP, PROGRAM
from sofnet_jax.training.experiment import create_experiment

METHODS = ("tsn", "sofnet", "sofnet_192", "sofnet_224", "sofnet_tsm")

_program = jax.jit(recognize_on_device, static_argnames="rule")


def benchmark_runtime(
    workdir: Path, collection: Collection, *, num_videos: int, repeats: int
) -> Iterator[str]:
    """Lines on every method of Table 3 that was trained; writes them to `workdir/runtime.json`.

    One video at a time, decoded before; with early termination. The first seed of each method.

    Raises:
        UserError: none can be measured.
    """
    programs: dict[tuple[str, str], Callable[[], Any]] = {}
    runs: dict[str, Run] = {}
    count = 0
    for method in METHODS:
        for run in collection.find(method)[:1]:
            try:
                model = load(run.folder)
                videos = _read_videos(run, num_videos)
            except UserError as error:
                yield f"{method} was not measured: {error}"
                continue
            runs[method], count = run, len(videos)
            for way, call in _create_ways(model, videos).items():
                programs[method, way] = call
    if not programs:
        raise UserError(f"{workdir} holds no run that can be measured; see sofnet_jax.sweep")
    names = {f"{method}, {way}": key for key in programs for method, way in [key]}
    seconds = interleave({name: programs[key] for name, key in names.items()}, repeats)
    times = {names[name]: 1000 * s / count for name, s in seconds.items()}
    host, device = describe_host(), jax.devices()[0].device_kind
    yield f"{host}; {device}; {count} videos, one at a time; median of {repeats}"
    for (method, way), time in times.items():
        yield f"  {method:<12} {way:<16} {time:8.2f} ms a video"
    content = {
        "dataset": collection.dataset,
        "host": host,
        "device": device,
        "videos": count,
        "repeats": repeats,
        "methods": {
            method: {
                "folder": str(run.folder),
                "seed": run.seed,
                "milliseconds": {way: times[method, way] for way in (LOOP, PROGRAM)},
            }
            for method, run in runs.items()
        },
    }
    write_json(workdir / FILE, content)


def _read_videos(run: Run, count: int) -> np.ndarray:
    """The first videos of validation, as the network is shown them."""
    experiment = create_experiment(run.restore_config())
    ids = [video.id for video in experiment.val_source.videos[:count]]
    return experiment.read_val_frames(ids)


def _create_ways(model: TrainedModel, videos: np.ndarray) -> dict[str, Callable[[], Any]]:
    recognizer = Recognizer(model.network, model.rule)
    return {
        LOOP: lambda: [recognize(recognizer, video) for video in videos],
        PROGRAM: functools.partial(_run_program, model, videos),
    }


def _run_program(model: TrainedModel, videos: np.ndarray) -> None:
    for video in videos:
        jax.block_until_ready(_program(model.network, video, model.rule))
