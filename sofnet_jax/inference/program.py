"""A whole video as one compiled program: no decision returns to Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export as jax_export
from jaxtyping import Array, Bool, Float, Int, UInt8

from sofnet_jax.host.files import write_whole
from sofnet_jax.systems.base import DONE, UNDECIDED, Network
from sofnet_jax.systems.early_exit import NEVER, Rule, Watched, see, watch


class ProgramOutputs(NamedTuple):
    """Outputs of the program; their leading axes are those of the input before the images'.

    Attributes:
        scores: class probabilities.
        logits: the answer; for SoF-Net the mean over the kept frames (Eq. 6).
        stop: what was done with each frame, as an index of the system's actions; -1 for frames
            never looked at. For SoF-Net the gate that stopped the frame, or the number of gates.
    """

    scores: Float[Array, "*b n"]
    logits: Float[Array, "*b n"]
    stop: Int[Array, "*b t"]


class _Progress(NamedTuple):
    """State of the loop over frames."""

    state: Watched
    stop: Int[Array, "t"]


def run_video(
    network: Network, frames: UInt8[Array, "t h w 3"], rule: Rule = NEVER
) -> ProgramOutputs:
    """Decide as `online.Recognizer` does on a whole video; to be compiled.

    A loop over the frames that are asked for, with a branch after each span, so that a stopped
    frame costs no further one. The number of frames may be symbolic.
    """
    num_frames = frames.shape[0]

    def goes_on(p: _Progress) -> Bool[Array, ""]:
        return p.state.next.span[0] != DONE

    def look(p: _Progress) -> _Progress:
        time = p.state.next.time[0]
        frame = jax.lax.dynamic_slice_in_dim(frames, time, 1)
        first = [i for i, span in enumerate(network.spans) if span.looks]
        state = _branch(network, first, p.state, frame)
        return _Progress(state, p.stop.at[time].set(state.next.action[0]))

    count = jnp.asarray(num_frames, jnp.int32)[None]
    start = watch(network, rule, count, frames.shape[1:])
    stop = jnp.full(num_frames, UNDECIDED, jnp.int32)
    state, stop = jax.lax.while_loop(goes_on, look, _Progress(start, stop))
    logits = state.answer[0]
    return ProgramOutputs(jax.nn.softmax(logits), logits, stop)


def _branch(network: Network, spans: Sequence[int], state: Watched, x: Any) -> Watched:
    """Run the one of some spans that is next, if any, and what follows it on the same frame."""
    wanted = state.next.span[0]
    for i in spans:
        if len(spans) == 1 and network.spans[i].looks:  # certain to run
            return _run(network, i, state, x)
        state = jax.lax.cond(wanted == i, lambda s, i=i: _run(network, i, s, x), lambda s: s, state)
    return state


def _run(network: Network, i: int, state: Watched, x: Any) -> Watched:
    """Run a span, and what follows it on the same frame."""
    span = network.spans[i]
    carry, (state, _, _) = see(span, state, x)
    return _branch(network, span.followers, state, carry)


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
    tuple, for uint8 frames (b, t, size, size, 3) of any b and t, or of the t that the system needs.
    """
    sizes = ("b", str(network.architecture.num_frames) if network.architecture.num_frames else "t")
    shape = (*jax_export.symbolic_shape(", ".join(sizes)), size, size, 3)
    program = jax.jit(lambda frames: tuple(run_videos(network, frames, rule)))
    exported = jax_export.export(program, platforms=tuple(platforms) or None)(
        jax.ShapeDtypeStruct(shape, jnp.uint8)
    )
    with write_whole(path) as partial:
        partial.write_bytes(exported.serialize())
