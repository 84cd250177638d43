"""Engines beside each other: TSN and SoF-Net in the loop, and as one program, on a CPU."""

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sofnet_jax.benchmark.forced_gates import draw_pictures, force
from sofnet_jax.benchmark.hand_loop import HandLoop, create_span_models
from sofnet_jax.benchmark.stopwatch import Times, describe_load, time_in_turn
from sofnet_jax.benchmark.workload import Workload, classify, run_loop, run_program
from sofnet_jax.engines.registry import ENGINES, find_engine, use_engine
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.int8 import compute_ranges
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.portable import write_video_model
from sofnet_jax.systems.base import Network
from sofnet_jax.systems.early_exit import NEVER

TSN, LOOP, TSN_PROGRAM, PROGRAM = "TSN", "loop", "TSN, one program", "one program"
BY_HAND = "a loop by hand"
Program = Callable[[], Any]


class Way(NamedTuple):
    """A row of the table."""

    engine: str
    dtype: str
    name: str


def benchmark_engines(work: Workload, repeats: int) -> Iterator[str]:
    """Measure all engines on a float32 workload, interleaved; yield lines.

    Every program first has to decide as the workload's own loop does.
    """
    load = describe_load()
    programs, remarks = _create_programs(work)
    times = {
        way: each.scale(1000 / len(work.videos))
        for way, each in time_in_turn(programs, repeats).items()
    }
    tsn, spent = work.gflops
    yield (
        f"{work.name}, {work.size}×{work.size}: GFLOPs a video (full) {tsn:.2f} and {spent:.2f}, "
        f"{spent / tsn:.3f} of it; ms a video, best and median of {repeats} in turn; {load}"
    )
    for way, each in times.items():
        name = f"{way.engine} {way.dtype}, {way.name}"
        mark = "" if each.is_steady else "  unsteady"
        yield f"    {name:<56} {each.best:7.1f} {each.median:7.1f}{mark}"
    yield from _compare(times, spent / tsn)
    yield from remarks


def _compare(times: Mapping[Way, Times], ratio: float) -> Iterator[str]:
    for way, own in times.items():
        whole = {LOOP: TSN, PROGRAM: TSN_PROGRAM}.get(way.name)
        if plain := times.get(way._replace(name=whole or "")):
            yield (
                f"  {way.engine} {way.dtype}: the {way.name} takes {own.best / plain.best:.3f} of "
                f"TSN's time, {own.best / plain.best / ratio:.3f} × its share of the GFLOPs "
                f"(medians {own.median / plain.median / ratio:.3f})"
            )
    loops = {way: own.best for way, own in times.items() if way.name in (LOOP, BY_HAND)}
    ours = {way: best for way, best in loops.items() if way.name == LOOP}
    single = {way: best for way, best in ours.items() if way.dtype == "float32"}
    rivals = {way: best for way, best in loops.items() if way.name == BY_HAND}
    fastest = min(single, key=lambda way: single[way])
    yield f"  the fastest loop in float32 is {fastest.engine}'s"
    if rivals:
        yield f"  the fastest by hand takes {min(rivals.values()) / single[fastest]:.2f} × as long"
    for way, best in ours.items():
        if way.dtype != "float32":
            yield f"  {way.engine} in {way.dtype} is {single[fastest] / best:.2f} × as fast"


def _create_programs(work: Workload) -> tuple[dict[Way, Program], list[str]]:
    """The programs to measure, and a remark for each engine that cannot run."""
    jax = functools.partial(Way, "jax", "float32")
    programs: dict[Way, Program] = {
        jax(TSN): functools.partial(_classify, work.tsn, work.videos),
        jax(LOOP): _create_loop(work, work.network),
        jax(TSN_PROGRAM): functools.partial(run_program, work.tsn, NEVER, work.videos),
        jax(PROGRAM): functools.partial(run_program, work.network, work.rule, work.videos),
    }
    remarks = []
    with tempfile.TemporaryDirectory() as folder:
        models = _export(work, Path(folder))
        for name in ENGINES:
            try:
                for dtype in find_engine(name).dtypes:
                    programs |= _create_engine_programs(work, name, dtype, models)
            except UserError as error:
                remarks.append(f"  {name} was not measured: {error}")
    return programs, remarks


class _Models(NamedTuple):
    """ONNX: whole videos with TSN and with SoF-Net, and SoF-Net's spans."""

    tsn: bytes
    sofnet: bytes
    spans: list[bytes]


def _export(work: Workload, folder: Path) -> _Models:
    tsn, sofnet = folder / "tsn.onnx", folder / "sofnet.onnx"
    write_video_model(tsn, work.tsn, NEVER, work.size, {})
    write_video_model(sofnet, work.network, work.rule, work.size, {})
    return _Models(tsn.read_bytes(), sofnet.read_bytes(), create_span_models(work.network))


def _create_engine_programs(
    work: Workload, name: str, dtype: str, models: _Models
) -> dict[Way, Program]:
    way, engine = functools.partial(Way, name, dtype), find_engine(name)
    if dtype == "int8":
        network, tsn = _create_int8_networks(work, name)
    else:
        network, tsn = (use_engine(each, name, dtype) for each in (work.network, work.tsn))
    programs: dict[Way, Program] = {
        way(TSN): functools.partial(_classify, tsn, work.videos),
        way(LOOP): _create_loop(work, network),
    }
    _require_same(work, programs[way(LOOP)](), f"the loop in {name}, {dtype}")
    if dtype == "int8":  # programs are not written in it
        return programs
    whole, plain = (engine.compile(model, dtype) for model in (models.sofnet, models.tsn))
    programs |= {
        way(TSN_PROGRAM): lambda: [plain([video]) for video in work.videos],
        way(PROGRAM): lambda: [whole([video])[2] for video in work.videos],
    }
    if dtype == "float32":
        by_hand = HandLoop(
            work.network, work.rule, [engine.compile(m, dtype) for m in models.spans]
        )
        programs[way(BY_HAND)] = lambda: [by_hand.recognize(video) for video in work.videos]
        _require_same(work, programs[way(BY_HAND)](), f"the loop by hand in {name}")
    found = [actions[actions >= 0] for actions in programs[way(PROGRAM)]()]
    _require_same(work, found, f"one program in {name}, {dtype}")
    return programs


def _create_int8_networks(work: Workload, name: str) -> tuple[Network, Network]:
    """SoF-Net and TSN in int8, with ranges of the videos themselves, and gates forced anew.

    The pictures' features after random layers are so much alike that int8 could confuse them.
    """
    network, ranges = work.network, compute_ranges(work.network, work.videos)
    rounded = use_engine(network, name, "int8", ranges)
    forced = force(network, draw_pictures(work.size), rounded)
    tsn = use_engine(work.tsn, name, "int8", compute_ranges(work.tsn, work.videos))
    return use_engine(forced, name, "int8", ranges), tsn


def _create_loop(work: Workload, network: Network) -> Program:
    recognizer = Recognizer(network, work.rule)
    return lambda: [r.trace.action for r in run_loop(recognizer, work.videos)]


def _classify(tsn: Network, videos: Any) -> None:
    """TSN on one frame after another."""
    for video in videos:
        for t in range(len(video)):
            classify(tsn, video[t : t + 1])


def _require_same(work: Workload, found: list[np.ndarray], what: str) -> None:
    """Raises UserError if other decisions were made."""
    if [each.tolist() for each in found] != [stop.tolist() for stop in work.stops]:
        raise UserError(f"{what} decides differently")
