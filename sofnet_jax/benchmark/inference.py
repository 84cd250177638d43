"""Milliseconds per video, beside those that its GFLOPs allow, and beside PyTorch (Table 3)."""

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sofnet_jax.benchmark.stopwatch import interleave
from sofnet_jax.benchmark.workload import Workload, classify, run_loop, run_program
from sofnet_jax.host.errors import first_line
from sofnet_jax.inference.lockstep import Lockstep
from sofnet_jax.inference.lookahead import LookAhead
from sofnet_jax.inference.online import Recognizer, extract, see
from sofnet_jax.inference.pool import Pool
from sofnet_jax.systems.base import find_device
from sofnet_jax.systems.early_exit import NEVER, watch

BATCHES_OF_FRAMES = (2, 4, 16)  # of TSN
CHUNKS = (4, 8, 16)  # frames of a video whose layers run at once
QUEUE = 64  # videos in lockstep, about
ROUNDS = 2  # of measuring them
SINGLE = "TSN, a frame at a time"
OURS = "SoF-Net, the loop"
LOCKSTEP, BATCHES = "SoF-Net, many videos in lockstep", "TSN, many videos in batches"
POOL, PLAIN_POOL = "SoF-Net, many videos in a pool", "TSN, many videos in a pool"
MANY = 1024  # videos in a pool, about


def benchmark_inference(workloads: Iterable[Workload], repeats: int) -> Iterator[str]:
    """Measure TSN and SoF-Net on decoded videos, one at a time and many; yield lines."""
    for work in workloads:
        yield from _measure(work, repeats)
        yield from _measure_parts(work, repeats)


def measure_peak(dtype: DTypeLike) -> tuple[int, float]:
    """The side of large matrices, and the 10⁹ multiply–adds per second of their product."""
    side = 2048 if jax.devices()[0].platform == "cpu" else 8192
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(lambda x: x @ x)
    return side, side**3 / 1e9 / interleave({"": lambda: product(x)}, 10)[""]


def _measure(work: Workload, repeats: int) -> Iterator[str]:
    side, peak = measure_peak(work.network.dtype)
    others, remarks = _create_torch_programs(work)
    seconds = interleave(_create_programs(work) | others, repeats)
    times = {name: 1000 * s / len(work.videos) for name, s in seconds.items()}
    times |= _measure_many(work)
    tsn, spent = work.gflops
    ratio, allowed = spent / tsn, 1000 * tsn / peak
    *stopped, used, unseen = work.shares
    names = work.network.architecture.gate_names
    stops = ", ".join(f"{name} {share:.1f}" for name, share in zip(names, stopped, strict=True))
    yield (
        f"{work.name}, {work.size}×{work.size}, {work.num_frames / len(work.videos):g} frames, "
        f"{jnp.dtype(work.network.dtype)}, {jax.devices()[0].device_kind}; {used:.1f} % used, "
        f"stopped at {stops} %, {unseen:.1f} % never looked at; median of {repeats}"
    )
    yield f"  a product of {side}×{side} matrices runs at {peak:.0f} G multiply–adds a second"
    yield f"  GFLOPs a video (full): TSN {tsn:.2f}, SoF-Net {spent:.2f}, {ratio:.3f} of it"
    for name, time in times.items():
        yield f"    {name:<44} {time:8.1f} ms a video"
    fastest = min(time for name, time in times.items() if name.startswith("TSN"))
    for name, whole in (("a frame at a time", times[SINGLE]), ("at its fastest", fastest)):
        share = times[OURS] / whole
        yield (
            f"  the loop takes {share:.3f} of the time of TSN {name}, {share / ratio:.3f} × its "
            f"share of the GFLOPs; that TSN takes {whole / allowed:.2f} × what the product allows"
        )
    rate = times[BATCHES] / times[LOCKSTEP] * ratio
    yield (
        f"  lockstep has {rate:.3f} × the rate that TSN's batches and the GFLOPs give "
        f"(median of {ROUNDS})"
    )
    if POOL in times:
        best = min(times[PLAIN_POOL], fastest)
        yield (
            f"  the pool has {best / times[POOL] * ratio:.3f} × the rate that TSN's best one and "
            f"the GFLOPs give; TSN's is {1000 * work.num_frames / len(work.videos) / best:.0f} "
            f"frames a second"
        )
    rivals = [time for name, time in times.items() if name.startswith("PyTorch SoF-Net")]
    if rivals:
        yield f"  PyTorch's fastest loop takes {min(rivals) / times[OURS]:.2f} × ours"
    yield from remarks


def _create_programs(work: Workload) -> dict[str, Callable[[], Any]]:
    recognizer, videos = Recognizer(work.network, work.rule), work.videos
    programs: dict[str, Callable[[], Any]] = {SINGLE: lambda: _classify_all(work, 1)}
    for count in BATCHES_OF_FRAMES:
        programs[f"TSN, {count} frames at a time"] = functools.partial(_classify_all, work, count)
    if find_device(work.network).platform != "cpu":
        for count in CHUNKS:
            ahead = LookAhead(work.network, work.rule, count)
            programs[f"SoF-Net, layers of {count} frames at once"] = functools.partial(
                lambda ahead: [ahead.recognize(video) for video in videos], ahead
            )
    return programs | {
        "TSN, one program on the device": lambda: run_program(work.tsn, NEVER, videos),
        OURS: lambda: run_loop(recognizer, videos),
        "SoF-Net, one program on the device": lambda: run_program(work.network, work.rule, videos),
    }


def _classify_all(work: Workload, count: int) -> None:
    """Run TSN on all videos, `count` frames at a time."""
    for video in work.videos:
        for t in range(0, len(video), count):
            classify(work.tsn, video[t : t + count])


def _measure_many(work: Workload) -> dict[str, float]:
    """Milliseconds per video of many, in lockstep and by TSN in batches; off a CPU in a pool."""
    lockstep, tsn = Lockstep(work.network, work.rule), Lockstep(work.tsn)
    times = _time_many(work, QUEUE, {BATCHES: tsn, LOCKSTEP: lockstep})
    if find_device(work.network).platform != "cpu":
        pools = {PLAIN_POOL: Pool(work.tsn), POOL: Pool(work.network, work.rule)}
        times |= _time_many(work, MANY, pools)
    return times


def _time_many(
    work: Workload, count: int, recognizers: Mapping[str, Lockstep | Pool]
) -> dict[str, float]:
    videos = [*work.videos] * max(count // len(work.videos), 1)  # each equally often
    programs = {
        name: functools.partial(lambda each: dict(each.recognize(videos)), each)
        for name, each in recognizers.items()
    }
    return {name: 1000 * s / len(videos) for name, s in interleave(programs, ROUNDS).items()}


def _measure_parts(work: Workload, repeats: int) -> list[str]:
    """Split the time of a kept frame into that of the spans and that of their gates."""
    network, frame = work.network, work.videos[0][:1]
    state = watch(network, work.rule, jnp.full(1, -1), frame.shape[1:])
    state = jax.device_put(state, find_device(network))
    alone: dict[str, Callable[[], Any]] = {}
    gated: dict[str, Callable[[], Any]] = {}
    x: Any = jax.device_put(frame, find_device(network))
    for i, span in enumerate(network.spans):
        alone[span.name] = functools.partial(extract, network, i, x)
        gated[f"{span.name} and its gate"] = functools.partial(see, network, i, state, x)
        x, _ = extract(network, i, x)
    seconds = interleave(alone | gated, 10 * repeats)
    parts = []
    for name in alone:
        together = seconds[f"{name} and its gate"]
        parts.append(f"{name} {1000 * seconds[name]:.2f} + {1000 * (together - seconds[name]):.2f}")
    return [f"  a kept frame, ms of the stages and of their gates: {', '.join(parts)}"]


def _create_torch_programs(work: Workload) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """The ways to run PyTorch that work here, and a line for each that does not."""
    try:
        rival = importlib.import_module("sofnet_jax.benchmark.torch_network")
    except ImportError as error:
        return {}, [f"  PyTorch was not measured: {error}"]
    device = "cpu" if jax.devices()[0].platform == "cpu" else "cuda"
    ways: dict[str, tuple[Any, bool]] = {
        "eager": (rival.as_it_is, False),
        "eager, channels last": (rival.as_it_is, True),
        "frozen, channels last": (rival.frozen, True),
        "compiled, channels last": (rival.compiled, True),
    }
    if device == "cuda":
        ways |= {"CUDA graphs, channels last": (rival.graphed, True)}
    programs: dict[str, Callable[[], Any]] = {}
    remarks = []
    for way, (make, channels_last) in ways.items():
        create = functools.partial(
            rival.TorchRecognizer, make=make, channels_last=channels_last, device=device
        )
        try:
            gated = create(work.network, work.rule, example=work.videos[0][:1])
            plain = create(work.tsn, NEVER, example=work.videos[0])
            for video, stop in zip(work.videos, work.stops, strict=True):
                if gated.recognize(video)[0] != stop.tolist():
                    raise RuntimeError("it decides differently")
                plain.classify(video)
        except (RuntimeError, AssertionError) as error:  # the latter from a PyTorch without CUDA
            remarks.append(f"  PyTorch {way} was not measured: {first_line(error)}")
            continue
        programs[f"PyTorch TSN, {way}"] = _repeat(plain.classify, work.videos)
        programs[f"PyTorch SoF-Net, {way}"] = _repeat(gated.recognize, work.videos)
    return programs, remarks


def _repeat(function: Callable[[Any], Any], videos: Iterable[Any]) -> Callable[[], Any]:
    return lambda: [function(video) for video in videos]
