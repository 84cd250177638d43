"""Reads chosen frames of a video file, and decodes no more for them than it must."""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from sofnet_jax.data.video.canvas import Canvas
from sofnet_jax.data.video.container import Index, Run, Video, VideoError, report_errors

# The number of available frames -> the indices of the frames wanted, in presentation order.
Choose = Callable[[int], Int[np.ndarray, "t"]]
Frames = tuple[UInt8[np.ndarray, "t h w 3"], Float[np.ndarray, "t"]]

_END_TOLERANCE = 1.0  # seconds; annotations are often rounded up to the next whole second


@dataclass(frozen=True)
class Footage:
    """Chosen frames of a video, or of a part of it, and what is known of all of it.

    `times` are seconds from the beginning of the file, and so is `end`, where the last of the
    `available` frames ends; together they last `duration` seconds.
    `width` and `height` are those of the upright picture in the file, in pixels.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    times: Float[np.ndarray, "t"]
    available: int
    duration: float
    end: float
    width: int
    height: int


def read_frames(
    path: str | os.PathLike,
    choose: Choose,
    *,
    start: float | None = None,
    end: float | None = None,
    short_side: int = 0,
    num_threads: int = 1,
) -> Frames:
    """Reads the frames that `choose` picks, and their times in seconds from the file's beginning.

    `choose` gets the number of frames with start <= time < end (at least one) and may pick a frame
    several times. It is called again if the file turns out to hold fewer frames than its packets
    promise. Frames are upright RGB, all of the size of the first one, scaled down if their short
    side exceeds `short_side` > 0; they do not depend on `num_threads`. Raises VideoError alone,
    also if `end` is more than a second after the end of the video.
    """
    part = Part(os.fspath(path), choose, start, end, strict=True)
    footage = _read(part, short_side, num_threads)
    return footage.frames, footage.times


def read_footage(
    path: str | os.PathLike,
    choose: Choose,
    *,
    start: float | None = None,
    end: float | None = None,
    short_side: int = 0,
) -> Footage:
    """As `read_frames`, with more to tell, and less strict: `end` may be anywhere after `start`."""
    return _read(Part(os.fspath(path), choose, start, end, strict=False), short_side, 1)


def probe(path: str | os.PathLike) -> tuple[float, int, int]:
    """The seconds that the header claims, and width and height of the first frame, upright.

    Raises VideoError.
    """
    path = os.fspath(path)
    require_file(path)
    with Video(path) as video, report_errors(path):
        canvas = Canvas(1, 0)
        for frame in itertools.islice(video.decode(), 1):
            canvas.paint(0, frame)
        if not canvas.complete:
            raise VideoError(f"{path}: no frame can be decoded")
        return video.claimed_duration, *canvas.upright_size


def require_file(path: str) -> None:
    """Raises VideoError if there is none."""
    if not os.path.isfile(path):
        raise VideoError(f"{path}: no such file")


def _read(part: "Part", short_side: int, num_threads: int) -> Footage:
    require_file(part.path)
    canvas, image, times = _read_by_time(part, short_side, num_threads) or _read_in_order(
        part, short_side
    )
    return Footage(
        _arrange(canvas, image),
        times,
        part.available,
        part.duration,
        part.until,
        *canvas.upright_size,
    )


class Part:
    """The frames of a video with start <= time < end, and which of them are chosen."""

    def __init__(
        self, path: str, choose: Choose, start: float | None, end: float | None, *, strict: bool
    ):
        self.path, self._choose, self._start, self._end = path, choose, start, end
        self._strict = strict
        self.available = 0
        self.duration = self.until = 0.0

    def select(self, times: Float[np.ndarray, "p"]) -> Int[np.ndarray, "t"]:
        """Indices of the chosen frames. Raises VideoError if there are none to choose from."""
        if not len(times):
            raise VideoError(f"{self.path}: no frame can be decoded")
        interval = np.ptp(times) / max(len(times) - 1, 1)
        until = times.max() + interval  # the last frame lasts a while
        start, end = self._start, self._end
        if self._strict and end is not None and end > until + _END_TOLERANCE:
            raise VideoError(f"{self.path}: end is {end:g} s, but the video lasts {until:.2f} s")
        first = -np.inf if start is None else start
        available = np.flatnonzero((times >= first) & (times < (np.inf if end is None else end)))
        if not len(available):
            raise VideoError(
                f"{self.path}: no frame from start={start} to end={end} s; the video lasts "
                f"{until:.2f} s"
            )
        self.available = len(available)
        self.until = float(until if end is None else min(until, end))
        self.duration = self.until - float(max(times.min(), first))
        return available[self._choose(len(available))]


_Painted = tuple[Canvas, Int[np.ndarray, "t"], Float[np.ndarray, "t"]]


def _read_by_time(part: Part, short_side: int, num_threads: int) -> _Painted | None:
    """Decodes the selected frames and those they depend on, matched by their time stamps.

    None if the packets lack distinct time stamps or a selected frame does not come out.
    """
    with Video(part.path) as video:
        index = video.read_index()
        order = None if index is None else sort_packets(index)
        if index is None or order is None:
            return None
        times = video.seconds(index.pts[order])
        selected = part.select(times)
        distinct, image = np.unique(selected, return_inverse=True)
        canvas = _paint_packets(video, order[distinct], index, short_side, num_threads)
        if canvas.mixed and num_threads > 1:
            canvas = _paint_packets(video, order[distinct], index, short_side, 1)
    return (canvas, image, times[selected]) if canvas.complete else None


def _paint_packets(
    video: Video, packets: Int[np.ndarray, "n"], index: Index, short_side: int, num_threads: int
) -> Canvas:
    """Paints the frames of `packets`, several runs at a time."""
    canvas = Canvas(len(packets), short_side)
    image = {pts: i for i, pts in enumerate(index.pts[packets].tolist())}
    wanted = frozenset(packets.tolist())
    plan = plan_runs(np.sort(packets), index)
    runs = iter(plan)  # whoever is free takes the next

    def paint(video: Video) -> None:
        with report_errors(video.path):
            for frame in video.decode_runs(runs, wanted, index):
                if frame.pts in image:
                    canvas.paint(image[frame.pts], frame)

    def assist() -> None:
        with Video(video.path) as own:
            paint(own)

    assistants = min(num_threads, len(plan)) - 1
    with ThreadPoolExecutor(max(assistants, 1)) as pool:
        assistance = [pool.submit(assist) for _ in range(assistants)]
        paint(video)
    for result in assistance:
        result.result()
    return canvas


def sort_packets(index: Index) -> Int[np.ndarray, "f"] | None:
    """The packets of the frames in presentation order; None if they lack distinct time stamps."""
    shown = np.flatnonzero(index.shown)
    order = shown[np.argsort(index.pts[shown], kind="stable")]
    return None if np.any(np.diff(index.pts[order]) == 0) else order


def plan_runs(wanted: Int[np.ndarray, "n"], index: Index) -> list[Run]:
    """The packets on which the ascending `wanted` ones depend.

    A run begins at the last keyframe that is neither decoded nor shown after the wanted frame:
    what is decoded after a keyframe but shown before it may depend on earlier frames.
    """
    keys = np.flatnonzero(index.keyframe)
    runs: list[Run] = []
    for last in wanted.tolist():
        k = np.searchsorted(keys, last, side="right") - 1
        while k >= 0 and index.pts[keys[k]] > index.pts[last]:
            k -= 1
        first = int(keys[k]) if k >= 0 else 0
        while runs and first <= runs[-1][1]:
            first = min(first, runs.pop()[0])
        runs.append((first, last))
    return runs


def _read_in_order(part: Part, short_side: int) -> _Painted:
    """Decodes the whole video, first to count its frames, then to convert the selected ones.

    The way for files without time stamps, with packets that give no frame, or damaged ones: the
    frames that come out are the video.
    """
    with Video(part.path) as video:
        times = video.read_times()
    selected = part.select(times)
    distinct, image = np.unique(selected, return_inverse=True)
    canvas = Canvas(len(distinct), short_side)
    wanted = {n: i for i, n in enumerate(distinct.tolist())}
    with Video(part.path) as video, report_errors(part.path):
        for n, frame in enumerate(video.decode()):
            if n in wanted:
                canvas.paint(wanted[n], frame)
            if canvas.complete:
                return canvas, image, times[selected]
    raise VideoError(f"{part.path}: the file changed while it was read")


def _arrange(canvas: Canvas, order: Int[np.ndarray, "t"]) -> UInt8[np.ndarray, "t h w 3"]:
    """The images in this order; not copied if they are in it."""
    images = canvas.images
    return images if np.array_equal(order, np.arange(len(images))) else images[order]
