"""One video as one compiled program: no gate's decision returns to Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import export as jax_export
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from sofnet_jax.backbones.shift import Past
from sofnet_jax.host.files import write_whole
from sofnet_jax.systems.early_exit import NEVER, Rule
from sofnet_jax.systems.sofnet.folded import Network, create_past, create_states

_States = tuple[Float[Array, "1 m"], ...]  # of every gate


class Recognition(NamedTuple):
    """What became of videos; leading axes are those of the input without the images'.

    Attributes:
        scores: class probabilities.
        logits: mean of the kept frames' (Eq. 6).
        stop: index of the gate that stopped each frame; the number of gates for the kept ones; -1
            for those never looked at after an early end.
    """

    scores: Float[Array, "*b n"]
    logits: Float[Array, "*b n"]
    stop: Int[Array, "*b t"]


class _Progress(NamedTuple):
    """What the loop over frames carries."""

    t: Int[Array, ""]
    h: _States
    c: _States
    past: Past
    sum: Float[Array, "n"]
    kept: Int[Array, ""]
    stop: Int[Array, "t"]
    ended: Bool[Array, ""]


class _Passage(NamedTuple):
    """What became of a frame: the gate that stopped it, its logits if it was kept, the states.

    `past` is what it leaves in the spans that it came through, in the others what was there before.
    """

    stop: Int[Array, ""]
    logits: Float[Array, "n"]
    h: _States
    c: _States
    past: Past


def recognize(network: Network, frames: UInt8[Array, "t h w 3"], rule: Rule = NEVER) -> Recognition:
    """The decisions of `online.Recognizer` on a whole video; to be compiled.

    A loop over the frames with a branch at each gate: what a gate stops is not computed on. The
    number of frames may be symbolic.
    """
    num_frames = frames.shape[0]

    def goes_on(p: _Progress) -> Bool[Array, ""]:
        return (p.t < num_frames) & ~p.ended

    def look(p: _Progress) -> _Progress:
        frame = jax.lax.dynamic_slice_in_dim(frames, p.t, 1)
        force = (p.t == num_frames - 1) & (p.kept == 0) & (not network.released.empty)
        stop, logits, h, c, past = _pass(network, 0, frame, p.h, p.c, p.past, force)
        kept = stop == network.num_gates
        written = kept | (network.released.state and stop == network.num_gates - 1)
        h, c = jax.tree.map(lambda new, old: jnp.where(written, new, old), (h, c), (p.h, p.c))
        past = jax.tree.map(lambda new, old: jnp.where(kept, new, old), past, p.past)
        total, count = p.sum + logits, p.kept + kept
        ended = jnp.zeros((), bool)
        if rule.threshold is not None:
            sure = jax.nn.softmax(total / jnp.maximum(count, 1)).max() > rule.threshold
            ended = kept & sure & (p.t + 1 > rule.min_frames)
        return _Progress(p.t + 1, h, c, past, total, count, p.stop.at[p.t].set(stop), ended)

    zeros = create_states(network, 1)
    start = _Progress(
        t=jnp.zeros((), jnp.int32),
        h=zeros,
        c=zeros,
        past=create_past(network, (1, *frames.shape[1:])),
        sum=jnp.zeros(network.architecture.num_classes),
        kept=jnp.zeros((), jnp.int32),
        stop=jnp.full(num_frames, -1, jnp.int32),
        ended=jnp.zeros((), bool),
    )
    end = jax.lax.while_loop(goes_on, look, start)
    logits = end.sum / jnp.maximum(end.kept, 1)
    return Recognition(jax.nn.softmax(logits), logits, end.stop)


def _pass(
    network: Network,
    k: int,
    x: Shaped[Array, "1 h w c"],
    h: _States,
    c: _States,
    past: Past,
    force: Bool[Array, ""],
    pooled: Float[Array, "1 d"] | None = None,
) -> _Passage:
    """A frame from span k on; `h` and `c` are new for the gates before, old for the others."""
    span = network.spans[k]
    if span.layers:
        x, pooled, left = span(x, past[k])
        past = (*past[:k], left, *past[k + 1 :])
    assert pooled is not None
    if k == network.num_gates:
        return _Passage(jnp.int32(k), network.head(pooled)[0], h, c, past)
    new_h, new_c, logits = network.gates[k](pooled, h[k], c[k])
    after_h, after_c = ((*s[:k], n, *s[k + 1 :]) for s, n in ((h, new_h), (c, new_c)))

    def go_on() -> _Passage:
        return _pass(network, k + 1, x, after_h, after_c, past, force, pooled)

    def end() -> _Passage:
        zero = jnp.zeros(network.architecture.num_classes)
        return _Passage(jnp.int32(k), zero, after_h, after_c, past)

    forward = force | (logits[0, 1] > logits[0, 0])
    return jax.lax.cond(forward, go_on, end)


def recognize_videos(
    network: Network, frames: UInt8[Array, "b t h w 3"], rule: Rule = NEVER
) -> Recognition:
    """`recognize` for one video after the other."""
    return jax.lax.map(lambda video: recognize(network, video, rule), frames)


def export_program(
    path: Path, network: Network, size: int, rule: Rule = NEVER, *, platforms: Sequence[str] = ()
) -> None:
    """Writes `recognize_videos` with its weights to a file that runs without this code.

    `jax.export.deserialize(path.read_bytes()).call(frames)` is a `Recognition` as a tuple, for
    uint8 frames (b, t, size, size, 3) of any b and t.

    Args:
        path: of the file.
        network: of `deploy`.
        size: side of the frames in pixels.
        rule: of the early end; it becomes part of the program.
        platforms: it can run on, such as "cpu" and "cuda"; by default the one at hand.
    """
    shape = (*jax_export.symbolic_shape("b, t"), size, size, 3)
    program = jax.jit(lambda frames: tuple(recognize_videos(network, frames, rule)))
    exported = jax_export.export(program, platforms=tuple(platforms) or None)(
        jax.ShapeDtypeStruct(shape, jnp.uint8)
    )
    with write_whole(path) as partial:
        partial.write_bytes(exported.serialize())
