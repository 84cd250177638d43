"""One video, frame by frame: only the spans run that its system asks for."""

import copy
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import softmax

from sofnet_jax.data.views import check_pixels
from sofnet_jax.engines.network import has_engine
from sofnet_jax.systems import early_exit
from sofnet_jax.systems.base import DONE, UNDECIDED, Network, Result, Span, Trace, find_device
from sofnet_jax.systems.early_exit import NEVER, Rule, Settled, Watched, watch


def see(network: Network, i: int, state: Watched, x: Any) -> tuple[Any, Settled]:
    """Run a span on a frame: what a follower starts with, and the state afterwards."""
    span = network.spans[i]
    return span.see(state, x) if has_engine(network) else _see(span, state, x)


@jax.jit
def _see(span: Span, state: Watched, x: Any) -> tuple[Any, Settled]:
    carry, settled = early_exit.see(span, state, x)
    return carry, _hand_over(settled)


def extract(network: Network, i: int, x: Any) -> tuple[Any, Any]:
    """The layers of a span, which several videos share."""
    span = network.spans[i]
    return span.extract(None, x) if has_engine(network) else _extract(span, x)


@jax.jit
def _extract(span: Span, x: Any) -> tuple[Any, Any]:
    return span.extract(None, x)


def settle(network: Network, i: int, state: Watched, evidence: Any) -> Settled:
    """The state after the decision of a span on what its layers found."""
    span = network.spans[i]
    return span.settle(state, evidence) if has_engine(network) else _settle(span, state, evidence)


@jax.jit
def _settle(span: Span, state: Watched, evidence: Any) -> Settled:
    return _hand_over(early_exit.settle(span, state, evidence))


def finish(state: Watched) -> tuple[Watched, Any]:
    """No other frame comes."""
    if not isinstance(state.ended, np.ndarray):
        return _finish(state)
    state = state.finish()
    return state, state.needed


@jax.jit
def _finish(state: Watched) -> tuple[Watched, Array]:
    state = state.finish()
    return state, hand_over(state.needed)


def begin(
    network: Network, rule: Rule, num_frames: Int[np.ndarray, "b"], shape: tuple[int, ...]
) -> Watched:
    """The state before the first frame of b videos; NumPy's arrays if an engine runs the spans."""
    state = watch(network, rule, jnp.asarray(num_frames, jnp.int32), shape)
    if has_engine(network):
        return jax.tree.map(np.array, state)
    # Committed to the device like all later ones, or all compiles twice.
    return jax.device_put(state, find_device(network))


def _hand_over(settled: Settled) -> Settled:
    state, needed, logits = settled
    return state, hand_over(needed), None if logits is None else hand_over(logits)


def hand_over(answer: Array) -> Array:
    """Make a program write its answer to the host's memory.

    On a GPU, fetching the answer afterwards takes several times as long.
    """
    return jax.device_put(answer, jax.memory.Space.Host)


class Recorder:
    """The trace and the answer of a video, as the host reads them."""

    def __init__(self, network: Network):
        self._steps: list[tuple[int, int]] = []  # time and action
        self.span = 0  # the next one
        architecture = network.architecture
        self.wanted = int(architecture.order(architecture.num_frames or 1)[0])  # the first frame
        self.logits = np.zeros(architecture.num_classes, np.float32)
        self.finished = False  # whether no other frame came

    @property
    def done(self) -> bool:
        """Whether nothing is left to run."""
        return self.span == DONE

    def __len__(self) -> int:
        """The number of frames looked at."""
        return len(self._steps)

    @property
    def action(self) -> int:
        """What was done with the last frame."""
        return self._steps[-1][1]

    def finish(self, needed: Sequence[int]) -> None:
        """No other frame came: read what is still to run."""
        self.span, self.wanted, _ = needed
        self.finished = True

    def read(self, needed: Sequence[int], logits: Float[np.ndarray, "n"] | None) -> None:
        """Read what a span left for the host."""
        looked = self.wanted
        self.span, self.wanted, action = needed
        if logits is not None:
            self.logits = logits
        if action != UNDECIDED:
            if self._steps and self._steps[-1][0] == looked:  # it was stopped, and is now kept
                self._steps.pop()
            self._steps.append((looked, action))

    def conclude(self, num_frames: int | None = None) -> Result:
        """The result if the video ended now.

        `num_frames` is the number of its frames, if known.
        """
        time, action = np.array(self._steps, np.int64).reshape(-1, 2).T
        early = self.done and not self.finished and len(self) != num_frames
        return Result(softmax(self.logits), self.logits, Trace(time, action), early)


class Frame:
    """A frame whose spans run once for several videos, on demand."""

    def __init__(self, network: Network, pixels: np.ndarray):
        check_pixels(pixels)
        self.network = network
        self._found: dict[int, tuple[Any, Any]] = {}  # by span: for a follower, for the decision
        self._pixels = pixels[None]

    def find(self, span: int, before: int | None = None) -> Any:
        """What the decision of a span reads; `before` ran on the same frame."""
        if span not in self._found:
            x = self._pixels if before is None else self._found[before][0]
            self._found[span] = extract(self.network, span, x)
        return self._found[span][1]


class Recognizer:
    """Recognises the action of a video whose frames arrive one by one.

    Keeps the system's state, so that a video may be of any length. Only `reset` forgets it.
    """

    def __init__(self, network: Network, rule: Rule = NEVER):
        """Take a prepared network, and when a video ends early."""
        self.network = network
        self._rule = rule
        self._begun: dict[tuple[Any, ...], Watched] = {}  # by number of frames and shape
        self.reset()

    def warm_up(self, height: int, width: int) -> None:
        """Compile everything for frames of a size, by running it.

        Afterwards `step` and `result` compile nothing.
        """
        blank = np.zeros((height, width, 3), np.uint8)
        state = self._begin(blank.shape)
        frame = Frame(self.network, blank)

        def run(i: int, x: Any, before: int | None) -> None:
            span = self.network.spans[i]
            carry, settled = see(self.network, i, state, x)
            jax.block_until_ready(settled)
            if self.network.shares:
                jax.block_until_ready(settle(self.network, i, state, frame.find(i, before)))
            for follower in span.followers:
                run(follower, carry, i)

        for i, span in enumerate(self.network.spans):
            if span.looks:
                run(i, blank[None], None)
        finish(state)

    def copy(self) -> "Recognizer":
        """Another one for the same network, which begins a video of its own."""
        other = copy.copy(self)
        other.reset()
        return other

    def reset(self, num_frames: int | None = None) -> None:
        """Forget the video; the next frame is the first of another.

        `num_frames` is the number of its frames, if known.
        """
        self._num_frames = num_frames
        self._state: Watched | None = None
        self._shape: tuple[int, ...] = ()
        self._carry: Any = None
        self._last: Frame | None = None
        self._before: int | None = None  # the span that ran last
        self._record = Recorder(self.network)

    @property
    def wanted(self) -> int | None:
        """The number of the frame to look at next; None once the video is done."""
        return None if self._record.done else self._record.wanted

    @property
    def action(self) -> int:
        """What was done with the last frame."""
        return self._record.action

    def step(self, frame: np.ndarray | Frame) -> bool:
        """Run the frame that is wanted, uint8 (h, w, 3), as far as its system asks for.

        Several videos may share a `Frame` if the network allows it. Raises ValueError for another
        array, or if the video is done.

        Returns:
            Whether the video is done.
        """
        if self._record.done:
            raise ValueError("the video has ended; reset() begins another one")
        pixels = None
        if isinstance(frame, Frame):
            self._last = frame
        else:
            check_pixels(frame)
            self._last, pixels = None, frame[None]
        shape = frame._pixels.shape[1:] if isinstance(frame, Frame) else frame.shape
        if self._state is None:
            self._state, self._shape = self._begin(shape), shape
        elif shape != self._shape and not self.network.shares:
            raise ValueError(f"frames of {self._shape} and of {shape}; make them one")
        self._before, looked = None, len(self._record)
        self._run(pixels)
        while not self._record.done and len(self._record) == looked:
            self._run(self._carry)
        return self._record.done

    def result(self) -> Result:
        """The result if the video ended now. Raises ValueError if there was no frame."""
        if self._state is None:
            raise ValueError("no frame was looked at")
        if self._record.done:
            return self._record.conclude(self._num_frames)
        other = copy.copy(self)  # this video may go on
        other._record = copy.deepcopy(self._record)
        other._finish()
        return other._record.conclude(self._num_frames)

    def _finish(self) -> None:
        """Run what is left to run if no other frame comes."""
        assert self._state is not None
        self._state, needed = finish(self._state)
        self._record.finish(self._read(needed))
        while not self._record.done:
            self._run(self._carry)

    def _run(self, x: Any) -> None:
        """Run the next span."""
        assert self._state is not None
        i = self._record.span
        if self._last is None:
            self._carry, settled = see(self.network, i, self._state, x)
        else:
            settled = settle(self.network, i, self._state, self._last.find(i, self._before))
        self._state, needed, logits = settled
        self._before = i
        self._record.read(self._read(needed), None if logits is None else np.asarray(logits)[0])

    def _read(self, needed: Any) -> Sequence[int]:
        return np.asarray(needed)[0].tolist()

    def _begin(self, shape: tuple[int, ...]) -> Watched:
        """The first state."""
        key = self._num_frames, shape
        if key not in self._begun:
            count = np.array([-1 if self._num_frames is None else self._num_frames])
            self._begun[key] = begin(self.network, self._rule, count, shape)
        return self._begun[key]
