"""Windows over a stream of frames that need never end, in constant memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sofnet_jax.data.views import ROUNDING
from sofnet_jax.inference.online import Frame, Recognizer
from sofnet_jax.systems.early_exit import NEVER, Result, Rule
from sofnet_jax.systems.sofnet.folded import Network


@dataclass(frozen=True)
class Window:
    """A part of a stream, recognised as a video of its own.

    Attributes:
        start, end: its seconds in the stream.
        num_frames: that were looked at, or would have been but for an early end.
        times: of those looked at, in seconds.
        result: what became of them.
    """

    start: float
    end: float
    num_frames: int
    times: tuple[float, ...]
    result: Result


@dataclass
class _Open:
    """A window that goes on, from its first frame to look at, a number in the stream."""

    first: int
    recognizer: Recognizer
    times: list[float] = field(default_factory=list)


class Windows:
    """Recognises what happens in each window of a stream.

    A window is cut into equal segments, and one frame looked at of each: the first that is not
    before the segment's centre. A new window begins every so many segments; those that overlap
    share their frames, whose stages are computed once unless the network shifts.
    """

    def __init__(
        self,
        network: Network,
        rule: Rule = NEVER,
        *,
        num_frames: int,
        seconds: float,
        every: int | None = None,
        start: float | None = None,
        end: float | None = None,
    ):
        """Windows of a network from `deploy`.

        Args:
            network: of `deploy`.
            rule: of the early end; nothing more is read for a window that has ended.
            num_frames: T, the segments of a window.
            seconds: of a window.
            every: segments from the beginning of one window to that of the next; by default all of
                a window's, so that they do not overlap.
            start: the second at which the first window begins; by default that of the first frame.
            end: the second at which the stream ends, if that is known.
        """
        self._network, self._rule = network, rule
        self._num_frames = num_frames
        self._interval = seconds / num_frames
        self._every = every or num_frames
        self._origin = start
        self._end = end
        self._segment = -1  # the last that a frame was in
        self._next = 0  # the number of the next window to begin
        self._open: list[_Open] = []

    def step(self, time: float, frame: np.ndarray | Callable[[], np.ndarray]) -> list[Window]:
        """Takes the next frame of the stream; the windows that it completes, or that end early.

        Args:
            time: its seconds, which must not decrease.
            frame: uint8 of (h, w, 3), or what reads it: called only if a window wants the frame.
        """
        if self._origin is None:
            self._origin = time
        segment = math.floor((time - self._origin) / self._interval - 0.5 + ROUNDING)
        if segment <= self._segment:
            return []
        missed = [w for w in self._open if w.first + self._num_frames <= segment]
        begun = self._begin(segment)
        shared: Frame | np.ndarray | None = None
        if begun or len(missed) < len(self._open):  # if it cannot be read, nothing has changed
            shared = self._show(frame() if callable(frame) else frame)
        done = [self._close(window) for window in missed]
        self._segment = segment
        self._open += begun
        self._next = max(self._next, segment // self._every + 1)
        if shared is not None:
            for window in list(self._open):
                window.times.append(time)
                ended = window.recognizer.step(shared).ended
                if ended or segment == window.first + self._num_frames - 1:
                    done.append(self._close(window))
        return done

    def conclude(self) -> list[Window]:
        """The windows that are not complete, were the stream to end now; the next begins anew."""
        done = [self._close(window, self._segment + 1) for window in list(self._open)]
        self._origin, self._segment, self._next = None, -1, 0
        return done

    def _show(self, pixels: np.ndarray) -> Frame | np.ndarray:
        """What all windows are to look at; where a network shifts, its features are each one's."""
        return pixels if self._network.architecture.shift else Frame(self._network, pixels)

    def _begin(self, segment: int) -> list[_Open]:
        """The windows that a segment is the first seen of."""
        earliest = (segment - self._num_frames) // self._every + 1
        return [
            _Open(number * self._every, Recognizer(self._network, self._rule))
            for number in range(max(self._next, earliest), segment // self._every + 1)
        ]

    def _close(self, window: _Open, until: int | None = None) -> Window:
        """The result of a window that has all its segments, or those before `until`."""
        assert self._origin is not None
        self._open.remove(window)
        result = window.recognizer.result()
        last = window.first + self._num_frames
        start = self._origin + window.first * self._interval
        end = self._origin + last * self._interval
        if self._end is not None:
            end = min(end, self._end)
        elif until is not None:
            end = min(end, self._origin + until * self._interval)
        seen = len(window.times)
        if result.ended:  # of how many frames nobody has looked, only the clock tells
            centres = math.ceil((end - start) / self._interval - 0.5 - ROUNDING)
            seen = max(seen, min(centres, self._num_frames))
        return Window(start, end, seen, tuple(window.times), result)
