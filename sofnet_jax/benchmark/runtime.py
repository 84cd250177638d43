"""Milliseconds per video of a sweep's networks, for Table 3 of its report."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

from sofnet_jax.benchmark.stopwatch import describe_host, interleave
from sofnet_jax.benchmark.workload import run_loop, run_program
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_json
from sofnet_jax.inference.load import load
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.report.collection import Collection, Run
from sofnet_jax.report.runtime import FILE, LOOP, PROGRAM
from sofnet_jax.training.experiment import Experiment

_OF_TABLE_3 = ("tsn", "sofnet", "sofnet_192", "sofnet_224", "sofnet_tsm")
METHODS = (*_OF_TABLE_3, "frameexit", "frameexit_online")


def benchmark_runtime(collection: Collection, *, num_videos: int, repeats: int) -> Iterator[str]:
    """Measure the first run of every such method; write runtime.json.

    Videos are decoded before and run one at a time, with early exit. Yields lines of text.
    Raises UserError if no run can be measured.
    """
    programs: dict[tuple[str, str], Callable[[], Any]] = {}
    runs: dict[str, Run] = {}
    count = 0
    for method in METHODS:
        for run in collection.find(method)[:1]:
            try:
                model = load(run.folder)
                evaluator = Experiment(run.restore_config()).evaluator
                chosen = evaluator.source.videos[:num_videos]
                videos = evaluator.read_frames([video.id for video in chosen])
            except UserError as error:
                yield f"{method} was not measured: {error}"
                continue
            runs[method], count = run, len(videos)
            recognizer = Recognizer(model.network, model.rule)
            programs[method, LOOP] = functools.partial(run_loop, recognizer, videos)
            programs[method, PROGRAM] = functools.partial(
                run_program, model.network, model.rule, videos
            )
    if not programs:
        raise UserError(
            f"{collection.folder} holds no run that can be measured; see sofnet_jax.sweep"
        )
    times = {key: 1000 * s / count for key, s in interleave(programs, repeats).items()}
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
    write_json(collection.folder / FILE, content)
