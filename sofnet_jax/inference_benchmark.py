"""Milliseconds for a video, beside those that its GFLOPs allow, and beside PyTorch (Table 3)."""

import functools
import importlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from sofnet_jax.architecture import Architecture, create_architecture
from sofnet_jax.flops import Cost, compute_costs
from sofnet_jax.forced_network import RULE, create_videos, draw_pictures, force
from sofnet_jax.inference.deploy import deploy
from sofnet_jax.inference.lockstep import Lockstep
from sofnet_jax.inference.network import Network
from sofnet_jax.inference.online import Recognizer, run
from sofnet_jax.inference.program import recognize
from sofnet_jax.models.sofnet import SoFNet
from sofnet_jax.stopwatch import interleave

BACKBONE, CLASSES, FRAMES = "resnet50", 200, 16
SIZES = (168, 192, 224)
TOGETHER = (1, 4, FRAMES)  # frames of TSN that go through the network at a time
QUEUE = 64  # videos in lockstep
OURS = "SoF-Net, the loop"

_program = jax.jit(recognize, static_argnames="rule")


@dataclass(frozen=True)
class Workload:
    """Networks of the same weights, and videos.

    `fates` are the pictures that each is made of, and what becomes of them.
    """

    sofnet: Network
    tsn: Network
    pictures: UInt8[np.ndarray, "p size size 3"]
    fates: Int[np.ndarray, "v t"]

    @property
    def videos(self) -> list[UInt8[np.ndarray, "t size size 3"]]:
        """The frames of every video."""
        return [self.pictures[fate] for fate in self.fates]


def benchmark_inference(repeats: int) -> list[str]:
    """Lines on TSN and SoF-Net at several sizes, one video at a time and many; decoding apart."""
    peak = measure_peak()
    lines = [f"a product of 2048×2048 matrices runs at {peak:.0f} G multiply–adds a second"]
    for size in SIZES:
        lines += _measure(create_workload(size), size, peak, repeats)
    return lines


def create_workload(size: int, dtype: Any = jnp.float32, winograd: bool | None = None) -> Workload:
    """Random weights, and gates that know the pictures."""
    architecture = create_architecture(BACKBONE, num_classes=CLASSES, gates=(1, 2, 3, 4, 5))
    shape = jax.ShapeDtypeStruct((1, 1, size, size, 3), np.uint8)
    model = SoFNet(architecture)
    variables = jax.jit(lambda key: model.init(key, jnp.zeros(shape.shape, shape.dtype)))(
        jax.random.key(0)
    )
    pictures = draw_pictures(7, size)
    network = deploy(architecture, variables, dtype=dtype, winograd=winograd)
    network = force(network, pictures)
    ungated = replace(architecture, gates=())
    tsn = deploy(ungated, variables, dtype=dtype, winograd=winograd)
    tsn = replace(tsn, head=network.head)
    return Workload(network, tsn, pictures, create_videos(FRAMES))


def measure_peak(side: int = 2048) -> float:
    """10⁹ multiply–adds a second of a large matrix product in float32."""
    x = jnp.ones((side, side))
    product = jax.jit(lambda x: x @ x)
    return side**3 / 1e9 / interleave({"": lambda: product(x)}, 10)[""]


def _measure(work: Workload, size: int, peak: float, repeats: int) -> list[str]:
    architecture, fates = work.sofnet.architecture, work.fates
    _, cost = compute_costs(architecture, size)
    _, plain = compute_costs(replace(architecture, gates=()), size)
    programs = _create_programs(work)
    others, remarks = _create_torch_programs(work, size)
    seconds = interleave(programs | others, repeats)
    milliseconds = {name: 1000 * s / len(fates) for name, s in seconds.items()}
    lockstep, batched = _measure_many(work)
    milliseconds |= {
        f"TSN, {QUEUE} videos in batches": batched,
        f"SoF-Net, {QUEUE} videos in lockstep": lockstep,
    }
    spent = _compute_gflops(cost, fates)
    full = plain.whole * FRAMES
    tsn = min(ms for name, ms in milliseconds.items() if name.startswith("TSN, a frame"))
    ratio = spent / full
    lines = [
        f"{BACKBONE}, {size}×{size}, {FRAMES} frames, float32, {jax.devices()[0].device_kind}; "
        f"{_describe(architecture, fates)}; median of {repeats}",
        f"  GFLOPs a video (full): TSN {full:.2f}, SoF-Net {spent:.2f}, {ratio:.3f} of it",
        *(f"    {name:<44} {ms:8.1f} ms a video" for name, ms in milliseconds.items()),
    ]
    fastest = min(ms for name, ms in milliseconds.items() if name.startswith("TSN"))
    lines += [
        f"  the loop takes {milliseconds[OURS] / tsn:.3f} of TSN's time a frame at a time, "
        f"{milliseconds[OURS] / tsn / ratio:.3f} × its share of the GFLOPs",
        f"  the loop takes {milliseconds[OURS] / fastest:.3f} of TSN's shortest time, "
        f"{milliseconds[OURS] / fastest / ratio:.3f} × its share of the GFLOPs",
        f"  TSN's shortest time is {fastest / (1000 * full / peak):.2f} × what the product's rate "
        f"allows; a frame at a time {tsn / (1000 * full / peak):.2f} ×",
        f"  lockstep has {batched / lockstep * ratio:.3f} × the rate that TSN's batches and the "
        "GFLOPs give",
    ]
    rivals = [ms for name, ms in milliseconds.items() if name.startswith("PyTorch SoF-Net")]
    if rivals:
        lines.append(
            f"  PyTorch's fastest loop takes {min(rivals) / milliseconds[OURS]:.2f} × ours"
        )
    return lines + remarks


def _create_programs(work: Workload) -> dict[str, Callable[[], Any]]:
    gated = Recognizer(work.sofnet, RULE)
    programs: dict[str, Callable[[], Any]] = {}
    for count in TOGETHER:
        name = "TSN, a frame at a time" if count == 1 else f"TSN, {count} frames at a time"
        programs[name] = functools.partial(_classify_all, work, count)
    programs[OURS] = lambda: [recognize_online(gated, video) for video in work.videos]
    programs["SoF-Net, one program on the device"] = lambda: [
        jax.block_until_ready(_program(work.sofnet, video, RULE)) for video in work.videos
    ]
    return programs


def recognize_online(recognizer: Recognizer, video: UInt8[np.ndarray, "t h w 3"]) -> Any:
    """A video through the loop."""
    recognizer.reset()
    for frame in video:
        if recognizer.step(frame).ended:
            break
    return recognizer.result()


def _classify_all(work: Workload, together: int) -> None:
    """TSN on all videos, so many frames at a time."""
    for video in work.videos:
        for t in range(0, len(video), together):
            _, pooled = run(work.tsn.spans[0], video[t : t + together])
            np.asarray(run(work.tsn.head, pooled))


def _measure_many(work: Workload) -> tuple[float, float]:
    """Milliseconds a video in lockstep, and of TSN in its batches; of two measurements the less."""
    videos = list(itertools.islice(itertools.cycle(work.videos), QUEUE))
    lockstep, tsn = Lockstep(work.sofnet, RULE), Lockstep(work.tsn)
    seconds = interleave(
        {"": lambda: dict(lockstep.recognize(videos)), "tsn": lambda: dict(tsn.recognize(videos))},
        2,
    )
    return 1000 * seconds[""] / QUEUE, 1000 * seconds["tsn"] / QUEUE


def _create_torch_programs(
    work: Workload, size: int
) -> tuple[dict[str, Callable[[], Any]], list[str]]:
    """PyTorch's ways that work here, and a line for each that does not."""
    try:
        rival = importlib.import_module("sofnet_jax.torch_network")
    except ImportError as error:
        return {}, [f"  PyTorch was not measured: {error}"]
    plain = create_workload(size, winograd=False)
    ways: Mapping[str, tuple[Any, bool]] = {
        "eager": (rival.as_it_is, False),
        "eager, channels last": (rival.as_it_is, True),
        "frozen, channels last": (rival.frozen, True),
        "compiled, channels last": (rival.compiled, True),
    }
    programs: dict[str, Callable[[], Any]] = {}
    remarks = []
    for way, (make, channels_last) in ways.items():
        create = functools.partial(
            rival.TorchRecognizer, make=make, channels_last=channels_last, size=size
        )
        try:
            sofnet, tsn = create(plain.sofnet, RULE), create(plain.tsn, RULE)
            for video, fate in zip(work.videos, work.fates, strict=True):
                _require_same(sofnet.recognize(video).stop, fate)
                tsn.classify(video)
        except RuntimeError as error:
            remarks.append(f"  PyTorch {way} was not measured: {str(error).splitlines()[0]}")
            continue
        programs[f"PyTorch TSN, {way}"] = functools.partial(
            lambda net: [net.classify(video) for video in work.videos], tsn
        )
        programs[f"PyTorch SoF-Net, {way}"] = functools.partial(
            lambda net: [net.recognize(video) for video in work.videos], sofnet
        )
    return programs, remarks


def _require_same(stop: Int[np.ndarray, "t"], fate: Int[np.ndarray, "t2"]) -> None:
    if stop.tolist() != _meant(fate).tolist():
        raise RuntimeError("it decides otherwise")


def _meant(fate: Int[np.ndarray, "t"]) -> Int[np.ndarray, "t2"]:
    """Where the frames of a video stop that are looked at: a 6 is kept, and the last of them."""
    return np.minimum(fate[: int(np.argmax(fate == 6)) + 1], 5)


def _compute_gflops(cost: Cost, fates: Int[np.ndarray, "v t"]) -> float:
    return float(np.mean([cost.by_stop[_meant(fate)].sum() for fate in fates]))


def _describe(architecture: Architecture, fates: Int[np.ndarray, "v t"]) -> str:
    looked = np.concatenate([_meant(fate) for fate in fates])
    shares = np.bincount(looked, minlength=6) / fates.size
    stops = ", ".join(
        f"{name} {100 * share:.1f}"
        for name, share in zip(architecture.gate_names, shares, strict=False)
    )
    return (
        f"forced gates: {100 * shares[5]:.1f} % used, stopped at {stops} %, "
        f"{100 * (1 - shares.sum()):.1f} % never looked at"
    )
