"""Many videos at once: batches hold only active frames.

Each video occupies a slot and has one frame in progress. Frames wait before each span of stages
until they fill a batch, pass the span together, and its gate stops some. A finished frame's slot is
refilled with its video's next frame, a finished video's slot with the next video. Only towards the
end do smaller batches take what is left.
"""

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8

from sofnet_jax.backbones.folded import Span
from sofnet_jax.data.views import check_pixels
from sofnet_jax.inference.online import hand_over
from sofnet_jax.systems.early_exit import NEVER, Consensus, Result, Rule
from sofnet_jax.systems.sofnet.folded import Gate, Head, Network, create_past, forwards

_BATCH_SIZE = 32
_BATCH_SIZE_CPU, _PIXELS_CPU = 4, 192**2 * 4  # the features of larger batches outgrow the cache
# Batches: the device computes one while Python reads the answer to another, unless both use the
# same cores.
_IN_FLIGHT, _IN_FLIGHT_CPU = 2, 1
_SHRINK = 4  # the next smaller batch size is a quarter

_Pixels = UInt8[np.ndarray, "h w 3"]


class _Hop(NamedTuple):
    """What a batch runs in one call; only the last hop has the classifier."""

    span: Span
    gate: Gate | None
    head: Head | None


class _Flight(NamedTuple):
    """A batch on the device: its hop, its rows, and the pending answers."""

    hop: int
    rows: list[int]
    gate_logits: Float[Array, "b 2"] | None
    logits: Float[Array, "b n"] | None


class _State(NamedTuple):
    """The memory of a hop, one row per slot: h and c of its gate, the past of its shifts."""

    cell: tuple[Float[Array, "s m"], ...]
    past: tuple[Float[Array, "s h w p"], ...]


@dataclass
class _Slot:
    """A video in progress: its number, its next frames, and the consensus so far."""

    number: int
    frames: Iterator[_Pixels]
    consensus: Consensus
    pixels: _Pixels  # of the frame in progress
    fresh: bool = True  # whether the states are still zero
    forced: bool = False  # whether the frame passes all gates because none was kept
    stop: int = 0  # gate that stopped the last frame
    logits: Float[np.ndarray, "n"] | None = None  # of the last frame that reached the classifier


class Lockstep:
    """Recognises the actions of many videos; decides as `online.Recognizer` does."""

    def __init__(
        self,
        network: Network,
        rule: Rule = NEVER,
        *,
        batch_size: int | None = None,
        in_flight: int | None = None,
    ):
        """Configure the batches.

        By default `batch_size`, the frames that pass a span together, suits the device and the
        frames' size, and at most two batches are on the device, on a CPU one. On a CPU see also
        `host.memory.keep_freed_memory`.
        """
        usual = _IN_FLIGHT_CPU if network.device.platform == "cpu" else _IN_FLIGHT
        self._in_flight = in_flight or usual
        self._network, self._rule = network, rule
        spans = [span for span in network.spans if span.layers]  # the last one may have none
        gates = [*network.gates, None][: len(spans)]
        heads = [*[None] * (len(spans) - 1), network.head]
        self._hops = [_Hop(*parts) for parts in zip(spans, gates, heads, strict=True)]
        self._wanted = batch_size
        self._busy = False  # whether results are being taken
        self._slots: dict[int, _Slot] = {}

    def _start(self, pixels: _Pixels) -> None:
        """Allocate memory for videos of this frame's size."""
        check_pixels(pixels)
        self._shape = pixels.shape  # of all frames
        size = self._wanted or _choose_batch_size(self._network.device.platform, pixels)
        self._batch_size, self._sizes = size, _create_sizes(size)
        # Enough that a full batch waits before some hop as long as there are videos.
        self._num_slots = len(self._hops) * (size - 1) + 1 + (self._in_flight - 1) * size
        self._slots = {}
        self._waiting: list[deque[int]] = [deque() for _ in self._hops]  # rows, by their next hop
        self._states = self._create_states()  # after the last kept frame
        self._news = self._create_states()  # after the frame in progress
        self._features = self._create_features()  # after each hop

    def warm_up(self, height: int, width: int) -> None:
        """Compile everything for frames of a size; `recognize` then compiles nothing."""
        blank = np.zeros((height, width, 3), np.uint8)
        self._start(blank)
        for size in self._sizes:
            rows = self._fill([self._num_slots] * size)
            for i in range(len(self._hops)):
                self._compute(i, rows, [blank])
            self._write(rows)

    def recognize(self, videos: Iterable[Iterable[np.ndarray]]) -> Iterator[tuple[int, Result]]:
        """Yield the number of each video and its result, in the order in which they end.

        Frames are uint8 (h, w, 3). Videos and frames are read only when a slot is free, and never
        after an early exit. Raises ValueError for a frame that is not an image or not of the size
        of the others, and for a video without frames; RuntimeError while another call is in
        progress.
        """
        if self._busy:
            raise RuntimeError("recognize() is in progress; use another Lockstep")
        self._busy = True
        try:
            incoming = self._open(videos)
            first = next(incoming, None)
            if first is not None:
                self._start(first.pixels)
                yield from self._recognize(itertools.chain([first], incoming))
        finally:
            self._slots, self._busy = {}, False

    def _open(self, videos: Iterable[Iterable[np.ndarray]]) -> Iterator[_Slot]:
        """Read the first frame of each video."""
        classes = self._network.architecture.num_classes
        for number, video in enumerate(videos):
            frames = iter(video)
            pixels = next(frames, None)
            if pixels is None:
                raise ValueError(f"video {number} has no frames")
            consensus = Consensus(self._network.num_gates, classes, self._rule)
            yield _Slot(number, frames, consensus, pixels)

    def _recognize(self, incoming: Iterator[_Slot]) -> Iterator[tuple[int, Result]]:
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

    def _create_states(self) -> tuple[_State, ...]:
        """The memory of each hop, with one extra row for the empty places of a batch."""
        rows = self._num_slots + 1
        shape = rows, self._network.architecture.hidden
        past = create_past(self._network, (rows, *self._shape))
        past = jax.device_put(past, self._network.device)
        return tuple(
            _State(() if hop.gate is None else tuple(map(self._create_zeros, (shape, shape))), left)
            for hop, left in zip(self._hops, past, strict=False)  # the last span may be empty
        )

    def _create_zeros(self, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        """Zeros committed to the device like all later arrays; otherwise all is compiled twice."""
        return jax.device_put(jnp.zeros(shape, dtype), self._network.device)

    def _admit(self, incoming: Iterator[_Slot]) -> None:
        """Assign the free rows to the next videos."""
        free = [row for row in range(self._num_slots) if row not in self._slots]
        for row, slot in zip(free, incoming, strict=False):
            self._slots[row] = slot
            self._waiting[0].append(row)

    def _choose_hop(self) -> int | None:
        """The last hop with a full batch waiting, else the longest queue; None at the end."""
        lengths = [min(len(queue), self._batch_size) for queue in self._waiting]
        longest, last = max(zip(lengths, itertools.count(), strict=False))
        return last if longest else None

    def _launch(self, i: int) -> _Flight:
        queue = self._waiting[i]
        taken = [queue.popleft() for _ in range(min(len(queue), self._batch_size))]
        pixels = [self._slots[row].pixels for row in taken]
        return _Flight(i, taken, *self._compute(i, self._fill(taken), pixels))

    def _land(self, flight: _Flight) -> list[int]:
        """Wait for a batch; return the rows whose frame was stopped or kept."""
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
            if not slot.forced and self._network.writes(self._network.num_gates if passes else i):
                written.append(row)
                slot.fresh = False
            done.append(row)
        if written:
            self._write(self._fill(written))
        return done

    def _write(self, rows: Int[np.ndarray, "b"]) -> None:
        if jax.tree.leaves(self._news):
            self._states = _copy_rows(self._states, self._news, rows)

    def _fill(self, rows: list[int]) -> Int[np.ndarray, "b"]:
        """Pad rows to one of the batch sizes with the extra row."""
        size = next(size for size in reversed(self._sizes) if size >= len(rows))
        return np.array([*rows, *[self._num_slots] * (size - len(rows))])

    def _compute(
        self, i: int, rows: Int[np.ndarray, "b"], pixels: Sequence[np.ndarray]
    ) -> tuple[Float[Array, "b 2"] | None, Float[Array, "b n"] | None]:
        """The gate's logits, if there is a gate, and the classifier's after the last hop."""
        source = self._stack(pixels, len(rows)) if i == 0 else self._features[i - 1]
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
        """Stack frames to a batch; empty places repeat the first frame."""
        for image in pixels:
            check_pixels(image)
            if image.shape != self._shape:
                raise ValueError(f"frames of {image.shape} and of {self._shape}; make them one")
        return np.stack([*pixels, *[pixels[0]] * (size - len(pixels))])

    def _create_features(self) -> list[Any]:
        """Memory for the features of every slot after each hop; none after the last."""
        features: list[Any] = []
        x = jax.ShapeDtypeStruct((self._num_slots + 1, *self._shape), np.uint8)
        for hop in self._hops[:-1]:
            x, *_ = jax.eval_shape(hop.span, x)
            features.append(self._create_zeros(x.shape, x.dtype))
        return [*features, None]

    def _go_on(self, row: int) -> Result | None:
        """Start the next frame of a video; return its result if it has ended."""
        slot = self._slots[row]
        if not slot.forced and not slot.consensus.ended:
            pixels = next(slot.frames, None)
            if pixels is not None:
                slot.pixels = pixels
                self._waiting[0].append(row)
                return None
            slot.forced = not slot.consensus.kept_any and not self._network.released.empty
            if slot.forced and slot.stop < len(self._hops) - 1:  # else it is already classified
                self._waiting[slot.stop + 1].append(row)
                return None
        return slot.consensus.conclude(slot.logits if slot.forced else None)


def _choose_batch_size(platform: str, pixels: _Pixels) -> int:
    """The batch size with the least time per frame of this size."""
    if platform != "cpu":
        return _BATCH_SIZE
    room = _PIXELS_CPU // (pixels.shape[0] * pixels.shape[1])
    return max(2**n for n in range(_BATCH_SIZE_CPU.bit_length()) if 2**n <= max(room, 1))


def _create_sizes(batch_size: int) -> list[int]:
    """Batch sizes, descending; few, because each is compiled."""
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
    """Run a batch through a hop and write its outputs to the rows of `features` and `new`.

    `source` holds the pixels of the batch, or the features of all slots after the previous hop.
    """
    x = source if source.dtype == jnp.uint8 else source[rows]

    def recall(memory: Array) -> Array:
        return jnp.where(fresh.reshape(-1, *[1] * (memory.ndim - 1)), 0, memory[rows])

    x, pooled, left = hop.span(x, tuple(map(recall, state.past)))
    features = None if features is None else features.at[rows].set(x)
    cell: tuple[Array, ...] = ()
    gate_logits = None
    if hop.gate is not None:
        h, c, q = hop.gate(pooled, *map(recall, state.cell))
        cell, gate_logits = (h, c), hand_over(q)
    made = _State(cell, left)
    new = jax.tree.map(lambda memory, value: memory.at[rows].set(value), new, made)
    logits = None if hop.head is None else hand_over(hop.head(pooled))
    return features, new, gate_logits, logits


@functools.partial(jax.jit, donate_argnums=0)
def _copy_rows(
    states: tuple[_State, ...], news: tuple[_State, ...], rows: Int[Array, "b"]
) -> tuple[_State, ...]:
    """Store the states of kept frames as those of their videos."""
    return jax.tree.map(lambda state, new: state.at[rows].set(new[rows]), states, news)
