"""One video, frame by frame: a stopped frame costs only the stages that it passed."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Shaped

from sofnet_jax.backbones.folded import Span
from sofnet_jax.backbones.shift import Past
from sofnet_jax.data.views import check_pixels
from sofnet_jax.systems.early_exit import NEVER, Consensus, Result, Rule
from sofnet_jax.systems.sofnet.folded import (
    Gate,
    Head,
    Network,
    create_past,
    create_states,
    forwards,
)


@jax.jit
def run_gated(
    span: Span,
    gate: Gate,
    x: Shaped[Array, "b h w c"],
    past: tuple[Float[Array, "b _ _ _"], ...] | None,
    h: Float[Array, "b m"],
    c: Float[Array, "b m"],
) -> tuple[Any, ...]:
    """A span and its gate: the span's outputs, then h, c, and the logits q on the host."""
    x, pooled, left = span(x, past)
    return x, pooled, left, *ask(gate, pooled, h, c)


run = jax.jit(lambda span, x, past=None: span(x, past))


@jax.jit
def ask(
    gate: Gate, pooled: Float[Array, "b d"], h: Float[Array, "b m"], c: Float[Array, "b m"]
) -> tuple[Float[Array, "b m"], Float[Array, "b m"], Float[Array, "b 2"]]:
    """A gate: h, c, and the logits q on the host."""
    h, c, logits = gate(pooled, h, c)
    return h, c, hand_over(logits)


@jax.jit
def classify(head: Head, pooled: Float[Array, "b d"]) -> Float[Array, "b n"]:
    """The classifier, with logits on the host."""
    return hand_over(head(pooled))


def hand_over(answer: Array) -> Array:
    """Make a program write its answer to the host's memory.

    On a GPU, fetching the answer afterwards takes several times as long.
    """
    return jax.device_put(answer, jax.memory.Space.Host)


class FrameResult(NamedTuple):
    """The gate that stopped a frame, or the number of gates; whether the video ended early."""

    stop: int
    ended: bool


class Frame:
    """A frame whose features are computed stage by stage, on demand."""

    def __init__(self, network: Network, pixels: np.ndarray, past: Past | None = None):
        """Take the pixels, and what the last kept frame left; None if there was none."""
        check_pixels(pixels)
        self._network = network
        self._past = _create_blank_past(network, pixels) if past is None else past
        self._features: Array | np.ndarray = pixels[None]
        self._pooled: list[Array] = []  # before each gate, and after all
        self.left: list[tuple[Array, ...]] = []  # for later frames, if this one is kept

    def pool(self, k: int) -> Float[Array, "1 d"]:
        """The averaged features that gate k sees, or the classifier if k is the number of gates."""
        while len(self._pooled) <= k:
            span = self._network.spans[len(self._pooled)]
            left: tuple[Array, ...] = ()
            if span.layers:
                past = self._past[len(self._pooled)]
                self._features, pooled, left = run(span, self._features, past)
            else:  # the last gate follows the last stage
                pooled = self._pooled[-1]
            self._pooled.append(pooled)
            self.left.append(left)
        return self._pooled[k]

    def ask(
        self, k: int, h: Float[Array, "1 m"], c: Float[Array, "1 m"]
    ) -> tuple[Float[Array, "1 m"], Float[Array, "1 m"], Float[Array, "1 2"]]:
        """Run gate k on the frame and a state: h, c, and the logits q."""
        gate = self._network.gates[k]
        if len(self._pooled) != k:
            return ask(gate, self.pool(k), h, c)
        # The first to ask runs the span and its gate in one call: half as many calls.
        span = self._network.spans[k]
        self._features, pooled, left, *answer = run_gated(
            span, gate, self._features, self._past[k], h, c
        )
        self._pooled.append(pooled)
        self.left.append(left)
        return tuple(answer)


class Recognizer:
    """Recognises the action of a video whose frames arrive one by one.

    Keeps the gates' states, the mean logits of the kept frames, and the last frame with its
    features, so that a video may be of any length. Only `reset` resets the states.
    """

    def __init__(self, network: Network, rule: Rule = NEVER):
        """Take a network from `deploy`; without gates every frame is kept."""
        self._network = network
        self._rule = rule
        # Committed to the device like all later states; otherwise all is compiled twice.
        self._zeros = jax.device_put(list(create_states(network, 1)), network.device)
        self._shape: tuple[int, ...] = ()  # of the frames for which `_blank_past` is
        self._blank_past: Past | None = None
        self.reset()

    def warm_up(self, height: int, width: int) -> None:
        """Compile everything for frames of a size; `step` and `result` then compile nothing."""
        blank = np.zeros((height, width, 3), np.uint8)
        asked, pooled = self._show(blank), self._show(blank)
        for k, zero in enumerate(self._zeros):
            asked.ask(k, zero, zero)
            pooled.pool(k)
            pooled.ask(k, zero, zero)
        self._classify(asked)

    def reset(self) -> None:
        """Forget the video; the next frame is the first of another."""
        classes = self._network.architecture.num_classes
        self._consensus = Consensus(self._network.num_gates, classes, self._rule)
        self._h, self._c = self._zeros, self._zeros
        self._past: Past | None = None
        self._last: Frame | None = None

    def step(self, frame: np.ndarray | Frame) -> FrameResult:
        """Run the next frame, uint8 (h, w, 3), until a gate stops it.

        Several videos may share a `Frame` if the network does not shift. Raises ValueError for
        another array, or if the video has ended early.
        """
        if self._consensus.ended:
            raise ValueError("the video has ended; reset() begins another one")
        frame = frame if isinstance(frame, Frame) else self._show(frame)
        stop, h, c = self._pass_gates(frame)
        if self._network.writes(stop):
            self._h, self._c = h, c
        if stop == self._network.num_gates:
            self._consensus.keep(self._classify(frame))
            self._past = tuple(frame.left)
        else:
            self._consensus.stop(stop)
        self._last = frame
        return FrameResult(stop, self._consensus.ended)

    def result(self) -> Result:
        """The result if the video ended now.

        If no frame was kept, the last one is forwarded through everything. Raises ValueError if
        there was no frame.
        """
        if self._last is None:
            raise ValueError("no frame was looked at")
        force = not self._consensus.kept_any and not self._network.released.empty
        return self._consensus.conclude(self._classify(self._last) if force else None)

    def _show(self, pixels: np.ndarray) -> Frame:
        """A frame of this video, shifted from the last kept one."""
        check_pixels(pixels)
        if self._network.architecture.shift and pixels.shape != self._shape:
            if self._past is not None:
                raise ValueError(f"frames of {self._shape} and of {pixels.shape}; make them one")
            self._blank_past = _create_blank_past(self._network, pixels)
            self._shape = pixels.shape
        return Frame(self._network, pixels, self._past or self._blank_past)

    def _pass_gates(self, frame: Frame) -> tuple[int, list[Array], list[Array]]:
        """The stop index of the frame, and the states that the gates up to it propose."""
        h, c = list(self._h), list(self._c)
        for k in range(self._network.num_gates):
            h[k], c[k], logits = frame.ask(k, h[k], c[k])
            if not forwards(np.asarray(logits))[0]:
                return k, h, c
        return self._network.num_gates, h, c

    def _classify(self, frame: Frame) -> Float[np.ndarray, "n"]:
        pooled = frame.pool(self._network.num_gates)
        return np.asarray(classify(self._network.head, pooled))[0]


def _create_blank_past(network: Network, pixels: np.ndarray) -> Past:
    """What a video's first frame is shifted from; committed to the device like all later ones."""
    return jax.device_put(create_past(network, (1, *pixels.shape)), network.device)
