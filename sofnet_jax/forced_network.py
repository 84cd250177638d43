"""A network and videos whose frames stop where they are meant to: speed without a training.

The gates run as any others do; their weights are chosen so that they know the pictures.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image

from sofnet_jax.inference.consensus import Rule
from sofnet_jax.inference.network import Gate, Network
from sofnet_jax.inference.online import Frame

RULE = Rule(0.999, 3)

# What becomes of 64 frames of four videos, as near to the shares of Figure 3 as whole frames come:
# 54.3 % used, 32.3 % skipped, 13.4 % never looked at. How the skipped ones spread over the gates is
# drawn there, not written: mostly over the first and the last.
SKIPPED = (10, 2, 1, 2, 6)  # at res1 … res5
USED, EXIT = 35, 8


def create_videos(num_frames: int, seed: int = 0) -> Int[np.ndarray, "4 t"]:
    """What is to become of each frame: the gate that stops it, 5 if kept, 6 if the video ends."""
    rng = np.random.default_rng(seed)
    skipped = [gate for gate, count in enumerate(SKIPPED) for _ in range(count)]
    exits = np.full(4, EXIT // 4)
    fates = rng.permutation([*skipped, *[5] * (USED - 4)])
    parts = np.split(fates, np.cumsum(num_frames - exits - 1)[:-1])
    return np.stack([np.pad(np.append(part, 6), (0, EXIT // 4), "edge") for part in parts])


def draw_pictures(count: int, size: int, seed: int = 0) -> UInt8[np.ndarray, "p size size 3"]:
    """Pictures of few colours, which differ much."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    shape = (size, size)
    return np.stack([np.asarray(Image.fromarray(c).resize(shape)) for c in coarse])


def force(network: Network, pictures: UInt8[np.ndarray, "p size size 3"]) -> Network:
    """Teaches a network what to do with pictures: number n is stopped by gate n.

    Of the last two, which are kept, the second makes the classifier sure.
    """
    frames = [Frame(network, picture) for picture in pictures]
    gates = []
    for k, gate in enumerate(network.gates):
        pooled = [np.asarray(frame.pool(k))[0] for frame in frames[k:]]
        gates.append(_teach(gate, *_solve(pooled, [-1.0, *[1.0] * (len(pooled) - 1)])))
    last = [np.asarray(frame.pool(network.num_gates))[0] for frame in frames[-2:]]
    direction, bias = _solve(last, [0.0, 1000.0])
    head = network.head
    head = replace(
        head,
        kernel=jnp.zeros_like(head.kernel).at[:, 0].set(direction),
        bias=jnp.zeros_like(head.bias).at[0].set(bias),
    )
    return replace(network, gates=tuple(gates), head=head)


def _teach(gate: Gate, direction: Float[np.ndarray, "d"], bias: float) -> Gate:
    """A gate whose first unit, and the decision with it, is the sign of a linear function.

    The unit forgets, opens its other gates, and takes nothing from the state; the other units go
    on as they were, but are not asked.
    """
    hidden = gate.recurrence.w_q.shape[0]
    i, f, g, o = (n * hidden for n in range(4))
    columns = jnp.array([i, f, g, o])
    kernel = gate.kernel.at[:, columns].set(0).at[:, g].set(3 * direction)
    biases = gate.bias.at[columns].set(jnp.array([10.0, -10.0, 3 * bias, 10.0]))
    recurrence = replace(
        gate.recurrence,
        w_hh=gate.recurrence.w_hh.at[:, columns].set(0),
        w_q=jnp.zeros_like(gate.recurrence.w_q).at[0].set(jnp.array([-10.0, 10.0])),
        b_q=jnp.zeros_like(gate.recurrence.b_q),
    )
    return replace(gate, kernel=kernel, bias=biases, recurrence=recurrence)


def _solve(
    points: Sequence[Float[Array, "d"] | np.ndarray], values: Sequence[float]
) -> tuple[Float[np.ndarray, "d"], float]:
    """The smallest linear function with these values at these points."""
    matrix = np.asarray(points, np.float64)
    centre = matrix.mean(0)
    mean = float(np.mean(values))
    direction = np.linalg.lstsq(matrix - centre, np.array(values) - mean, rcond=None)[0]
    return direction.astype(np.float32), mean - float(centre @ direction)
