"""Read chosen frames of a video file, and decode no more for them than it must."""

import contextlib
import functools
import os
import stat
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from sofnet_jax.data.video.canvas import Canvas
from sofnet_jax.data.video.container import Index, PacketRange, Video, VideoError, report_errors
from sofnet_jax.host.time_limit import TimeLimit

Pixels = UInt8[np.ndarray, "h w 3"]
# The time of a frame in seconds, and a function that decodes it.
LazyFrame = tuple[float, Callable[[], Pixels]]
# The number of available frames -> the indices of the frames wanted, in presentation order.
Choose = Callable[[int], Int[np.ndarray, "t"]]

_AHEAD = 64  # frames that `scan` plans at a time, which bounds the memory they take
_END_TOLERANCE = 1.0  # seconds; annotations are often rounded up to the next whole second


@dataclass(frozen=True)
class Footage:
    """Chosen frames of a video or of a section of it, and what is known of the whole section.

    Attributes:
        frames: the chosen ones.
        times: seconds from the beginning of the file.
        available: the number of frames in the section.
        duration: of the section, in seconds.
        end: of its last frame, in seconds from the beginning of the file.
        width: of the upright picture in the file, in pixels.
        height: likewise.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    times: Float[np.ndarray, "t"]
    available: int
    duration: float
    end: float
    width: int
    height: int


class VideoReader:
    """An open video file. Not for more than one thread at a time.

    Opening it reads the file's packets for their times and decodes nothing, unless the packets do
    not tell the times (`Video.read_index`): then everything is decoded once.
    """

    def __init__(
        self, path: str | os.PathLike, *, short_side: int = 0, limit: TimeLimit | None = None
    ):
        """Frames are scaled down to a short side of `short_side` pixels, unless that is 0.

        This and every other call raises VideoError for a damaged file, and once `limit` has passed.
        """
        self._path = os.fspath(path)
        self._short_side = short_side
        self._limit = limit
        self._upcoming: Generator[tuple[Pixels, float], None, None] | None = None
        self._following = -1  # the number of the next frame of `_upcoming`
        self._passed = 0  # frames, where they are decoded in order
        self._video = open_video(self._path, limit)
        self._index = self._video.read_index()
        self._order = None if self._index is None else _sort_packets(self._index)
        if self._index is None or self._order is None:
            self._count_frames()
        else:
            self.times = self._video.seconds(self._index.pts[self._order])
            self._require_frames()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_) -> None:
        if self._upcoming is not None:
            self._upcoming.close()
        self._video.close()

    @property
    def end(self) -> float:
        """Seconds at which the last frame ends."""
        return float(self.times.max() + np.ptp(self.times) / max(len(self.times) - 1, 1))

    @property
    def missing(self) -> float:
        """Seconds that the header promises after the last frame; 0 up to a second."""
        frames, seconds = self._video.promised
        missing = seconds - self.end
        return 0.0 if 0 < frames <= len(self.times) or missing <= _END_TOLERANCE else missing

    def read_footage(
        self,
        choose: Choose,
        *,
        start: float | None = None,
        end: float | None = None,
        strict: bool = False,
        num_threads: int = 1,
    ) -> Footage:
        """Read the frames that `choose` picks, all at once; see `decode.read_frames`."""
        available = self._find_available(start, end, strict)
        selected = available[choose(len(available))]
        distinct, image = np.unique(selected, return_inverse=True)
        canvas = Canvas(len(distinct), self._short_side)
        if self._order is None:
            _exhaust(self._paint_in_order(canvas, distinct))
        else:
            self._paint_in_threads(canvas, self._order[distinct], num_threads)
        if not canvas.complete:
            self._count_frames()
        if not canvas.complete or (canvas.mixed and num_threads > 1):
            return self.read_footage(choose, start=start, end=end, strict=strict)
        images = canvas.images
        until = self.end if end is None else min(self.end, end)
        return Footage(
            images if np.array_equal(image, np.arange(len(images))) else images[image],
            self.times[selected],
            len(available),
            until - max(float(self.times.min()), -np.inf if start is None else start),
            until,
            *canvas.upright_size,
        )

    def read(
        self, choose: Choose, *, start: float | None = None, end: float | None = None
    ) -> Generator[tuple[Pixels, float], None, None]:
        """Yield the frames of `decode.read_frames` and their times, each decoded when needed.

        `choose` picks them in ascending order. If the file turns out to be damaged after some
        frames were yielded, `choose` is called again, and its choice is continued after as many.
        Raises VideoError.
        """
        done = 0
        while True:
            available = self._find_available(start, end, strict=True)
            selected = available[choose(len(available))][done:]
            distinct, image = np.unique(selected, return_inverse=True)
            canvas = Canvas(len(distinct), self._short_side)
            if self._order is None:
                numbers = self._paint_in_order(canvas, distinct)
            else:
                numbers = self._paint_packets(self._video, canvas, self._order[distinct])
            with contextlib.closing(numbers):
                for i, time in zip(image.tolist(), self.times[selected].tolist(), strict=True):
                    while not canvas.has(i) and next(numbers, None) is not None:
                        pass
                    if not canvas.has(i):
                        break
                    self._video.check_time()
                    yield canvas.images[i], time
                    done += 1
                else:
                    return
            self._count_frames()

    def scan(self, chosen: Int[np.ndarray, "n"]) -> Iterator[LazyFrame]:
        """Yield the ascending frames `chosen` as time and decoding function.

        A frame whose function is not called is decoded only if one that is called depends on it.
        """
        for i, time in enumerate(self.times[chosen].tolist()):
            yield time, functools.partial(self._read_next, chosen, i)

    def _read_next(self, chosen: Int[np.ndarray, "n"], i: int) -> Pixels:
        """Frame i of the chosen ones; goes on decoding if the one before was the last read."""
        if i != self._following or i % _AHEAD == 0:
            if self._upcoming is not None:
                self._upcoming.close()
            part = chosen[i : i - i % _AHEAD + _AHEAD]
            self._upcoming = self.read(lambda n: np.minimum(part, n - 1))
        self._following = i + 1
        assert self._upcoming is not None
        return next(self._upcoming)[0]

    def _find_available(
        self, start: float | None, end: float | None, strict: bool
    ) -> Int[np.ndarray, "f"]:
        """Indices of the frames with start <= time < end. Raises VideoError if there are none.

        If `strict`, `end` may not be more than a second after the end of the video.
        """
        if strict and end is not None and end > self.end + _END_TOLERANCE:
            raise VideoError(
                f"{self._path}: end is {end:g} s, but the video lasts {self.end:.2f} s"
            )
        after = self.times >= (-np.inf if start is None else start)
        available = np.flatnonzero(after & (self.times < (np.inf if end is None else end)))
        if not len(available):
            raise VideoError(
                f"{self._path}: no frame from start={start} to end={end} s; the video lasts "
                f"{self.end:.2f} s"
            )
        return available

    def _paint_in_threads(
        self, canvas: Canvas, packets: Int[np.ndarray, "n"], num_threads: int
    ) -> None:
        plan = self._plan_ranges(packets)
        ranges = iter(plan)  # a thread that is free takes the next

        def assist() -> None:
            with Video(self._path, self._limit) as own:
                _exhaust(self._paint_packets(own, canvas, packets, ranges))

        with ThreadPoolExecutor(num_threads) as pool:
            assistance = [pool.submit(assist) for _ in range(1, min(num_threads, len(plan)))]
            _exhaust(self._paint_packets(self._video, canvas, packets, ranges))
        for result in assistance:
            result.result()

    def _plan_ranges(self, wanted: Int[np.ndarray, "n"]) -> list[PacketRange]:
        """The packets on which the `wanted` ones depend.

        A range begins at the last keyframe that is neither decoded nor shown after the wanted
        frame: what is decoded after a keyframe but shown before it may depend on earlier frames.
        """
        assert self._index is not None
        index, keys = self._index, np.flatnonzero(self._index.keyframe)
        ranges: list[PacketRange] = []
        for last in np.sort(wanted).tolist():
            self._video.check_time()  # a file may have keyframes without end
            k = np.searchsorted(keys, last, side="right") - 1
            while k >= 0 and index.pts[keys[k]] > index.pts[last]:
                k -= 1
            first = int(keys[k]) if k >= 0 else 0
            while ranges and first <= ranges[-1][1]:
                first = min(first, ranges.pop()[0])
            ranges.append((first, last))
        return ranges

    def _paint_packets(
        self,
        video: Video,
        canvas: Canvas,
        packets: Int[np.ndarray, "n"],
        ranges: Iterator[PacketRange] | None = None,
    ) -> Generator[int, None, None]:
        """Paint the frames of `packets` that come out, and yield the number of each."""
        assert self._index is not None
        if ranges is None:
            ranges = iter(self._plan_ranges(packets))
        number = {pts: i for i, pts in enumerate(self._index.pts[packets].tolist())}
        frames = video.decode_ranges(ranges, frozenset(packets.tolist()), self._index)
        with contextlib.closing(frames), report_errors(self._path):
            for frame in frames:
                if frame.pts in number:
                    canvas.paint(number[frame.pts], frame)
                    yield number[frame.pts]

    def _paint_in_order(
        self, canvas: Canvas, wanted: Int[np.ndarray, "n"]
    ) -> Generator[int, None, None]:
        """Paint frames by their places in the file, and yield the number of each.

        Used for files without time stamps, with packets that give no frame, or damaged ones: the
        frames that come out are the video.
        """
        if len(wanted) and wanted[0] < self._passed:
            self._rewind()
        number = {n: i for i, n in enumerate(wanted.tolist())}
        with report_errors(self._path):
            while not canvas.complete:
                n, frame = next(self._frames, (-1, None))
                if frame is None:
                    raise VideoError(f"{self._path}: the file changed while it was read")
                self._passed = n + 1
                if n in number:
                    canvas.paint(number[n], frame)
                    yield number[n]

    def _count_frames(self) -> None:
        """Decode everything for the times of the frames that come out."""
        self._order = None
        self._video.close()
        with Video(self._path, self._limit) as video:
            self.times = video.read_times()
        self._require_frames()
        self._rewind()

    def _require_frames(self) -> None:
        if not len(self.times):
            self._video.close()
            raise VideoError(f"{self._path}: {self._video.no_frame}")

    def _rewind(self) -> None:
        self._video.close()
        self._video = Video(self._path, self._limit)
        self._frames = enumerate(self._video.decode())
        self._passed = 0


def open_video(path: str, limit: TimeLimit | None = None) -> Video:
    """Raises VideoError if there is no such file, or no video in it; `limit` is as in `Video`."""
    with report_errors(path, "cannot be read"):
        try:
            mode = os.stat(path).st_mode
        except FileNotFoundError as error:
            raise VideoError(f"{path}: no such file") from error
    if not stat.S_ISREG(mode):
        raise VideoError(f"{path}: not a plain file; pipe it into python -m sofnet_jax.predict -")
    return Video(path, limit)


def _exhaust(numbers: Iterator[int]) -> None:
    for _ in numbers:
        pass


def _sort_packets(index: Index) -> Int[np.ndarray, "f"] | None:
    """The packets of the frames in presentation order; None if they lack distinct time stamps."""
    shown = np.flatnonzero(index.shown)
    order = shown[np.argsort(index.pts[shown], kind="stable")]
    return None if np.any(np.diff(index.pts[order]) == 0) else order
