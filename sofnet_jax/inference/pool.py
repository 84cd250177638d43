"""Many videos on an accelerator: decisions about a pool of them never leave the device.

Frames arrive in groups of videos, each in one transfer, while the device computes the group
before. A compiled loop runs the span for which most frames wait, writes what it decided, and gives
the place of a video that ends to the next one. It stops when the older group is finished and no
full batch is left. The rest of the newer group then runs together with the next one.
"""

import functools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8
from scipy.special import softmax

from sofnet_jax.data.views import check_pixels
from sofnet_jax.inference.batch_size import choose_batch_size
from sofnet_jax.inference.lockstep import find_sources, put_rows, take_rows
from sofnet_jax.inference.online import begin
from sofnet_jax.systems.base import DONE, UNDECIDED, Network, Result, Trace, choose, find_device
from sofnet_jax.systems.early_exit import NEVER, Rule, Watched, see

_GROUP_SIZE, _GROUP_BYTES = 256, 2**30  # of frames that one transfer may take
_ROOM = 8  # lengths of videos are rounded up to multiples of it, since each is compiled
_PATIENCE = 1.0  # seconds after which a group goes as it is: then reading is what takes the time
_FREE = DONE - 1  # in place of a span: no video


@flax.struct.dataclass
class Group:
    """Videos on the device: their frames in the system's order, padded, and how many they are.

    Attributes:
        first: number of the first video.
    """

    pixels: UInt8[Any, "v t h w 3"]
    num_frames: Int[Any, "v"]
    first: Int[Any, ""]
    count: Int[Any, ""]


class Steps(NamedTuple):
    """Frames looked at, their actions, and the number of steps of each of s videos so far."""

    time: Int[Any, "s t"]
    action: Int[Any, "s t"]
    length: Int[Any, "s"]


@flax.struct.dataclass
class Slots:
    """The videos under way, and one row that fills up batches.

    Attributes:
        state: of each.
        carried: by span, what it left to its followers.
        span: the next one, or `_FREE`.
        newer: whether the video belongs to the newer group.
        place: of the video in its group.
    """

    state: Watched
    carried: tuple[Any, ...]
    steps: Steps
    span: Int[Array, "s"]
    newer: Bool[Array, "s"]
    place: Int[Array, "s"]


class Ended(NamedTuple):
    """Results in the order in which videos ended; rows from `total` on mean nothing."""

    number: Int[Array, "r"]
    num_frames: Int[Array, "r"]
    logits: Float[Array, "r n"]
    steps: Steps
    total: Int[Array, ""]


class _Progress(NamedTuple):
    slots: Slots
    span: Int[Array, ""]  # to run next
    admitted: Int[Array, ""]  # videos of the newer group
    ended: Ended


class Pool:
    """Recognises the actions of many videos; decides as `online.Recognizer` does."""

    def __init__(
        self,
        network: Network,
        rule: Rule = NEVER,
        *,
        batch_size: int | None = None,
        group_size: int = _GROUP_SIZE,
    ):
        """Configure how many frames pass a span together, and how many videos arrive together.

        By default `batch_size` is the fastest on the device (`batch_size.choose_batch_size`).
        """
        self.network, self.rule = network, rule
        self._batch_size, self.group_size = batch_size, group_size

    def warm_up(self, height: int, width: int, num_frames: int) -> None:
        """Compile everything for such videos; `recognize` then compiles nothing."""
        blank = np.zeros((num_frames, height, width, 3), np.uint8)
        for _ in self.recognize([blank]):
            pass

    def recognize(self, videos: Iterable[Iterable[np.ndarray]]) -> Iterator[tuple[int, Result]]:
        """Yield the number of each video and its result, in the order in which they end.

        Frames are uint8 (h, w, 3), in the architecture's order. All frames of a video are read, a
        group of videos ahead of the computation. Raises ValueError for a frame that is not an image
        or not of the size of the others, and for a video without frames.
        """
        passage: _Passage | None = None
        for first, group in self._gather(videos):
            longest, shape = max(map(len, group)), group[0][0].shape
            if passage and shape != passage.shape:
                raise ValueError(f"frames of {passage.shape} and of {shape}; make them one")
            if passage and longest > passage.length:
                yield from passage.finish()
                passage = None
            passage = passage or self._begin(shape, longest)
            yield from passage.push(first, group)
        if passage:
            yield from passage.finish()

    def _begin(self, shape: tuple[int, ...], length: int) -> "_Passage":
        if self._batch_size is None:
            self._batch_size = choose_batch_size(self.network, shape)
        room = -(-length // _ROOM) * _ROOM
        return _Passage(self, self._batch_size, shape, room)

    def _gather(
        self, videos: Iterable[Iterable[np.ndarray]]
    ) -> Iterator[tuple[int, list[list[np.ndarray]]]]:
        """Groups of videos, and the number of the first video of each."""
        group: list[list[np.ndarray]] = []
        began, first = time.monotonic(), 0
        for number, video in enumerate(videos):
            group.append(_read_frames(number, video))
            if len(group) == self.group_size or time.monotonic() - began > _PATIENCE:
                yield first, group
                group, began, first = [], time.monotonic(), number + 1
        if group:
            yield first, group


class _Passage:
    """Groups of videos of up to `length` frames that pass a pool, one after another."""

    def __init__(self, pool: Pool, batch_size: int, shape: tuple[int, ...], length: int):
        self._pool, self.shape, self.length = pool, shape, length
        self.batch_size = batch_size
        self._device = find_device(pool.network)
        network, spans = pool.network, pool.network.spans
        # Enough that a full batch waits before some span as long as there are videos.
        rows = len(spans) * (batch_size - 1) + 1
        first = begin(network, pool.rule, np.full(1, -1), shape)
        self._first = first
        self._slots = jax.jit(_create_slots, static_argnums=(2, 3, 4))(
            network, first, rows, length, shape
        )
        fitting = _GROUP_BYTES // (length * math.prod(shape))
        self._group_size = max(min(pool.group_size, fitting), 1)
        self._older = self._send(0, [])
        self._pending: Ended | None = None

    def push(self, first: int, group: list[list[np.ndarray]]) -> Iterator[tuple[int, Result]]:
        """Compute videos, and yield results of those before."""
        for start in range(0, len(group), self._group_size):
            part = group[start : start + self._group_size]
            yield from self._run(self._send(first + start, part), drains=False)

    def finish(self) -> Iterator[tuple[int, Result]]:
        """Compute what is left, and yield all that was not yielded yet."""
        yield from self._run(self._send(0, []), drains=True)
        yield from self._read()

    def _run(self, newer: Group, *, drains: bool) -> Iterator[tuple[int, Result]]:
        """Start a group; while the device computes it, read what the one before left."""
        self._slots, ended = _run(
            self._pool.network,
            self._first,
            self._slots,
            self._older,
            newer,
            np.array(drains),
            batch_size=self.batch_size,
        )
        yield from self._read()
        self._older, self._pending = newer, ended

    def _read(self) -> Iterator[tuple[int, Result]]:
        if self._pending is None:
            return
        ended: Ended = jax.device_get(self._pending)
        self._pending = None
        for i in range(int(ended.total)):
            count = ended.steps.length[i]
            trace = Trace(*(x[i, :count].astype(np.int64) for x in ended.steps[:2]))
            early = bool(count < ended.num_frames[i])
            logits = np.asarray(ended.logits[i])
            yield int(ended.number[i]), Result(softmax(logits), logits, trace, early)

    def _send(self, first: int, group: list[list[np.ndarray]]) -> Group:
        """Start the transfer of a group to the device."""
        size = self._group_size
        pixels = np.zeros((size, self.length, *self.shape), np.uint8)
        for place, frames in enumerate(group):
            if any(image.shape != self.shape for image in frames):
                raise ValueError(f"frames of {self.shape} and of another size; make them one")
            pixels[place, : len(frames)] = frames
        counts = np.zeros(size, np.int32)
        counts[: len(group)] = [len(frames) for frames in group]
        whole = Group(pixels, counts, np.int32(first), np.int32(len(group)))
        return jax.device_put(whole, self._device)


def _read_frames(number: int, video: Iterable[np.ndarray]) -> list[np.ndarray]:
    frames = list(video)
    if not frames:
        raise ValueError(f"video {number} has no frames")
    for image in frames:
        check_pixels(image)
    return frames


def _create_slots(
    network: Network, first: Watched, rows: int, length: int, shape: tuple[int, ...]
) -> Slots:
    """Places without videos."""

    def repeat(x: Array) -> Array:
        return jnp.broadcast_to(x, (rows + 1, *x.shape[1:])) if x.ndim else x

    state = jax.tree.map(repeat, first)
    carried: list[Any] = []
    for i, span in enumerate(network.spans):
        source = find_sources(network.spans).get(i)
        x = jnp.zeros((rows + 1, *shape), jnp.uint8) if source is None else carried[source]
        shapes, _ = jax.eval_shape(span.extract, state.inner, x)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        carried.append(zeros if span.followers else None)
    nothing, steps = jnp.zeros(rows + 1, jnp.int32), _create_steps(rows + 1, length)
    span = jnp.full(rows + 1, _FREE).at[rows].set(DONE)  # the last row is never free
    return Slots(state, tuple(carried), steps, span, jnp.zeros(rows + 1, bool), nothing)


def _create_steps(rows: int, length: int) -> Steps:
    nothing = jnp.zeros((rows, length), jnp.int32)
    return Steps(time=nothing, action=nothing, length=nothing[:, 0])


@functools.partial(jax.jit, static_argnames="batch_size", donate_argnames="slots")
def _run(
    network: Network,
    first: Watched,
    slots: Slots,
    older: Group,
    newer: Group,
    drains: Bool[Array, ""],
    *,
    batch_size: int,
) -> tuple[Slots, Ended]:
    """Finish the older group and begin the newer one; with `drains`, finish both."""
    rows, length = slots.steps.time.shape
    size = rows + len(newer.num_frames)
    ended = Ended(
        number=jnp.zeros(size, jnp.int32),
        num_frames=jnp.zeros(size, jnp.int32),
        logits=jnp.zeros((size, first.answer.shape[-1])),
        steps=_create_steps(size, length),
        total=jnp.int32(0),
    )

    def choose_span(p: _Progress) -> Int[Array, ""]:
        """The last span of those for which most frames wait; `DONE` if this call has to end."""
        active = p.slots.span >= 0
        lengths = _count_waiting(network, p.slots)
        old = (active & ~p.slots.newer).any()
        goes_on = old | (lengths.max() >= batch_size) | (drains & active.any())
        goes_on |= p.admitted < newer.count
        last = len(lengths) - 1 - jnp.argmax(jnp.minimum(lengths, batch_size)[::-1])
        return jnp.where(goes_on, last, DONE)

    def wants(i: int, p: _Progress) -> Bool[Array, ""]:
        return p.span == i

    def run(i: int, p: _Progress) -> _Progress:
        p = _admit(first, newer, _look(network, i, (older, newer), p, batch_size))
        return p._replace(span=choose_span(p))

    def advance(p: _Progress) -> _Progress:
        # Loops, not branches: a branch would copy all features that it does not change.
        for i in range(len(network.spans)):
            p = jax.lax.while_loop(functools.partial(wants, i), functools.partial(run, i), p)
        return p

    begun = replace(slots, newer=jnp.zeros_like(slots.newer))
    p = _admit(first, newer, _Progress(begun, jnp.int32(0), jnp.int32(0), ended))
    p = p._replace(span=choose_span(p))
    p = jax.lax.while_loop(lambda p: p.span != DONE, advance, p)
    return p.slots, p.ended


def _count_waiting(network: Network, slots: Slots) -> Int[Array, "k"]:
    """The number of frames that wait before each span."""
    return (slots.span == jnp.arange(len(network.spans))[:, None]).sum(1)


def _admit(first: Watched, newer: Group, p: _Progress) -> _Progress:
    """Give free places to the next videos."""
    slots = p.slots
    free = slots.span == _FREE
    place = p.admitted + jnp.cumsum(free) - 1
    admitted = free & (place < newer.count)
    counts = newer.num_frames[jnp.minimum(place, len(newer.num_frames) - 1)]
    begun = jax.tree.map(
        lambda x, y: jnp.broadcast_to(x, y.shape) if y.ndim else x, first, slots.state
    )
    begun = replace(begun, inner=replace(begun.inner, num_frames=counts))
    slots = replace(
        slots,
        state=choose(admitted, begun, slots.state),
        steps=slots.steps._replace(length=jnp.where(admitted, 0, slots.steps.length)),
        span=jnp.where(admitted, begun.next.span, slots.span),
        newer=admitted | slots.newer,
        place=jnp.where(admitted, place, slots.place),
    )
    return p._replace(slots=slots, admitted=p.admitted + admitted.sum(dtype=jnp.int32))


def _look(
    network: Network, i: int, groups: tuple[Group, Group], p: _Progress, batch_size: int
) -> _Progress:
    """Run a span on a batch of the frames that wait for it, and write what it decided."""
    slots, span = p.slots, network.spans[i]
    rows = jnp.nonzero(slots.span == i, size=batch_size, fill_value=len(slots.span) - 1)[0]
    before = take_rows(slots.state, rows)
    looked, count = before.next.time, slots.steps.length[rows]
    source = slots.carried[find_sources(network.spans).get(i, i)]
    x = _read_pixels(groups, slots, rows) if span.looks else take_rows(source, rows)
    carry, (state, _, _) = see(span, before, x)
    carried = list(slots.carried)
    if span.followers:
        carried[i] = put_rows(carried[i], rows, carry)
    following, _, action = state.needed.T
    real = rows < len(slots.span) - 1
    at = jnp.where(real & (action != UNDECIDED), count, slots.steps.time.shape[1])  # or nowhere
    steps = Steps(
        slots.steps.time.at[rows, at].set(looked, mode="drop"),
        slots.steps.action.at[rows, at].set(action, mode="drop"),
        slots.steps.length.at[rows].add(real & (action != UNDECIDED)),
    )
    done = real & (following == DONE)
    slots = replace(
        slots,
        state=put_rows(slots.state, rows, state),
        carried=tuple(carried),
        steps=steps,
        span=slots.span.at[rows].set(jnp.where(real, jnp.where(done, _FREE, following), DONE)),
    )
    return p._replace(slots=slots, ended=_end(groups, slots, p.ended, rows, done, state))


def _read_pixels(
    groups: tuple[Group, Group], slots: Slots, rows: Int[Array, "b"]
) -> UInt8[Array, "b h w 3"]:
    """The next frame of each row."""
    place, at = slots.place[rows], slots.steps.length[rows]
    older, newer = (group.pixels[place, at] for group in groups)
    return choose(slots.newer[rows], newer, older)


def _end(
    groups: tuple[Group, Group],
    slots: Slots,
    ended: Ended,
    rows: Int[Array, "b"],
    done: Bool[Array, "b"],
    state: Watched,
) -> Ended:
    """Add the results of the rows that are done."""
    at = jnp.where(done, ended.total + jnp.cumsum(done) - 1, len(ended.number))  # or nowhere
    first = jnp.where(slots.newer[rows], groups[1].first, groups[0].first)
    new = Ended(
        number=first + slots.place[rows],
        num_frames=state.inner.num_frames,
        logits=state.answer,
        steps=Steps(*(x[rows] for x in slots.steps)),
        total=ended.total,
    )
    total = ended.total + done.sum(dtype=jnp.int32)
    return jax.tree.map(lambda x, y: x.at[at].set(y, mode="drop") if x.ndim else total, ended, new)
