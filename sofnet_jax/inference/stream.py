"""Windows over an endless stream of frames, in constant memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from sofnet_jax.data.views import ROUNDING
from sofnet_jax.inference.online import Frame, Recognizer
from sofnet_jax.systems.base import Network, Result
from sofnet_jax.systems.early_exit import NEVER, Rule


@dataclass(frozen=True)
class Window:
    """A part of a stream, from second `start` to `end`, recognised as a video of its own.

    `times` are those of the frames looked at; the rest of its `num_frames` followed an early exit.
    A stream's later frames are not known yet, so one is counted for each segment.
    """

    start: float
    end: float
    num_frames: int
    times: tuple[float, ...]
    result: Result


@dataclass
class _Open:
    """A window in progress; `first` is the number of its first segment in the stream."""

    first: int
    recognizer: Recognizer
    times: list[float] = field(default_factory=list)


class Windows:
    """Recognises the action of each window of a stream.

    A window is cut into equal segments; the first frame at or after the centre of each is looked
    at. Overlapping windows share their frames, whose stages are computed once unless the network
    shifts.
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
        times: Float[np.ndarray, "f"] | None = None,
    ):
        """Take a network from `deploy`, and windows of `num_frames` segments and `seconds`.

        `every` counts segments between the starts of windows; by default they do not overlap. The
        first starts at second `start`, by default that of the first frame; the stream ends at
        `end`, if known, and its frames are at `times`, if known; those need `start`.
        """
        self._network = network
        self._recognizer = Recognizer(network, rule)  # copied for each window
        self._num_frames = num_frames
        self._interval = seconds / num_frames
        self._every = every or num_frames
        self._origin = start
        self._end = end
        self._known = None if times is None else self._place(times)  # segments with a frame
        self._segment = -1  # that of the last frame looked at
        self._next = 0  # number of the next window
        self._open: list[_Open] = []

    def step(self, time: float, frame: np.ndarray | Callable[[], np.ndarray]) -> list[Window]:
        """Take the next frame; return the windows that it completes or that end early.

        `time` in seconds must not decrease; `frame` is uint8 (h, w, 3), or a function that reads
        it, called only if a window needs it.
        """
        if self._origin is None:
            self._origin = time
        segment = int(self._place(time))
        if segment <= self._segment:
            return []
        missed = [w for w in self._open if w.first + self._num_frames <= segment]
        begun = self._begin(segment)
        shared: Frame | np.ndarray | None = None
        if begun or len(missed) < len(self._open):  # if it cannot be read, nothing has changed
            pixels = frame() if callable(frame) else frame
            shared = Frame(self._network, pixels) if self._network.shares else pixels
        done = [self._close(window) for window in missed]
        self._segment = segment
        self._open += begun
        self._next = max(self._next, segment // self._every + 1)
        if shared is not None:
            for window in list(self._open):
                window.times.append(time)
                ended = window.recognizer.step(shared)
                if ended or segment == window.first + self._num_frames - 1:
                    done.append(self._close(window))
        return done

    def conclude(self) -> list[Window]:
        """End the stream: return the incomplete windows; the next frame begins another stream."""
        done = [self._close(window, self._segment + 1) for window in list(self._open)]
        self._origin, self._known = None, None
        self._segment, self._next = -1, 0
        return done

    def _place(self, times: Any) -> Any:
        """The last segment whose centre is not after a time, or after each of several."""
        assert self._origin is not None
        return np.floor((times - self._origin) / self._interval - 0.5 + ROUNDING)

    def _begin(self, segment: int) -> list[_Open]:
        """The windows of which this segment is the first one seen."""
        earliest = (segment - self._num_frames) // self._every + 1
        return [
            _Open(number * self._every, self._recognizer.copy())
            for number in range(max(self._next, earliest), segment // self._every + 1)
        ]

    def _close(self, window: _Open, until: int | None = None) -> Window:
        """The result of a window that is complete, or has the segments before `until`."""
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
        if result.ended and self._known is not None:
            begin, stop = np.searchsorted(self._known, [window.first, last])
            seen = int(stop - begin)
        elif result.ended:  # the unseen frames are counted by their times
            centres = math.ceil((end - start) / self._interval - 0.5 - ROUNDING)
            seen = max(seen, min(centres, self._num_frames))
        return Window(start, end, seen, tuple(window.times), result)
