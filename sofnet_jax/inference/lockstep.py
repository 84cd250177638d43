"""Many videos at once: batches hold only active frames.

Each video occupies a slot and has one frame in progress. Frames wait before each span until they
fill a batch and pass it together; then their system decides about each. A finished frame's slot is
refilled with its video's next frame, a finished video's slot with the next video. Only towards the
end do smaller batches take what is left.
"""

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from sofnet_jax.data.views import check_pixels
from sofnet_jax.engines.network import has_engine
from sofnet_jax.inference.online import Recorder, begin, finish, hand_over
from sofnet_jax.systems.base import Network, Result, Span, choose, find_device
from sofnet_jax.systems.early_exit import NEVER, Rule, Settled, Watched, settle

_BATCH_SIZE = 32
_BATCH_SIZE_CPU, _PIXELS_CPU = 4, 192**2 * 4  # the features of larger batches outgrow the cache
# Batches: the device computes one while Python reads the answer to another, unless both use the
# same cores.
_IN_FLIGHT, _IN_FLIGHT_CPU = 2, 1
_SHRINK = 4  # the next smaller batch size is a quarter

_Pixels = UInt8[np.ndarray, "h w 3"]


class _Flight(NamedTuple):
    """A batch on the device: its span, its rows, and the pending answers."""

    span: int
    rows: list[int]
    needed: Int[Any, "b 3"]
    logits: Float[Any, "b n"] | None


@dataclass
class _Slot:
    """A video in progress: its number, its next frames, and what was done so far."""

    number: int
    frames: Iterator[_Pixels]
    record: Recorder
    pixels: _Pixels  # of the frame in progress
    num_frames: int  # -1: unknown
    fresh: bool = True  # whether its state has yet to begin
    looked: int = 0  # frames before the one in progress


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
        usual = _IN_FLIGHT_CPU if find_device(network).platform == "cpu" else _IN_FLIGHT
        self._in_flight = in_flight or usual
        self._network, self._rule = network, rule
        self._sources = find_sources(network.spans)
        self._wanted = batch_size
        self._busy = False  # whether results are being taken
        self._slots: dict[int, _Slot] = {}

    def _start(self, pixels: _Pixels) -> None:
        """Allocate memory for videos of this frame's size."""
        check_pixels(pixels)
        self._shape = pixels.shape  # of all frames
        size = self._wanted or _choose_batch_size(find_device(self._network).platform, pixels)
        self._batch_size, self._sizes = size, _create_sizes(size)
        # Enough that a full batch waits before some span as long as there are videos.
        self._num_slots = len(self._network.spans) * (size - 1) + 1 + (self._in_flight - 1) * size
        self._slots = {}
        self._waiting: list[deque[int]] = [deque() for _ in self._network.spans]  # rows
        # One more row is for the empty places of a batch.
        self._states = self._begin(self._num_slots + 1)
        self._first = self._begin(1)
        self._carried = self._create_carried()  # by span, what its followers start with

    def warm_up(self, height: int, width: int, num_frames: int = 1) -> None:
        """Compile everything for frames of a size, of videos of any length.

        `recognize` then compiles nothing.
        """
        blank = np.zeros((height, width, 3), np.uint8)
        self._start(blank)
        for size in self._sizes:
            rows = self._fill([self._num_slots] * size)
            for i in range(len(self._network.spans)):
                self._compute(i, rows, [blank])
        self._finish(self._num_slots)

    def recognize(self, videos: Iterable[Iterable[np.ndarray]]) -> Iterator[tuple[int, Result]]:
        """Yield the number of each video and its result, in the order in which they end.

        Frames are uint8 (h, w, 3), in the architecture's order. Videos and frames are read only
        when a slot is free, and never after an early exit. Raises ValueError for a frame that is
        not an image or not of the size of the others, and for a video without frames; RuntimeError
        while another call is in progress.
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
        for number, video in enumerate(videos):
            frames = iter(video)
            pixels = next(frames, None)
            if pixels is None:
                raise ValueError(f"video {number} has no frames")
            count = len(video) if isinstance(video, Sequence | np.ndarray) else -1
            yield _Slot(number, frames, Recorder(self._network), pixels, count)

    def _recognize(self, incoming: Iterator[_Slot]) -> Iterator[tuple[int, Result]]:
        flying: deque[_Flight] = deque()
        while True:
            self._admit(incoming)
            span = self._choose_span()
            whole = span is not None and len(self._waiting[span]) >= self._batch_size
            if span is not None and (not flying or (whole and len(flying) < self._in_flight)):
                flying.append(self._launch(span))
                continue
            if not flying:
                return
            for row in self._land(flying.popleft()):
                slot = self._slots.pop(row)
                known = None if slot.num_frames < 0 else slot.num_frames
                yield slot.number, slot.record.conclude(known)

    def _begin(self, rows: int) -> Watched:
        """First states."""
        state = begin(self._network, self._rule, np.full(rows, -1), self._shape)
        if has_engine(self._network):
            return state
        return jax.tree.map(jnp.copy, state)  # a batch donates each array, so none may be shared

    def _admit(self, incoming: Iterator[_Slot]) -> None:
        """Assign the free rows to the next videos."""
        free = [row for row in range(self._num_slots) if row not in self._slots]
        for row, slot in zip(free, incoming, strict=False):
            self._slots[row] = slot
            self._waiting[slot.record.span].append(row)

    def _choose_span(self) -> int | None:
        """The last span with a full batch waiting, else the longest queue; None at the end."""
        lengths = [min(len(queue), self._batch_size) for queue in self._waiting]
        longest, last = max(zip(lengths, itertools.count(), strict=False))
        return last if longest else None

    def _launch(self, i: int) -> _Flight:
        queue = self._waiting[i]
        taken = [queue.popleft() for _ in range(min(len(queue), self._batch_size))]
        pixels = [self._slots[row].pixels for row in taken]
        return _Flight(i, taken, *self._compute(i, self._fill(taken), pixels))

    def _land(self, flight: _Flight) -> list[int]:
        """Wait for a batch; let its frames wait for their next spans; return the rows that end."""
        needed = np.asarray(flight.needed).tolist()
        logits = None if flight.logits is None else np.asarray(flight.logits)
        done = []
        for place, row in enumerate(flight.rows):
            slot = self._slots[row]
            slot.fresh = False
            slot.record.read(needed[place], None if logits is None else logits[place])
            if self._goes_on(row, slot):
                self._waiting[slot.record.span].append(row)
            else:
                done.append(row)
        return done

    def _goes_on(self, row: int, slot: _Slot) -> bool:
        """True if a video needs another span; its next frame is read if that starts with pixels."""
        if slot.record.done:
            return False
        if self._network.spans[slot.record.span].looks and len(slot.record) > slot.looked:
            pixels = next(slot.frames, None)
            if pixels is None:
                slot.record.finish(self._finish(row))
                return not slot.record.done
            slot.pixels, slot.looked = pixels, len(slot.record)
        return True

    def _finish(self, row: int) -> list[int]:
        finish_row = _finish_row if has_engine(self._network) else _finish_row_jitted
        self._states, needed = finish_row(self._states, np.array([row]))
        return np.asarray(needed)[0].tolist()

    def _fill(self, rows: list[int]) -> Int[np.ndarray, "b"]:
        """Pad rows to one of the batch sizes with the extra row."""
        size = next(size for size in reversed(self._sizes) if size >= len(rows))
        return np.array([*rows, *[self._num_slots] * (size - len(rows))])

    def _compute(
        self, i: int, rows: Int[np.ndarray, "b"], pixels: Sequence[np.ndarray]
    ) -> tuple[Int[Any, "b 3"], Float[Any, "b n"] | None]:
        """Run a span: what the videos need next, and the answer if the span may change it."""
        span = self._network.spans[i]
        source = self._stack(pixels, len(rows)) if span.looks else self._carried[self._sources[i]]
        slots = [self._slots.get(row) for row in rows.tolist()]
        fresh = np.array([slot is None or slot.fresh for slot in slots])
        counts = np.array([-1 if slot is None else slot.num_frames for slot in slots], np.int32)
        if has_engine(self._network):
            return self._compute_in_engine(i, source, rows, fresh, counts)
        begun = self._first, rows, fresh, counts
        self._carried[i], (self._states, needed, logits) = _advance(
            span, source, self._states, self._carried[i], *begun
        )
        return needed, logits

    def _compute_in_engine(
        self,
        i: int,
        source: Any,
        rows: Int[np.ndarray, "b"],
        fresh: Bool[np.ndarray, "b"],
        counts: Int[np.ndarray, "b"],
    ) -> tuple[Int[Any, "b 3"], Float[Any, "b n"] | None]:
        """The same in an engine, whose states and features are in this memory."""
        span = self._network.spans[i]
        if span.looks:
            put_rows(self._states, rows[fresh], self._first)
            self._states.inner.num_frames[rows[fresh]] = counts[fresh]
        else:
            there = [source.get(row, source[rows[0]]) for row in rows.tolist()]  # or in no row
            source = jax.tree.map(lambda *x: np.stack(x), *there)
        carry, (state, needed, logits) = span.see(take_rows(self._states, rows), source)
        put_rows(self._states, rows, state)
        for place, row in enumerate(rows.tolist()):
            self._carried[i][row] = jax.tree.map(lambda x, place=place: x[place], carry)
        return needed, logits

    def _stack(self, pixels: Sequence[np.ndarray], size: int) -> UInt8[np.ndarray, "b h w 3"]:
        """Stack frames to a batch; empty places repeat the first frame."""
        for image in pixels:
            check_pixels(image)
            if image.shape != self._shape:
                raise ValueError(f"frames of {image.shape} and of {self._shape}; make them one")
        return np.stack([*pixels, *[pixels[0]] * (size - len(pixels))])

    def _create_carried(self) -> list[Any]:
        """Memory for what each span leaves to its followers, in every row."""
        if has_engine(self._network):
            return [{} for _ in self._network.spans]
        carried: list[Any] = []
        rows = self._num_slots + 1
        pixels = jax.ShapeDtypeStruct((rows, *self._shape), np.uint8)
        for i, span in enumerate(self._network.spans):
            x = pixels if span.looks else carried[self._sources[i]]
            shapes, _ = jax.eval_shape(span.extract, self._states.inner, x)
            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            carried.append(
                jax.device_put(zeros if span.followers else None, find_device(self._network))
            )
        return carried


def find_sources(spans: Sequence[Span]) -> dict[int, int]:
    """The span that runs before each, on the same frame."""
    return {follower: i for i, span in enumerate(spans) for follower in span.followers}


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


def take_rows(tree: Any, rows: Int[Any, "b"]) -> Any:
    """The values of some rows; what is common to all rows stays."""
    return jax.tree.map(lambda x: x[rows] if x.ndim else x, tree)


def put_rows(tree: Any, rows: Int[Any, "b"], values: Any) -> Any:
    """The tree with values in some rows. NumPy's arrays themselves are changed."""

    def put(x: Any, y: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x.at[rows].set(y) if x.ndim else x
        if x.ndim:
            x[rows] = y
        return x

    return jax.tree.map(put, tree, values)


@functools.partial(jax.jit, donate_argnums=(2, 3))
def _advance(
    span: Span,
    source: Any,
    states: Watched,
    carried: Any,
    first: Watched,
    rows: Int[Array, "b"],
    fresh: Bool[Array, "b"],
    counts: Int[Array, "b"],
) -> tuple[Any, Settled]:
    """Run a batch through a span and write its outputs to the rows of `carried` and `states`.

    `source` holds the pixels of the batch, or what the span before left of all slots. The states
    of fresh rows begin with `first`, for videos of `counts` frames.
    """
    x = source if span.looks else take_rows(source, rows)
    state = _begin_rows(span, states, first, rows, fresh, counts)
    carry, evidence = span.extract(state.inner, x)
    if span.followers:
        carried = put_rows(carried, rows, carry)
    state, needed, logits = settle(span, state, evidence)
    states, needed = put_rows(states, rows, state), hand_over(needed)
    return carried, (states, needed, None if logits is None else hand_over(logits))


def _begin_rows(
    span: Span,
    states: Watched,
    first: Watched,
    rows: Int[Array, "b"],
    fresh: Bool[Array, "b"],
    counts: Int[Array, "b"],
) -> Watched:
    """The states of rows; the first ones where they are fresh."""
    state = take_rows(states, rows)
    if not span.looks:
        return state
    begun = jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape), first, state)
    begun = replace(begun, inner=replace(begun.inner, num_frames=counts))
    return choose(fresh, begun, state)


def _finish_row(states: Watched, rows: Int[Any, "1"]) -> tuple[Watched, Any]:
    """No other frame of a video comes."""
    state, needed = finish(take_rows(states, rows))
    return put_rows(states, rows, state), needed


_finish_row_jitted = jax.jit(_finish_row, donate_argnums=0)
