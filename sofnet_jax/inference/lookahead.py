"""One video on a device that a frame does not fill: layers of several frames at once.

Layers read only pixels, decisions also the state. So a span runs on all frames of a chunk as soon
as one of them needs it; decisions follow in order, on the device, with what was found. They are
those of the loop, at the price of layers for frames that stop before, or after the video's end.
"""

import functools
import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8
from scipy.special import softmax

from sofnet_jax.data.views import check_pixels
from sofnet_jax.inference.lockstep import find_sources
from sofnet_jax.inference.online import begin
from sofnet_jax.systems.base import DONE, UNDECIDED, Network, Result, Trace
from sofnet_jax.systems.early_exit import NEVER, Rule, Watched, settle


@flax.struct.dataclass
class _Chunk:
    """Frames on the device.

    Attributes:
        found: of each span, what its followers start with and what its decision reads.
        filled: which spans have run.
        time, action: of the frames that were decided on, `decided` of them.
    """

    pixels: UInt8[Any, "l h w 3"]
    found: tuple[Any, ...]
    filled: Bool[Any, "k"]
    time: Int[Any, "l"]
    action: Int[Any, "l"]
    decided: Int[Any, ""]


class _Progress(NamedTuple):
    state: Watched
    chunk: _Chunk


class LookAhead:
    """Recognises a video; decides as `online.Recognizer` does. The network's frames are shared."""

    def __init__(self, network: Network, rule: Rule = NEVER, length: int = 8):
        """Run layers on `length` frames at once."""
        assert network.shares
        self._network, self._rule, self._length = network, rule, length

    def warm_up(self, height: int, width: int) -> None:
        """Compile everything for frames of a size, of a video of unknown length."""
        blank = np.zeros((height, width, 3), np.uint8)
        count = self._network.architecture.num_frames or None
        self.recognize([blank] * (count or self._length), count)

    def recognize(
        self, frames: Iterable[np.ndarray], num_frames: int | None = None
    ) -> tuple[Result, Int[np.ndarray, "k"]]:
        """Recognise a video whose frames come in the system's order.

        Args:
            frames: uint8 (h, w, 3) each. They are read a chunk at a time, and not after the end.
            num_frames: their number, if known.

        Returns:
            The result, and the number of frames that each span was run on.

        Raises:
            ValueError: no frames, no images, or images of several sizes.
        """
        frames = iter(frames)
        trace = _Trace()
        computed = np.zeros(len(self._network.spans), np.int64)
        p: _Progress | None = None
        while pixels := list(itertools.islice(frames, self._length)):
            state = p.state if p else self._begin(pixels[0], num_frames)
            p = _look(self._network, state, self._stack(pixels), np.int32(len(pixels)))
            ended = trace.read(p)
            computed += np.asarray(p.chunk.filled) * len(pixels)
            if ended:
                break
        if p is None:
            raise ValueError("no frame was looked at")
        if not ended:
            before = np.asarray(p.chunk.filled)
            p = _finish(self._network, p)
            trace.read(p, again=True)
            computed += np.asarray(p.chunk.filled) & ~before
        logits = np.asarray(p.state.answer)[0]
        early = ended and len(trace.action) != num_frames
        return Result(softmax(logits), logits, trace.conclude(), early), computed

    def _begin(self, pixels: np.ndarray, num_frames: int | None) -> Watched:
        check_pixels(pixels)
        return begin(self._network, self._rule, np.array([num_frames or -1]), pixels.shape)

    def _stack(self, pixels: list[np.ndarray]) -> UInt8[np.ndarray, "l h w 3"]:
        stacked = np.zeros((self._length, *pixels[0].shape), np.uint8)
        for place, image in enumerate(pixels):
            check_pixels(image)
            if image.shape != pixels[0].shape:
                raise ValueError(f"frames of {pixels[0].shape} and of {image.shape}; make them one")
            stacked[place] = image
        return stacked


class _Trace:
    """Times and actions of the frames so far."""

    def __init__(self) -> None:
        self.time: list[int] = []
        self.action: list[int] = []

    def read(self, p: _Progress, *, again: bool = False) -> bool:
        """Add what was done with a chunk; `again` replaces its last frame. True at the end."""
        time, action, decided, span = jax.device_get(
            (p.chunk.time, p.chunk.action, p.chunk.decided, p.state.next.span)
        )
        new = slice(decided - 1 if again else 0, decided)
        old = len(self.time) - again
        self.time[old:], self.action[old:] = time[new].tolist(), action[new].tolist()
        return bool(span[0] == DONE)

    def conclude(self) -> Trace:
        """As arrays."""
        return Trace(np.array(self.time, np.int64), np.array(self.action, np.int64))


@jax.jit
def _look(
    network: Network, state: Watched, pixels: UInt8[Array, "l h w 3"], count: Int[Array, ""]
) -> _Progress:
    """Decide about the first `count` frames of a chunk, in order, or up to the video's end."""
    found: list[Any] = []
    sources = find_sources(network.spans)
    for i, span in enumerate(network.spans):
        x = pixels if span.looks else found[sources[i]][0]
        shapes = jax.eval_shape(span.extract, None, x)
        found.append(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))
    nothing = jnp.full(len(pixels), UNDECIDED)
    filled = jnp.zeros(len(network.spans), bool)
    chunk = _Chunk(pixels, tuple(found), filled, nothing, nothing, jnp.int32(0))
    return _decide_all(network, _Progress(state, chunk), count)


@jax.jit
def _finish(network: Network, p: _Progress) -> _Progress:
    """No other frame comes: decide again about the last one, if the system wants to."""
    state = p.state.finish()
    wanted = state.next.span[0] != DONE
    chunk = replace(p.chunk, decided=p.chunk.decided - wanted)
    return _decide_all(network, _Progress(state, chunk), p.chunk.decided)


def _decide_all(network: Network, p: _Progress, count: Int[Array, ""]) -> _Progress:
    looks = jnp.array([span.looks for span in network.spans])

    def goes_on(p: _Progress) -> Bool[Array, ""]:
        span = p.state.next.span[0]
        return (span != DONE) & ~(looks[span] & (p.chunk.decided >= count))

    def lacks(i: int, p: _Progress) -> Bool[Array, ""]:
        return (p.state.next.span[0] == i) & ~p.chunk.filled[i]

    def fill(i: int, p: _Progress) -> _Progress:
        source = find_sources(network.spans).get(i)
        x = p.chunk.pixels if source is None else p.chunk.found[source][0]
        found = list(p.chunk.found)
        found[i] = network.spans[i].extract(None, x)
        chunk = replace(p.chunk, found=tuple(found), filled=p.chunk.filled.at[i].set(True))
        return p._replace(chunk=chunk)

    def advance(p: _Progress) -> _Progress:
        # Loops that run once or not at all, not branches, which would copy all that was found.
        for i in range(len(network.spans)):
            p = jax.lax.while_loop(functools.partial(lacks, i), functools.partial(fill, i), p)
        return _decide(network, p)

    return jax.lax.while_loop(goes_on, advance, p)


def _decide(network: Network, p: _Progress) -> _Progress:
    """The decision of the span that is next, about the frame in progress."""
    chunk, looked = p.chunk, p.state.next.time[0]

    def run(i: int) -> Watched:
        _, evidence = chunk.found[i]
        own = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, chunk.decided, 1), evidence)
        return settle(network.spans[i], p.state, own)[0]

    runs = [functools.partial(run, i) for i in range(len(network.spans))]
    state = jax.lax.switch(p.state.next.span[0], runs)
    action = state.next.action[0]
    at = jnp.where(action == UNDECIDED, len(chunk.pixels), chunk.decided)  # or nowhere
    chunk = replace(
        chunk,
        time=chunk.time.at[at].set(looked, mode="drop"),
        action=chunk.action.at[at].set(action, mode="drop"),
        decided=chunk.decided + (action != UNDECIDED),
    )
    return _Progress(state, chunk)
