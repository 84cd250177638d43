"""Reads chosen frames of a video file. The only file that knows PyAV."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Bool, Float, Int, UInt8

# The number of available frames -> the indices of the frames wanted, in presentation order.
Choose = Callable[[int], Int[np.ndarray, "t"]]
# The times of a video's frames -> the indices of the frames wanted.
_Select = Callable[[Float[np.ndarray, "p"]], Int[np.ndarray, "t"]]
_Frames = tuple[UInt8[np.ndarray, "t h w 3"], Float[np.ndarray, "t"]]

# A file must not make us open others or the network, as playlists and image patterns would.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,h264,hevc,m4v,ivf,obu,"
    "gif,mxf,dv,rm,nut,wtv,yuv4mpegpipe",
}
_END_TOLERANCE = 1.0  # seconds; annotations are often rounded up to the next whole second

# Damaged videos are reported by VideoError; libav's own remarks name neither the file nor a remedy.
av.logging.set_level(None)
av.logging.set_libav_level(av.logging.PANIC)


class VideoError(Exception):
    """A video that cannot be read, in one line: `<path>: <reason>`."""


def read_frames(
    path: str | os.PathLike,
    choose: Choose,
    *,
    start: float | None = None,
    end: float | None = None,
) -> _Frames:
    """Reads the frames that `choose` picks, and their times in seconds from the file's beginning.

    `choose` gets the number of frames with start <= time < end (at least one) and may pick a frame
    several times. It is called again if the file turns out to hold fewer frames than its packets
    promise. Frames are upright RGB, all of the size of the first one. Raises VideoError alone.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise VideoError(f"{path}: no such file")

    def select(times: Float[np.ndarray, "p"]) -> Int[np.ndarray, "t"]:
        available = _available(path, times, start, end)
        return available[choose(len(available))]

    return _read_by_time(path, select) or _read_in_order(path, select)


def _available(
    path: str, times: Float[np.ndarray, "p"], start: float | None, end: float | None
) -> Int[np.ndarray, "a"]:
    """Indices of the frames within start <= time < end. Raises VideoError if there are none."""
    if not len(times):
        raise VideoError(f"{path}: no frame can be decoded")
    duration = times.max() + np.ptp(times) / max(len(times) - 1, 1)  # the last frame lasts a while
    if end is not None and end > duration + _END_TOLERANCE:
        raise VideoError(f"{path}: end is {end:g} s, but the video lasts {duration:.2f} s")
    after = times >= (-np.inf if start is None else start)
    available = np.flatnonzero(after & (times < (np.inf if end is None else end)))
    if not len(available):
        raise VideoError(
            f"{path}: no frame from start={start} to end={end} s; the video lasts {duration:.2f} s"
        )
    return available


def _read_by_time(path: str, select: _Select) -> _Frames | None:
    """Decodes the selected frames and those they depend on, matched by their time stamps.

    None if the packets lack distinct time stamps or a selected frame does not come out.
    """
    with _open(path) as video:
        packets = [(p.pts, p.is_keyframe, p.is_discard) for p in video.packets()]
        if any(pts is None for pts, _, _ in packets):
            return None
        pts, keyframe, hidden = np.array(packets, np.int64).reshape(-1, 3).T
        if video.numbers_packets and np.all(np.diff(pts) > 0):
            return None
        shown = np.flatnonzero(hidden == 0)
        order = shown[np.argsort(pts[shown], kind="stable")]
        if len(np.unique(pts[order])) < len(order):
            return None
        times = video.seconds(pts[order])
    selected = select(times)
    chosen = order[selected]
    with _open(path) as video:
        frames = video.decode(_runs(np.unique(chosen), pts, keyframe == 1))
        images = _convert(((frame.pts, frame) for frame in frames), set(pts[chosen].tolist()))
    if images is None:
        return None
    return np.stack([images[p] for p in pts[chosen].tolist()]), times[selected]


def _read_in_order(path: str, select: _Select) -> _Frames:
    """Decodes the whole video, first to count its frames, then to convert the selected ones.

    The way for files without time stamps, with packets that give no frame, or damaged ones: the
    frames that come out are the video.
    """
    everything = [(0, None)]
    with _open(path) as video:
        pts = [frame.pts for frame in video.decode(everything)]
        if None in pts:
            times = video.ticks(len(pts))
        else:
            times = video.seconds(np.sort(np.array(pts, np.int64)))
    selected = select(times)
    with _open(path) as video:
        images = _convert(enumerate(video.decode(everything)), set(selected.tolist()))
    if images is None:
        raise VideoError(f"{path}: the file changed while it was read")
    return np.stack([images[i] for i in selected.tolist()]), times[selected]


def _runs(
    chosen: Int[np.ndarray, "t"], pts: Int[np.ndarray, "p"], keyframe: Bool[np.ndarray, "p"]
) -> list[tuple[int, int]]:
    """Ranges of packets (first, last; in decode order) that the ascending `chosen` depend on.

    A range begins at the last keyframe that is neither decoded nor shown after the chosen frame:
    what is decoded after a keyframe but shown before it may depend on earlier frames.
    """
    keys = np.flatnonzero(keyframe)
    runs: list[tuple[int, int]] = []
    for last in chosen.tolist():
        usable = keys[(keys <= last) & (pts[keys] <= pts[last])]
        first = int(usable[-1]) if len(usable) else 0
        while runs and first <= runs[-1][1]:
            first = min(first, runs.pop()[0])
        runs.append((first, last))
    return runs


def _convert(
    frames: Iterable[tuple[int | None, av.VideoFrame]], wanted: set[int]
) -> dict[int, UInt8[np.ndarray, "h w 3"]] | None:
    """Converts the wanted frames to upright RGB of the first one's size; None if one is missing."""
    images: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    like = None
    convert = VideoReformatter()  # keeps its tables from frame to frame
    for key, frame in frames:
        if key is not None and key in wanted and key not in images:
            like = like or frame
            image = convert.reformat(frame, like.width, like.height, "rgb24", threads=1)
            turns = round(like.rotation / 90)  # counter-clockwise, as in NumPy
            images[key] = np.rot90(image.to_ndarray(), turns)
            if len(images) == len(wanted):
                return images
    return None


class _Video:
    """An open video file: its packets, its frames and its clock."""

    def __init__(self, container: av.container.InputContainer, stream: av.VideoStream):
        self._container = container
        self._stream = stream
        stream.codec_context.thread_count = 1  # one video per worker is parallel enough

    @property
    def numbers_packets(self) -> bool:
        """Whether time stamps may say when a packet is decoded instead of when it is shown.

        AVI knows no other; libav finds the order of MPEG-4 frames by itself, but not of H.264's.
        """
        return self._container.format.name == "avi" and self._stream.codec_context.has_b_frames

    def packets(self) -> Iterator[av.Packet]:
        """The packets in decode order, up to the end or the first that cannot be read."""
        with contextlib.suppress(av.FFmpegError):
            # Packets without data are not passed on: the decoder takes them for the end.
            yield from (packet for packet in self._container.demux(self._stream) if packet.size)

    def decode(self, runs: Iterable[tuple[int, int | None]]) -> Iterator[av.VideoFrame]:
        """Decodes ranges of packets (first, last), each range from a clean decoder."""
        packets = enumerate(self.packets())
        for first, last in runs:
            for n, packet in packets:
                if n >= first:
                    yield from self._decode_packet(packet)
                if n == last:
                    break
            yield from self._decode_packet(None)  # what the decoder still holds
            self._stream.codec_context.flush_buffers()

    def _decode_packet(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            return self._stream.decode(packet)
        except av.FFmpegError:
            return []  # a damaged packet; those after it may be sound

    def seconds(self, pts: Int[np.ndarray, "p"]) -> Float[np.ndarray, "p"]:
        """Time stamps as seconds from the beginning of the file, be it sound or picture."""
        times = pts * float(self._stream.time_base or 0)
        origin = self._container.start_time
        if origin is None:
            return times - times.min(initial=np.inf)
        return times - origin / av.time_base

    def ticks(self, count: int) -> Float[np.ndarray, "p"]:
        """The times of `count` frames without time stamps."""
        return np.arange(count) / float(self._stream.guessed_rate or 25)


@contextlib.contextmanager
def _open(path: str) -> Iterator[_Video]:
    """Opens the first video stream that is not a cover picture; libav's errors become ours."""
    try:
        with av.open(path, metadata_errors="ignore", options=_OPTIONS) as container:
            cover = av.stream.Disposition.attached_pic
            streams = [s for s in container.streams.video if not s.disposition & cover]
            if not streams:
                raise VideoError(f"{path}: no video stream")
            if streams[0].codec_context is None:
                raise VideoError(f"{path}: no decoder for its video stream")
            yield _Video(container, streams[0])
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: not a readable video ({reason})") from error
