"""Reads frames of a video file one by one, and decodes no further than it is asked."""

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator

import numpy as np
from jaxtyping import Int, UInt8

from sofnet_jax.data.video.canvas import Canvas
from sofnet_jax.data.video.container import Video, VideoError, report_errors
from sofnet_jax.data.video.decode import Choose, Part, plan_runs, require_file, sort_packets

Pixels = UInt8[np.ndarray, "h w 3"]
_Frames = Generator[tuple[Pixels, float], None, None]
# The time of a frame in seconds, and a function that decodes it.
LazyFrame = tuple[float, Callable[[], Pixels]]

_AHEAD = 64  # frames; so many are planned at a time, which bounds the memory they take


class VideoReader:
    """An open video file. Not for more than one thread at a time.

    Opening it reads the file's packets, for their times, and decodes nothing, unless the packets
    do not tell them (`decode.read_frames`): then everything is decoded once.
    """

    def __init__(self, path: str | os.PathLike, *, short_side: int = 0):
        """Raises VideoError. `short_side` is as of `read_frames`."""
        self._path = os.fspath(path)
        self._short_side = short_side
        self._upcoming = _read_nothing()
        self._following = -1  # the number of the frame that comes next of it
        require_file(self._path)
        self._video = Video(self._path)
        self._index = self._video.read_index()
        self._order = None if self._index is None else sort_packets(self._index)
        if self._index is None or self._order is None:
            self._count_frames()
        else:
            self.times = self._video.seconds(self._index.pts[self._order])
        if not len(self.times):
            self._video.__exit__()
            raise VideoError(f"{self._path}: no frame can be decoded")

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_) -> None:
        self._upcoming.close()
        self._video.__exit__()

    @property
    def end(self) -> float:
        """Seconds at which the last frame ends."""
        return float(self.times[-1] + np.ptp(self.times) / max(len(self.times) - 1, 1))

    def read(
        self, choose: Choose, *, start: float | None = None, end: float | None = None
    ) -> _Frames:
        """Yields the frames of `read_frames` and their times, each decoded when it is asked for.

        `choose` picks them in ascending order. Where the file turns out to be damaged after some
        frames were given, it is asked again, and the frames after so many of its new choice follow.
        Raises VideoError.
        """
        part = Part(self._path, choose, start, end, strict=True)
        given = 0
        if self._order is not None:
            selected = part.select(self.times)
            for pixels in self._decode_packets(self._order[selected]):
                yield pixels, float(self.times[selected[given]])
                given += 1
            if given == len(selected):
                return
            self._count_frames()
        selected = part.select(self.times)[given:]
        for i, pixels in zip(selected, self._decode_in_order(selected), strict=True):
            yield pixels, float(self.times[i])

    def scan(self, chosen: Int[np.ndarray, "n"]) -> Iterator[LazyFrame]:
        """Yields the times of the ascending frames `chosen`, with what reads each.

        Those that are not read are not decoded, as far as none that is read depends on them.
        """
        for i, time in enumerate(self.times[chosen].tolist()):
            yield time, functools.partial(self._read_next, chosen, i)

    def _read_next(self, chosen: Int[np.ndarray, "n"], i: int) -> Pixels:
        """Frame i of the chosen ones; goes on decoding if the one before was the last read."""
        if i != self._following or i % _AHEAD == 0:
            self._upcoming.close()
            part = chosen[i : i - i % _AHEAD + _AHEAD]
            self._upcoming = self.read(lambda n: np.minimum(part, n - 1))
        self._following = i + 1
        return next(self._upcoming)[0]

    def _decode_packets(self, packets: Int[np.ndarray, "t"]) -> Iterator[Pixels]:
        """The frames of packets, in their order; fewer if one does not come out."""
        assert self._index is not None
        distinct, image = np.unique(packets, return_inverse=True)
        canvas, painted = Canvas(len(distinct), self._short_side), set()
        place = {pts: i for i, pts in enumerate(self._index.pts[distinct].tolist())}
        runs = iter(plan_runs(distinct, self._index))
        frames = self._video.decode_runs(runs, frozenset(distinct.tolist()), self._index)
        with contextlib.closing(frames), report_errors(self._path):
            for i in image.tolist():
                while i not in painted:
                    frame = next(frames, None)
                    if frame is None:
                        return
                    if frame.pts in place:
                        canvas.paint(place[frame.pts], frame)
                        painted.add(place[frame.pts])
                yield canvas.images[i]

    def _count_frames(self) -> None:
        """Decodes everything, for the times of the frames that come out; they are the video."""
        self._order = None
        self._video.__exit__()
        with Video(self._path) as video:
            self.times = video.read_times()
        self._rewind()

    def _rewind(self) -> None:
        self._video.__exit__()
        self._video = Video(self._path)
        self._frames = enumerate(self._video.decode())
        self._passed = 0  # of the frames

    def _decode_in_order(self, selected: Int[np.ndarray, "t"]) -> Iterator[Pixels]:
        """The frames by their numbers; what lies between is decoded too."""
        distinct, image = np.unique(selected, return_inverse=True)
        if len(distinct) and distinct[0] < self._passed:
            self._rewind()
        canvas, painted = Canvas(len(distinct), self._short_side), 0
        with report_errors(self._path):
            for i in image.tolist():
                while i >= painted:
                    n, frame = next(self._frames, (-1, None))
                    if frame is None:
                        raise VideoError(f"{self._path}: the file changed while it was read")
                    self._passed = n + 1
                    if n == distinct[painted]:
                        canvas.paint(painted, frame)
                        painted += 1
                yield canvas.images[i]


def _read_nothing() -> _Frames:
    yield from ()
