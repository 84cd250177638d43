"""Many videos at once: every batch that the device works on is of frames still alive.

A video has a slot, and one frame on its way. Before each span of stages frames wait until they are
a whole batch; then they go through the span together, and its gate stops some. The slot of a
stopped or kept frame goes to the next frame of its video, and that of a video which has ended to
the next video. So no place in a batch is taken by a frame that nobody wants, except towards the
end, when smaller batches are made of what is left.
"""

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from sofnet_jax.backbones.folded import Span
from sofnet_jax.inference.online import check_pixels, forwards, hand_over
from sofnet_jax.systems.early_exit import NEVER, Consensus, Result, Rule
from sofnet_jax.systems.sofnet.folded import Gate, Head, Network, create_past

_BATCH_SIZE = 32
_BATCH_SIZE_CPU, _PIXELS_CPU = 4, 192**2 * 4  # of larger batches the features outgrow the cache
_IN_FLIGHT = 2  # batches: while Python reads the answer to one, the device computes the other
_IN_FLIGHTS = {"cpu": 1}  # where both take the same cores
_SHRINK = 4  # a batch of the next smaller size has a quarter of the places

_Pixels = UInt8[np.ndarray, "h w 3"]


class _Hop(NamedTuple):
    """What a batch goes through at a time; the last hop has the classifier."""

    span: Span
    gate: Gate | None
    head: Head | None


class _Flight(NamedTuple):
    """A batch on the device: the hop it goes through, its rows, and the answers to come."""

    hop: int
    rows: list[int]
    gate_logits: Float[Array, "b 2"] | None
    logits: Float[Array, "b n"] | None


class _Arrival(NamedTuple):
    """A video whose first frame has come: its number, that frame, and those after it."""

    number: int
    pixels: _Pixels
    frames: Iterator[_Pixels]


class _State(NamedTuple):
    """What is remembered at a hop, a row for each slot.

    Attributes:
        h, c: of its gate, if it has one.
        past: of its blocks that shift.
    """

    h: Float[Array, "s m"] | None
    c: Float[Array, "s m"] | None
    past: tuple[Float[Array, "s h w p"], ...]


@dataclass
class _Slot:
    """The place of a video: its number, its frames to come, and what those so far said."""

    number: int
    frames: Iterator[_Pixels]
    consensus: Consensus
    pixels: _Pixels  # of the frame on its way
    fresh: bool = True  # whether the states are still zero
    forced: bool = False  # whether the frame goes through everything, for want of a kept one
    stop: int = 0  # the gate that stopped the last frame
    logits: Float[np.ndarray, "n"] | None = None  # of the last frame that came to the classifier


class Lockstep:
    """Recognises the actions of many videos, with the decisions of `online.Recognizer`."""

    def __init__(
        self,
        network: Network,
        rule: Rule = NEVER,
        *,
        batch_size: int | None = None,
        in_flight: int | None = None,
    ):
        """Of a network from `deploy`.

        Args:
            network: of `deploy`.
            rule: of the early end.
            batch_size: frames that go through a span together; by default as many as suit the
                device and the frames' size. On a CPU see also `allocator.keep_freed_memory`.
            in_flight: batches that the device has been given and not yet answered, at most; by
                default one on a CPU, two elsewhere.
        """
        self._in_flight = in_flight or _IN_FLIGHTS.get(network.device.platform, _IN_FLIGHT)
        self._network = network
        self._rule = rule
        self._hops = _create_hops(network)
        self._wanted = batch_size
        self._busy = False  # whether somebody takes results
        self._slots: dict[int, _Slot] = {}

    def _start(self, pixels: _Pixels) -> None:
        """Makes room for videos whose first frame this is."""
        check_pixels(pixels)
        self._shape = pixels.shape  # of all frames
        size = self._wanted or _choose_batch_size(self._network.device.platform, pixels)
        self._batch_size, self._sizes = size, _create_sizes(size)
        # So many that, while there are videos, a whole batch waits before one of the hops.
        flying = (self._in_flight - 1) * size
        self._num_slots = len(self._hops) * (size - 1) + 1 + flying
        self._slots = {}
        self._waiting: list[deque[int]] = [deque() for _ in self._hops]  # rows, by their next hop
        self._states = self._create_states()  # after the last kept frame
        self._news = self._create_states()  # after the frame on its way
        self._features: list[Array | None] = [None for _ in self._hops]  # after each hop

    def warm_up(self, height: int, width: int) -> None:
        """Compiles everything for frames of a size; `recognize` then compiles nothing."""
        blank = np.zeros((height, width, 3), np.uint8)
        self._start(blank)
        for size in self._sizes:
            rows = self._fill([self._num_slots] * size)
            for i in range(len(self._hops)):
                self._compute(i, rows, [blank])
            if self._remembers:
                self._states = _write(self._states, self._news, rows)

    def recognize(self, videos: Iterable[Iterable[np.ndarray]]) -> Iterator[tuple[int, Result]]:
        """Yields the number of each video and its result, in the order in which they end.

        Frames are uint8 of (h, w, 3). Videos and their frames are asked for when there is a place
        for them, and those after an early end never. Raises ValueError for a frame that is no image
        or not of the size of the others, and for a video without frames; RuntimeError while another
        call goes on.
        """
        if self._busy:
            raise RuntimeError("recognize() goes on already; take another Lockstep")
        self._busy = True
        try:
            incoming = map(_begin, enumerate(videos))
            first = next(incoming, None)
            if first is not None:
                self._start(first.pixels)
                yield from self._recognize(itertools.chain([first], incoming))
        finally:
            self._slots, self._busy = {}, False

    def _recognize(self, incoming: Iterator[_Arrival]) -> Iterator[tuple[int, Result]]:
        flying: deque[_Flight] = deque()
        while True:
            self._admit(incoming)
            hop = self._choose_hop()
            whole = hop is not None and len(self._waiting[hop]) >= self._batch_size
            if hop is not None and (not flying or (whole and len(flying) < self._in_flight)):
                flying.append(self._launch(hop))
                continue
            if not flying:
                return
            for row in self._land(flying.popleft()):
                result = self._go_on(row)
                if result is not None:
                    yield self._slots.pop(row).number, result

    @property
    def _remembers(self) -> bool:
        return bool(jax.tree.leaves(self._news))

    def _create_states(self) -> tuple[_State, ...]:
        """Of each hop; a row more than slots, for places that are left empty."""
        rows = self._num_slots + 1
        shape = rows, self._network.architecture.hidden
        past = create_past(self._network, (rows, *self._shape))
        past = jax.device_put(past, self._network.device)
        return tuple(
            _State(None, None, left)
            if hop.gate is None
            else _State(self._create_zeros(shape), self._create_zeros(shape), left)
            for hop, left in zip(self._hops, past, strict=False)  # a last span may be of no stage
        )

    def _create_zeros(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        """Committed to the device as all that comes of it is, or all would be compiled twice."""
        return jax.device_put(jnp.zeros(shape, dtype), self._network.device)

    def _admit(self, incoming: Iterator[_Arrival]) -> None:
        """Gives the free rows to the next videos."""
        for row in range(self._num_slots):
            if row in self._slots:
                continue
            arrival = next(incoming, None)
            if arrival is None:
                return
            classes = self._network.architecture.num_classes
            consensus = Consensus(self._network.num_gates, classes, self._rule)
            self._slots[row] = _Slot(arrival.number, arrival.frames, consensus, arrival.pixels)
            self._waiting[0].append(row)

    def _choose_hop(self) -> int | None:
        """The last hop before which a whole batch waits, else that with most; None at the end."""
        lengths = [min(len(queue), self._batch_size) for queue in self._waiting]
        longest = max(lengths)
        return max(i for i, n in enumerate(lengths) if n == longest) if longest else None

    def _launch(self, i: int) -> _Flight:
        """Gives the device a batch to take through a hop."""
        queue = self._waiting[i]
        taken = [queue.popleft() for _ in range(min(len(queue), self._batch_size))]
        pixels = [self._slots[row].pixels for row in taken]
        return _Flight(i, taken, *self._compute(i, self._fill(taken), pixels))

    def _land(self, flight: _Flight) -> list[int]:
        """Waits for a batch; the rows whose frame was stopped or came to the end."""
        i, last = flight.hop, flight.hop == len(self._hops) - 1
        gate_logits, logits = (None if x is None else np.asarray(x) for x in flight[2:])
        forward = None if gate_logits is None else forwards(gate_logits)
        done, written = [], []
        for place, row in enumerate(flight.rows):
            slot = self._slots[row]
            passes = forward is None or bool(forward[place]) or slot.forced
            if passes and not last:
                self._waiting[i + 1].append(row)
                continue
            if logits is not None:
                slot.logits = logits[place]
                if passes and not slot.forced:
                    slot.consensus.keep(logits[place])
            if not passes:
                slot.consensus.stop(i)
                slot.stop = i
            if not slot.forced and self._writes(i, passes):
                written.append(row)
                slot.fresh = False
            done.append(row)
        if written and self._remembers:
            self._states = _write(self._states, self._news, self._fill(written))
        return done

    def _fill(self, rows: list[int]) -> Int[np.ndarray, "b"]:
        """Rows as a batch of one of the few sizes; places left empty have a row of their own."""
        size = next(size for size in reversed(self._sizes) if size >= len(rows))
        return np.array([*rows, *[self._num_slots] * (size - len(rows))])

    def _writes(self, i: int, passes: bool) -> bool:
        """Whether a frame that ended at hop i writes the states."""
        return passes or (self._network.released.state and i == self._network.num_gates - 1)

    def _compute(
        self, i: int, rows: Int[np.ndarray, "b"], pixels: Sequence[np.ndarray]
    ) -> tuple[Float[Array, "b 2"] | None, Float[Array, "b n"] | None]:
        """The logits of the gate, if there is one, and after the last hop those of the classes."""
        source = self._stack(pixels, len(rows)) if i == 0 else self._features[i - 1]
        assert source is not None
        if self._features[i] is None and i < len(self._hops) - 1:
            self._features[i] = self._create_features(i, source)
        self._features[i], new, gate_logits, logits = _advance(
            self._hops[i],
            source,
            self._states[i],
            self._news[i],
            self._features[i],
            rows,
            np.array([row not in self._slots or self._slots[row].fresh for row in rows.tolist()]),
        )
        self._news = (*self._news[:i], new, *self._news[i + 1 :])
        return gate_logits, logits

    def _stack(self, pixels: Sequence[np.ndarray], size: int) -> UInt8[np.ndarray, "b h w 3"]:
        """Frames as a batch of so many; places left empty repeat the first one."""
        for image in pixels:
            check_pixels(image)
            if image.shape != self._shape:
                raise ValueError(f"frames of {image.shape} and of {self._shape}; make them one")
        return np.stack([*pixels, *[pixels[0]] * (size - len(pixels))])

    def _create_features(self, i: int, source: Shaped[Array, "b h w c"] | np.ndarray) -> Array:
        """Room for the features of every slot after a hop."""
        shape = jax.eval_shape(self._hops[i].span, source)[0]
        return self._create_zeros((self._num_slots + 1, *shape.shape[1:]), shape.dtype)

    def _go_on(self, row: int) -> Result | None:
        """Sends the next frame of a video on its way, or gives the result of all."""
        slot = self._slots[row]
        if slot.forced:
            return slot.consensus.conclude(slot.logits)
        if slot.consensus.ended:
            return slot.consensus.conclude()
        pixels = next(slot.frames, None)
        if pixels is not None:
            slot.pixels = pixels
            self._waiting[0].append(row)
            return None
        if slot.consensus.kept_any or self._network.released.empty:
            return slot.consensus.conclude()
        if slot.stop == len(self._hops) - 1:  # it has been classified, although it was stopped
            return slot.consensus.conclude(slot.logits)
        slot.forced = True
        self._waiting[slot.stop + 1].append(row)
        return None


def _create_hops(network: Network) -> list[_Hop]:
    """The spans with their gates; after the last gate there may be no stage of its own."""
    spans = [span for span in network.spans if span.layers]
    gates = [*network.gates, None][: len(spans)]
    heads = [*[None] * (len(spans) - 1), network.head]
    return [_Hop(*parts) for parts in zip(spans, gates, heads, strict=True)]


def _begin(video: tuple[int, Iterable[_Pixels]]) -> _Arrival:
    """Asks a video for its first frame."""
    number, frames = video[0], iter(video[1])
    pixels = next(frames, None)
    if pixels is None:
        raise ValueError(f"video {number} has no frames")
    return _Arrival(number, pixels, frames)


def _choose_batch_size(platform: str, pixels: _Pixels) -> int:
    """Frames like this one that go through a span in the least time each."""
    if platform != "cpu":
        return _BATCH_SIZE
    room = _PIXELS_CPU // (pixels.shape[0] * pixels.shape[1])
    return max(2**n for n in range(_BATCH_SIZE_CPU.bit_length()) if 2**n <= max(room, 1))


def _create_sizes(batch_size: int) -> list[int]:
    """Sizes of batches, descending: few, for each is compiled."""
    sizes = [batch_size]
    while sizes[-1] > 1:
        sizes.append(max(sizes[-1] // _SHRINK, 1))
    return sizes


@functools.partial(jax.jit, donate_argnums=(3, 4))
def _advance(
    hop: _Hop,
    source: Shaped[Array, "_ h w c"],
    state: _State,
    new: _State,
    features: Float[Array, "s h2 w2 c2"] | None,
    rows: Int[Array, "b"],
    fresh: Bool[Array, "b"],
) -> tuple[Array | None, _State, Array | None, Array | None]:
    """A batch through a hop.

    `source` are the pixels of the batch, or the features of all slots after the hop before. What
    comes out is put into the rows of `features` and of `new`.
    """
    x = source if source.dtype == jnp.uint8 else source[rows]

    def recall(memory: Array) -> Array:
        return jnp.where(fresh.reshape(-1, *[1] * (memory.ndim - 1)), 0, memory[rows])

    x, pooled, left = hop.span(x, tuple(map(recall, state.past)))
    features = None if features is None else features.at[rows].set(x)
    gate_logits, logits, h, c = None, None, None, None
    if hop.gate is not None and state.h is not None and state.c is not None:
        h, c, gate_logits = hop.gate(pooled, recall(state.h), recall(state.c))
        gate_logits = hand_over(gate_logits)
    new = jax.tree.map(lambda memory, value: memory.at[rows].set(value), new, _State(h, c, left))
    if hop.head is not None:
        logits = hand_over(hop.head(pooled))
    return features, new, gate_logits, logits


@functools.partial(jax.jit, donate_argnums=0)
def _write(
    states: tuple[_State, ...], news: tuple[_State, ...], rows: Int[Array, "b"]
) -> tuple[_State, ...]:
    """The states of kept frames become those of their videos."""
    return jax.tree.map(lambda state, new: state.at[rows].set(new[rows]), states, news)
