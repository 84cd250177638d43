"""A network and videos whose frames stop at given gates, to measure speed without training.

The gates are ordinary ones, with weights chosen to recognise a few pictures.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.online import Frame
from sofnet_jax.systems.base import Network
from sofnet_jax.systems.early_exit import Rule
from sofnet_jax.systems.sofnet.folded import FinalSpan, FoldedSoFNet, Gate, GatedSpan
from sofnet_jax.systems.tsn import Head

RULE = Rule(0.999, 0)
VIDEOS = 4  # over which the frames never looked at are spread
PICTURES = 7  # number n is stopped by gate n, 5 is kept, 6 ends the video

# Percent of the frames stopped at res1 … res5, used, and never looked at. Figure 3 states 54.3 %
# used, 32.3 % skipped and 13.4 % never looked at; the shares of the gates are read off its drawing.
FIGURE_3 = (15.4, 3.1, 1.5, 3.1, 9.2, 54.3, 13.4)


def create_fates(shares: Sequence[float], num_frames: int) -> Int[np.ndarray, "v t"]:
    """Compose videos of pictures, by number, so that their frames stop in the given shares.

    `shares` are percent of the frames stopped at each gate, used, and never looked at; they are
    rounded to whole frames. Raises UserError for impossible ones.
    """
    if len(shares) != PICTURES or min(shares) < 0 or not abs(sum(shares) - 100) <= 1:
        raise UserError(f"stops {tuple(shares)}: give seven shares that add to 100 %")
    *stopped, used, exits = _apportion(shares, VIDEOS * num_frames)
    tails = exits // VIDEOS + (np.arange(VIDEOS) < exits % VIDEOS)
    ending = int((tails > 0).sum())
    if used < ending:
        raise UserError(f"stops {tuple(shares)}: a video ends early with a frame that is used")
    others = [gate for gate, count in enumerate(stopped) for _ in range(count)]
    pool = np.random.default_rng(0).permutation([*others, *[5] * (used - ending)])
    lengths = num_frames - tails - (tails > 0)
    if lengths.min() < 0:
        raise UserError(f"stops {tuple(shares)}: of {num_frames} frames one is looked at")
    parts = np.split(pool, np.cumsum(lengths)[:-1])
    return np.stack(
        [np.pad(part, (0, num_frames - len(part)), constant_values=6) for part in parts]
    ).astype(int)


def _apportion(shares: Sequence[float], total: int) -> list[int]:
    """Round the shares of `total`: the largest remainders round up."""
    exact = np.array(shares) / sum(shares) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts.tolist()


def draw_pictures(size: int) -> UInt8[np.ndarray, "p size size 3"]:
    """Draw very different pictures of few colours."""
    coarse = np.random.default_rng(0).integers(0, 256, (PICTURES, 5, 5, 3), dtype=np.uint8)
    shape = (size, size)
    return np.stack([np.asarray(Image.fromarray(c).resize(shape)) for c in coarse])


def force(
    network: FoldedSoFNet,
    pictures: UInt8[np.ndarray, "p size size 3"],
    rounded: Network | None = None,
) -> FoldedSoFNet:
    """Change the gates of a network so that gate n stops picture n.

    The last two pictures are kept; the very last makes the classifier certain. `rounded` is the
    network in the engine whose features the gates will see, if that rounds them much.
    """
    frames = [Frame(rounded or network, picture) for picture in pictures]
    spans: list[GatedSpan | FinalSpan] = []
    for k, span in enumerate(network.spans):
        pooled = [_pool(frame, k) for frame in frames[k:]]
        if isinstance(span, GatedSpan):
            taught = _teach(span.gate, *_solve(pooled, [-1.0, *[1.0] * (len(pooled) - 1)]))
            spans.append(replace(span, gate=taught))
            continue
        direction, bias = _solve(pooled[-2:], [0.0, 1000.0])
        kernel = jnp.zeros_like(span.head.kernel).at[:, 0].set(direction)
        head = Head(kernel, jnp.zeros_like(span.head.bias).at[0].set(bias))
        spans.append(replace(span, head=head))
    return replace(network, spans=tuple(spans))


def _pool(frame: Frame, k: int) -> Float[np.ndarray, "d"]:
    """The averaged features that span k decides on; the spans before it have run."""
    pooled, _ = frame.find(k, k - 1 if k else None)
    return np.asarray(pooled)[0]


def _teach(gate: Gate, direction: Float[np.ndarray, "d"], bias: float) -> Gate:
    """Make the sign of a linear function the first unit of a gate, and its decision.

    The unit forgets, opens its other gates and ignores the state; the other units are unchanged but
    do not count.
    """
    hidden, size = len(gate.w_q), len(direction)
    i, f, g, o = (n * hidden for n in range(4))
    columns = jnp.array([i, f, g, o])
    kernel = gate.kernel.at[:, columns].set(0).at[:size, g].set(3 * direction)
    biases = gate.bias.at[columns].set(jnp.array([10.0, -10.0, 3 * bias, 10.0]))
    w_q = jnp.zeros_like(gate.w_q).at[0].set(jnp.array([-10.0, 10.0]))
    return replace(gate, kernel=kernel, bias=biases, w_q=w_q, b_q=jnp.zeros_like(gate.b_q))


def _solve(
    points: Sequence[Float[np.ndarray, "d"]], values: Sequence[float]
) -> tuple[Float[np.ndarray, "d"], float]:
    """The linear function of smallest norm with these values at these points."""
    matrix = np.asarray(points, np.float64)
    centre = matrix.mean(0)
    mean = float(np.mean(values))
    direction = np.linalg.lstsq(matrix - centre, np.array(values) - mean, rcond=None)[0]
    return direction.astype(np.float32), mean - float(centre @ direction)
