"""One video, frame by frame: what a gate stops costs only the stages that it came through."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from sofnet_jax.backbones.folded import Span
from sofnet_jax.backbones.shift import Past
from sofnet_jax.systems.early_exit import NEVER, Consensus, Result, Rule
from sofnet_jax.systems.sofnet.folded import Gate, Head, Network, create_past, create_states


@jax.jit
def run_gated(
    span: Span,
    gate: Gate,
    x: Shaped[Array, "b h w c"],
    past: tuple[Float[Array, "b _ _ _"], ...] | None,
    h: Float[Array, "b m"],
    c: Float[Array, "b m"],
) -> tuple[Any, ...]:
    """A span and its gate: what the span gives, then h, c, and the logits q for the host."""
    x, pooled, left = span(x, past)
    return x, pooled, left, *ask(gate, pooled, h, c)


run = jax.jit(lambda span, x, past=None: span(x, past))


@jax.jit
def ask(
    gate: Gate, pooled: Float[Array, "b d"], h: Float[Array, "b m"], c: Float[Array, "b m"]
) -> tuple[Float[Array, "b m"], Float[Array, "b m"], Float[Array, "b 2"]]:
    """A gate: h, c, and the logits q for the host."""
    h, c, logits = gate(pooled, h, c)
    return h, c, hand_over(logits)


@jax.jit
def classify(head: Head, pooled: Float[Array, "b d"]) -> Float[Array, "b n"]:
    """The classifier, with logits for the host."""
    return hand_over(head(pooled))


def hand_over(answer: Array) -> Array:
    """Has a program write its answer to the host's memory, where it is only to be read.

    On a GPU reading takes several times as long if the answer is fetched afterwards.
    """
    return jax.device_put(answer, jax.memory.Space.Host)


@dataclass(frozen=True)
class Decision:
    """What became of a frame.

    Attributes:
        stop: index of the gate that stopped it; the number of gates if it was kept.
        stopped_at: the same by name, `res1` … `res5`; None if it was kept.
        scores: class probabilities of the video so far; None if no frame was kept yet.
        ended: whether the video has ended early (Eq. 7): no further frame is wanted.
    """

    stop: int
    stopped_at: str | None
    scores: Float[np.ndarray, "n"] | None
    ended: bool


class Frame:
    """A frame, whose features are computed stage by stage, as far as somebody asks for them.

    Attributes:
        left: what the spans so far leave for later frames, if this one is kept.
    """

    def __init__(self, network: Network, pixels: np.ndarray, past: Past | None = None):
        """Of its pixels and of what the last kept frame left; None: there was none."""
        check_pixels(pixels)
        self._network = network
        self._past = _create_blank_past(network, pixels) if past is None else past
        self._features: Array | np.ndarray = pixels[None]
        self._pooled: list[Array] = []  # before each gate, and after all
        self.left: list[tuple[Array, ...]] = []

    def pool(self, k: int) -> Float[Array, "1 d"]:
        """The averaged features that gate k sees; with k the number of gates, the classifier."""
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
        """What gate k makes of the frame and a state: h, c, and the logits q."""
        gate = self._network.gates[k]
        if len(self._pooled) != k:
            return ask(gate, self.pool(k), h, c)
        # Whoever asks first has both done by one call: half of the calls, for most frames.
        span = self._network.spans[k]
        self._features, pooled, left, *answer = run_gated(
            span, gate, self._features, self._past[k], h, c
        )
        self._pooled.append(pooled)
        self.left.append(left)
        return tuple(answer)


class Recognizer:
    """Recognises the action of a video whose frames come one by one.

    Keeps the gates' states, the mean logits of the kept frames and what is shifted of the last one,
    and neither frames nor features of more than the last. A video may be of any length; the states
    are reset by `reset` alone.
    """

    def __init__(self, network: Network, rule: Rule = NEVER):
        """Of a network from `deploy`; without gates every frame is kept."""
        self._network = network
        self._rule = rule
        # Committed to the device as all later states are, or everything would be compiled twice.
        self._zeros = jax.device_put(list(create_states(network, 1)), network.device)
        self._shape: tuple[int, ...] = ()  # of the frames for which `_blank_past` is
        self._blank_past: Past | None = None
        self.reset()

    def warm_up(self, height: int, width: int) -> None:
        """Compiles everything for frames of a size; `step` and `result` then compile nothing."""
        blank = np.zeros((height, width, 3), np.uint8)
        asked, pooled = self._show(blank), self._show(blank)
        for k, zero in enumerate(self._zeros):
            asked.ask(k, zero, zero)
            pooled.pool(k)
            pooled.ask(k, zero, zero)
        self._classify(asked)

    def reset(self) -> None:
        """Forgets the video; the next frame is the first of another."""
        classes = self._network.architecture.num_classes
        self._consensus = Consensus(self._network.num_gates, classes, self._rule)
        self._h, self._c = self._zeros, self._zeros
        self._past: Past | None = None
        self._last: Frame | None = None

    def step(self, frame: np.ndarray | Frame) -> Decision:
        """Looks at the next frame, uint8 (h, w, 3), as far as the gates let it through.

        A `Frame`, which several videos may share, is of a network that does not shift. Raises
        ValueError if it is no such image, or if the video has ended early.
        """
        if self._consensus.ended:
            raise ValueError("the video has ended; reset() begins another one")
        frame = frame if isinstance(frame, Frame) else self._show(frame)
        network, k = self._network, self._network.num_gates
        stop, h, c = self._pass_gates(frame)
        if stop == k or (network.released.state and stop == k - 1):
            self._h, self._c = h, c
        if stop == k:
            self._consensus.keep(self._classify(frame))
            self._past = tuple(frame.left)
        else:
            self._consensus.stop(stop)
        self._last = frame
        name = None if stop == k else network.architecture.gate_names[stop]
        return Decision(stop, name, self._consensus.scores, self._consensus.ended)

    def result(self) -> Result:
        """What is known of the video after the frames so far, were it to end now.

        If no frame was kept, the last one is forwarded through everything. Raises ValueError if
        there was no frame.
        """
        if self._last is None:
            raise ValueError("no frame was looked at")
        force = not self._consensus.kept_any and not self._network.released.empty
        return self._consensus.conclude(self._classify(self._last) if force else None)

    def _show(self, pixels: np.ndarray) -> Frame:
        """A frame of this video, which is shifted from the last one kept."""
        check_pixels(pixels)
        if self._network.architecture.shift and pixels.shape != self._shape:
            if self._past is not None:
                raise ValueError(f"frames of {self._shape} and of {pixels.shape}; make them one")
            self._blank_past = _create_blank_past(self._network, pixels)
            self._shape = pixels.shape
        past = self._blank_past if self._past is None else self._past
        return Frame(self._network, pixels, past)

    def _pass_gates(self, frame: Frame) -> tuple[int, list[Array], list[Array]]:
        """The gate that stops the frame, and the states that the gates up to it would have."""
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
    """What the first of frames like this one is shifted from, where all that follows it is."""
    return jax.device_put(create_past(network, (1, *pixels.shape)), network.device)


def forwards(logits: Float[np.ndarray, "b 2"]) -> Bool[np.ndarray, "b"]:
    """Whether a gate forwards each frame: a tie stops."""
    return logits[:, 1] > logits[:, 0]


def check_pixels(pixels: np.ndarray) -> None:
    """Raises ValueError unless it is a uint8 RGB image."""
    shape, dtype = np.shape(pixels), getattr(pixels, "dtype", type(pixels).__name__)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or not all(shape):
        raise ValueError(f"a frame is uint8 of shape (height, width, 3), not {dtype} of {shape}")
