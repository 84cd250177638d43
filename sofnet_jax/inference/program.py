"""A whole video as one compiled program: no gate's decision returns to Python."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export as jax_export
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from sofnet_jax.backbones.shift import Past
from sofnet_jax.host.files import write_whole
from sofnet_jax.systems.early_exit import NEVER, Rule
from sofnet_jax.systems.sofnet.folded import Network, create_past, create_states, forwards

_States = tuple[Float[Array, "1 m"], ...]  # of every gate


class ProgramOutputs(NamedTuple):
    """Outputs of the program; their leading axes are those of the input before the images'.

    Attributes:
        scores: class probabilities.
        logits: mean over the kept frames (Eq. 6).
        stop: index of the gate that stopped each frame; the number of gates for kept frames; -1
            for frames never looked at after an early exit.
    """

    scores: Float[Array, "*b n"]
    logits: Float[Array, "*b n"]
    stop: Int[Array, "*b t"]


class _Memory(NamedTuple):
    """h and c of every gate, and what the last kept frame left for blocks that shift."""

    h: _States
    c: _States
    past: Past


_Passage = tuple[Int[Array, ""], Float[Array, "n"], _Memory]


class _Progress(NamedTuple):
    """State of the loop over frames."""

    t: Int[Array, ""]
    memory: _Memory
    sum: Float[Array, "n"]
    kept: Int[Array, ""]
    stop: Int[Array, "t"]
    ended: Bool[Array, ""]


def run_video(
    network: Network, frames: UInt8[Array, "t h w 3"], rule: Rule = NEVER
) -> ProgramOutputs:
    """Decide as `online.Recognizer` does on a whole video; to be compiled.

    A loop over the frames with a branch at each gate, so that a stopped frame costs no further
    stage. The number of frames may be symbolic.
    """
    num_frames = frames.shape[0]

    def goes_on(p: _Progress) -> Bool[Array, ""]:
        return (p.t < num_frames) & ~p.ended

    def look(p: _Progress) -> _Progress:
        frame = jax.lax.dynamic_slice_in_dim(frames, p.t, 1)
        force = (p.t == num_frames - 1) & (p.kept == 0) & (not network.released.empty)
        stop, logits, new = _pass(network, 0, frame, p.memory, force)
        kept = stop == network.num_gates
        h, c = _choose(network.writes(stop), (new.h, new.c), (p.memory.h, p.memory.c))
        memory = _Memory(h, c, _choose(kept, new.past, p.memory.past))
        total, count = p.sum + logits, p.kept + kept
        ended = jnp.zeros((), bool)
        if rule.threshold is not None:
            sure = jax.nn.softmax(total / jnp.maximum(count, 1)).max() > rule.threshold
            ended = kept & sure & (p.t + 1 > rule.min_frames)
        return _Progress(p.t + 1, memory, total, count, p.stop.at[p.t].set(stop), ended)

    zeros = create_states(network, 1)
    start = _Progress(
        t=jnp.zeros((), jnp.int32),
        memory=_Memory(zeros, zeros, create_past(network, (1, *frames.shape[1:]))),
        sum=jnp.zeros(network.architecture.num_classes),
        kept=jnp.zeros((), jnp.int32),
        stop=jnp.full(num_frames, -1, jnp.int32),
        ended=jnp.zeros((), bool),
    )
    end = jax.lax.while_loop(goes_on, look, start)
    logits = end.sum / jnp.maximum(end.kept, 1)
    return ProgramOutputs(jax.nn.softmax(logits), logits, end.stop)


def _pass(
    network: Network,
    k: int,
    x: Shaped[Array, "1 h w c"],
    memory: _Memory,
    force: Bool[Array, ""],
    pooled: Float[Array, "1 d"] | None = None,
) -> _Passage:
    """Run a frame from span k on: its stop index, its logits if it was kept, and the new memory.

    Where the frame did not come, the memory stays the old one.
    """
    span, (h, c, past) = network.spans[k], memory
    if span.layers:
        x, pooled, left = span(x, past[k])
        past = (*past[:k], left, *past[k + 1 :])
    assert pooled is not None
    if k == network.num_gates:
        return jnp.int32(k), network.head(pooled)[0], _Memory(h, c, past)
    new_h, new_c, logits = network.gates[k](pooled, h[k], c[k])
    h, c = ((*s[:k], n, *s[k + 1 :]) for s, n in ((h, new_h), (c, new_c)))
    memory = _Memory(h, c, past)

    def go_on() -> _Passage:
        return _pass(network, k + 1, x, memory, force, pooled)

    def end() -> _Passage:
        return jnp.int32(k), jnp.zeros(network.architecture.num_classes), memory

    return jax.lax.cond(force | forwards(logits)[0], go_on, end)


def _choose(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(functools.partial(jnp.where, condition), new, old)


def run_videos(
    network: Network, frames: UInt8[Array, "b t h w 3"], rule: Rule = NEVER
) -> ProgramOutputs:
    """Run `run_video` on one video after another."""
    return jax.lax.map(lambda video: run_video(network, video, rule), frames)


def export_program(
    path: Path, network: Network, size: int, rule: Rule = NEVER, *, platforms: Sequence[str] = ()
) -> None:
    """Write `run_videos`, with its weights and rule, to a file that runs without this code.

    `jax.export.deserialize(bytearray(path.read_bytes())).call(frames)` is a `ProgramOutputs` as a
    tuple, for uint8 frames (b, t, size, size, 3) of any b and t.
    """
    shape = (*jax_export.symbolic_shape("b, t"), size, size, 3)
    program = jax.jit(lambda frames: tuple(run_videos(network, frames, rule)))
    exported = jax_export.export(program, platforms=tuple(platforms) or None)(
        jax.ShapeDtypeStruct(shape, jnp.uint8)
    )
    with write_whole(path) as partial:
        partial.write_bytes(exported.serialize())
