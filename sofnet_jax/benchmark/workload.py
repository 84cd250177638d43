"""The inference benchmark's workload: a gated network, videos, and two ways to run them."""

import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from sofnet_jax.benchmark.forced_gates import RULE, create_fates, draw_pictures, force
from sofnet_jax.data.video.decode import VideoError
from sofnet_jax.engines.network import has_engine
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.drawing import read_frames
from sofnet_jax.inference.load import load
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.program import run_video
from sofnet_jax.systems import tsn
from sofnet_jax.systems.base import Network, Result
from sofnet_jax.systems.early_exit import Rule
from sofnet_jax.systems.sofnet.architecture import Architecture, create_architecture
from sofnet_jax.systems.sofnet.folded import FoldedSoFNet, deploy
from sofnet_jax.systems.sofnet.network import SoFNet
from sofnet_jax.systems.tsn import FoldedTSN, WholeSpan

BACKBONE, CLASSES, FRAMES = "resnet50", 200, 16

program = jax.jit(run_video, static_argnames="rule")


@dataclass(frozen=True)
class Workload:
    """A deployed network with gates, its rule of early exit, and the frames of videos."""

    name: str
    network: FoldedSoFNet
    rule: Rule
    videos: Sequence[UInt8[np.ndarray, "t size size 3"]]

    @functools.cached_property
    def tsn(self) -> FoldedTSN:
        """The network without its gates."""
        span = WholeSpan(self.network.layers, self.network.head)
        given = vars(self.network.architecture)
        names = [field.name for field in dataclasses.fields(tsn.Architecture)]
        return FoldedTSN((span,), tsn.Architecture(**{name: given[name] for name in names}))

    @functools.cached_property
    def stops(self) -> list[Int[np.ndarray, "t"]]:
        """For every video, the gate that stops each frame looked at."""
        recognizer = Recognizer(self.network, self.rule)
        return [result.trace.action for result in run_loop(recognizer, self.videos)]

    @property
    def num_frames(self) -> int:
        """The frames of all videos."""
        return sum(map(len, self.videos))

    @property
    def size(self) -> int:
        """Side of the frames in pixels."""
        return self.videos[0].shape[1]

    @property
    def shares(self) -> Float[np.ndarray, "k"]:
        """Percent of the frames stopped at each gate, used, and never looked at."""
        counts = np.bincount(np.concatenate(self.stops), minlength=self.network.num_gates + 1)
        return 100 * np.append(counts, self.num_frames - counts.sum()) / self.num_frames

    @property
    def gflops(self) -> tuple[float, float]:
        """GFLOPs per video (full count) of TSN and with the gates."""
        prices, plain = (
            self.network.architecture.prices(self.size),
            self.network.architecture.plain(self.size),
        )
        spent = sum(prices.spend(stop).full for stop in self.stops)
        return plain.full * self.num_frames / len(self.videos), spent / len(self.videos)


def create_workload(
    size: int, shares: Sequence[float], *, dtype: DTypeLike | None = None
) -> Workload:
    """Random weights, with gates forced so that frames stop in the given shares.

    Raises UserError for impossible `shares` (`forced_gates.create_fates`).
    """
    fates = create_fates(shares, FRAMES)
    architecture, variables = draw_variables()
    pictures = draw_pictures(size)
    network = force(deploy(architecture, variables, dtype=dtype), pictures)
    return Workload(f"{BACKBONE}, forced gates", network, RULE, [pictures[fate] for fate in fates])


def draw_variables() -> tuple[Architecture, Mapping[str, Any]]:
    """Draw random weights of a SoF-Net."""
    architecture = create_architecture(BACKBONE, num_classes=CLASSES, gates=(1, 2, 3, 4, 5))
    blank = jnp.zeros((1, 1, 32, 32, 3), jnp.uint8)  # any size gives the same weights
    return architecture, jax.jit(SoFNet(architecture).init)(jax.random.key(0), blank)


def load_workload(checkpoint: str, videos: Sequence[str], *, dtype: str | None = None) -> Workload:
    """A trained network on video files; those that cannot be read are reported and left out.

    Raises UserError if `checkpoint` holds no usable network, or one without gates, or if no video
    can be read.
    """
    model = load(checkpoint, dtype=dtype)
    if not isinstance(model.network, FoldedSoFNet):
        raise UserError(
            f"{checkpoint} holds a network of another system than SoF-Net, which this benchmark "
            "measures; give a run of SoF-Net"
        )
    frames = []
    for video in videos:
        try:
            frames.append(read_frames(model, model.predict(video)))
        except VideoError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not frames:
        raise UserError("none of the videos can be read")
    return Workload(checkpoint, model.network, model.rule, frames)


@jax.jit
def _classify(span: WholeSpan, frames: UInt8[Array, "b h w 3"]) -> Float[Array, "b n"]:
    return span.score(None, span.extract(None, frames)[1])[0]


def classify(tsn: Network, frames: UInt8[np.ndarray, "b h w 3"]) -> Float[np.ndarray, "b n"]:
    """The logits of frames by TSN."""
    span = tsn.spans[0]
    if has_engine(tsn):
        return span.extract_and_score(None, frames)[1][0]
    return np.asarray(_classify(span, frames))


def run_loop(
    recognizer: Recognizer, videos: Iterable[UInt8[np.ndarray, "t h w 3"]]
) -> list[Result]:
    """Run each video through the Python loop, in the system's order, up to its end."""
    results = []
    architecture = recognizer.network.architecture
    for video in videos:
        recognizer.reset(architecture.num_frames or None)
        for time in architecture.order(len(video)):
            if recognizer.step(video[time]):
                break
        results.append(recognizer.result())
    return results


def run_program(
    network: Network, rule: Rule, videos: Iterable[UInt8[np.ndarray, "t h w 3"]]
) -> None:
    """Run each video as one compiled program on the device."""
    for video in videos:
        jax.block_until_ready(program(network, video, rule))
