"""Frames of a camera, a network address or a pipe, as they arrive."""

import contextlib
import functools
import glob
import itertools
import math
import os
import queue
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import av

from sofnet_jax.data.annotations.files import find_files
from sofnet_jax.data.annotations.names import EXTENSIONS, is_video
from sofnet_jax.data.video.canvas import Canvas
from sofnet_jax.data.video.container import (
    MAX_PIXELS,
    VideoError,
    decode_packet,
    explain_no_frame,
    find_stream,
    has_time_stamps,
    report_errors,
)
from sofnet_jax.data.video.reader import LazyFrame, Pixels
from sofnet_jax.data.video.times import ASSUMED_RATE, CLOCK_OPTIONS, Times
from sofnet_jax.host.errors import UserError, explain_unreadable
from sofnet_jax.host.paths import expand, find_spelling

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds of backoff before reconnecting
ATTEMPTS = 10  # to reconnect; the pause doubles each time
_PATIENCE = 10.0  # seconds to wait for a stream to open, and for each read
_WAITING = 64  # frames of a live source; 200 MB in full HD
_REPORT_EVERY = 60.0  # seconds
_GIVE = "give a video, a folder, a pattern or an address"
_HINT = "an MP4 with its index at the end cannot be streamed; pass the file"

# A stream must not open files.
SCHEMES = (
    *("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtmpt", "rtmpts", "rtp", "srtp", "srt"),
    *("udp", "tcp", "tls", "ftp", "mmsh", "mmst"),
)
_PROTOCOLS = (*SCHEMES, "hls", "crypto", "httpproxy", "ffrtmphttp")
_COMMON = {**CLOCK_OPTIONS, "max_pixels": str(MAX_PIXELS)}
_PIPE_OPTIONS = {"protocol_whitelist": "", **_COMMON}
_OPTIONS = {
    "rtsp_transport": "tcp",
    "protocol_whitelist": ",".join(_PROTOCOLS),
    **_COMMON,
}

STDIN, CAMERA = "-", "/dev/video"


def is_live(name: str) -> bool:
    """True for sources that may never end: cameras, addresses and pipes."""
    return "://" in name or _is_camera(name) or is_pipe(name)


def _is_camera(name: str) -> bool:
    """True for a camera and for links to one, such as those in /dev/v4l/by-id."""
    return (os.path.realpath(name) if os.path.islink(name) else name).startswith(CAMERA)


def is_pipe(name: str) -> bool:
    """True for standard input and named pipes, such as the shell's <(…)."""
    if name == STDIN:
        return True
    try:
        return stat.S_ISFIFO(os.stat(expand(name)).st_mode)
    except (OSError, ValueError):  # whoever opens it says why
        return False


@explain_unreadable()
def find_videos(name: str) -> list[str]:
    """List the videos of a folder or a pattern; a live source and a file stand for themselves.

    Raises UserError if there are none, or a folder cannot be read.
    """
    if is_live(name):
        return [name]
    path = find_spelling(expand(name))
    if path and Path(path).is_dir():
        videos = [str(file) for file in find_files(Path(path)) if is_video(file.name)]
        if not videos:
            raise UserError(f"{name}: no videos in it (looked for {' '.join(EXTENSIONS)})")
        return videos
    if path and Path(path).exists():
        return [path]
    videos = _match(path) if glob.has_magic(path) else []
    if not videos:
        what = "no file matches" if glob.has_magic(path) else "no such file or folder"
        raise UserError(f"{name or 'an empty name'}: {what}; {_GIVE}")
    return videos


def _match(pattern: str) -> list[str]:
    """The files that match a pattern. Raises OSError if a folder cannot be listed."""
    _require_listable(pattern)
    found = sorted(glob.glob(pattern, recursive=True))
    return [file for file in found if not os.path.isdir(file)]


def _require_listable(pattern: str) -> None:
    """Raise OSError if a folder that `glob` lists cannot be listed, which it would not tell."""
    parent, name = os.path.split(pattern)
    if glob.has_magic(parent):
        _require_listable(parent)
    if glob.has_magic(name):
        folders = glob.glob(pattern if name == "**" else parent or ".", recursive=True)
        for folder in filter(os.path.isdir, folders):
            os.listdir(folder)


def connect(
    source: str,
    *,
    short_side: int = 0,
    say: Callable[[str], None],
    decoding: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> Generator[Iterator[LazyFrame], None, None]:
    """Yield the frames of one connection after another.

    A dropped stream is reconnected with exponential backoff. A live source is read as it arrives;
    if its frames are taken more slowly, the oldest that wait are dropped. `say` reports both, and
    an assumed frame rate. Times are seconds since the first frame: they continue where time stamps
    begin anew, and are those of arrival where a live source sends none. Frames are scaled down if
    their short side exceeds `short_side` > 0.
    `decoding` returns a context that is entered for decoding, to measure it.

    Raises:
        VideoError: it cannot be opened, or not be reconnected in `ATTEMPTS` attempts.
    """
    clock, failures = _Clock(), 0
    pipe = _Pipe(source) if is_pipe(source) else None
    while True:
        try:
            with _open(source) if pipe is None else pipe.open() as container:
                ends = bool(pipe or container.duration or container.size > 0)
                stream = find_stream(container, source)
                timed = has_time_stamps(container)
                if ends and not timed and not stream.codec_context.framerate:
                    say(f"note: {source} tells no frame rate; {ASSUMED_RATE} per second is assumed")
                times = Times(stream, timed or ends)
                tell = functools.partial(_tell_cut, source, say) if ends else _ignore
                frames = _read(container, stream, times, short_side, decoding, tell)
                first = next(frames, None)
                if first is not None:
                    frames = itertools.chain([first], frames)
                    with (
                        contextlib.nullcontext(frames) if ends else _Backlog(frames, say) as frames
                    ):
                        yield clock.stamp(frames)
                    failures = 0
                if pipe and pipe.interrupted:
                    raise KeyboardInterrupt
                if first is None and not clock.runs:
                    raise VideoError(f"{source}: {explain_no_frame(stream)}; {_HINT}")
                if ends:
                    return
        except VideoError:
            if pipe and pipe.interrupted:
                raise KeyboardInterrupt from None
            if not clock.runs:
                raise
        if failures == ATTEMPTS:
            raise VideoError(f"{source}: connection lost; {ATTEMPTS} attempts to reconnect failed")
        pause = min(FIRST_PAUSE * 2**failures, LONGEST_PAUSE)
        failures += 1
        say(f"{source}: the stream dropped; reconnecting in {pause:g} s")
        time.sleep(pause)


class _Clock:
    """The common time of several connections, each of which counts from anywhere."""

    def __init__(self):
        self.runs = False
        self._begun = self._last = 0.0

    def stamp(self, frames: Iterator[LazyFrame]) -> Iterator[LazyFrame]:
        """Stamp the next connection's frames with seconds since the first frame of all."""
        shift: float | None = None
        for at, read in frames:
            if shift is None:
                now = time.monotonic()
                if not self.runs:
                    self.runs, self._begun = True, now
                shift = max(now - self._begun, self._last) - at
            self._last = max(self._last, at + shift)
            yield self._last, read


def _open(source: str) -> Any:
    """Open a camera or an address."""
    scheme, separator, _ = source.partition("://")
    if separator and not {*scheme.split("+")}.issubset(_PROTOCOLS):
        given = ", ".join(SCHEMES)
        raise VideoError(f"{source}: {scheme}:// is refused; give a file's path, or one of {given}")
    with report_errors(source, "not a video stream"):
        if not separator:
            return av.open(source, format="v4l2", timeout=_PATIENCE)
        try:
            return av.open(source, options=_OPTIONS, timeout=_PATIENCE)
        except av.error.ProtocolNotFoundError as error:
            raise ValueError(f"this FFmpeg was built without {scheme}://") from error
        except av.error.ExitError as error:
            raise ValueError(f"no answer within {_PATIENCE:.0f} s") from error


class _Pipe:
    """Standard input or a named pipe, which libav cannot seek in."""

    def __init__(self, name: str):
        self.name = name
        self.interrupted = False

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        """The opened container. Raises VideoError."""
        with contextlib.ExitStack() as stack:
            with report_errors(self.name, "not a video stream"):
                path = sys.stdin.fileno() if self.name == STDIN else expand(self.name)
                file = open(path, "rb", buffering=0, closefd=self.name != STDIN)
                self._file = stack.enter_context(file)
                container = stack.enter_context(av.open(self, options=_PIPE_OPTIONS))
            yield container

    def read(self, size: int) -> bytes:
        """For libav, which asks again after the end."""
        try:
            return b"" if self.interrupted else self._file.read(size)
        except KeyboardInterrupt:  # PyAV would print it and continue
            self.interrupted = True
            return b""


class _Backlog:
    """Frames that a thread reads as they arrive, while those before are being recognised.

    If `_WAITING` of them wait and the source is not ahead of the clock, as a file sent at once is,
    the oldest is dropped; `say` reports how many, at most once a minute.
    """

    def __init__(self, frames: Iterator[LazyFrame], say: Callable[[str], None]):
        self._frames = frames
        self._say = say
        self._waiting: queue.Queue[LazyFrame | BaseException | None] = queue.Queue(_WAITING)
        self._dropped = self._reported = 0
        self._stopped = False
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def __enter__(self) -> Iterator[LazyFrame]:
        self._thread.start()
        return self._take()

    def __exit__(self, *_) -> None:
        """Wait for the thread, since the container must not be closed while it is read."""
        self._stopped = True
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):
                self._waiting.get_nowait()
            self._thread.join(0.1)
        self._report()

    def _fill(self) -> None:
        end: BaseException | None = None
        try:
            begun: float | None = None
            for at, read in self._frames:
                if self._stopped:
                    return
                now = time.monotonic()
                begun = now - at if begun is None else begun
                self._put((at, read), at - (now - begun))
        except Exception as error:  # for the thread that takes the frames
            end = error
        self._put(end, math.inf)

    def _put(self, item: LazyFrame | BaseException | None, patience: float) -> None:
        """Add to those that wait; after `patience` seconds, drop the oldest for it."""
        try:
            self._waiting.put(item, timeout=min(max(patience, 0.0), threading.TIMEOUT_MAX))
        except queue.Full:
            with contextlib.suppress(queue.Empty):
                self._waiting.get_nowait()
                self._dropped += 1
            self._waiting.put(item)

    def _take(self) -> Iterator[LazyFrame]:
        reported = -math.inf
        while (item := self._waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
            if self._dropped > self._reported and time.monotonic() > reported + _REPORT_EVERY:
                reported = time.monotonic()
                self._report()

    def _report(self) -> None:
        count = self._dropped - self._reported
        if count:
            self._say(f"note: frames dropped: {count}; they came faster than they were recognised")
        self._reported += count


def _read(
    container: Any,
    stream: Any,
    times: Times,
    short_side: int,
    decoding: Callable[[], contextlib.AbstractContextManager],
    tell: Callable[[Exception], None],
) -> Iterator[LazyFrame]:
    """Yield the frames up to the end or the first error, of which `tell` is told."""
    stream.thread_type = "NONE"
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    for packet in itertools.chain(
        _demux(container, stream, tell), [None]
    ):  # None: what is held back
        if packet is not None:
            times.take(packet)
        with decoding():
            decoded = decode_packet(stream, packet)
        for frame in decoded:
            yield times.place(frame), functools.partial(_convert, frame, short_side)


def _demux(container: Any, stream: Any, tell: Callable[[Exception], None]) -> Iterator[av.Packet]:
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except (av.FFmpegError, OSError) as error:
        tell(error)


def _tell_cut(source: str, say: Callable[[str], None], error: Exception) -> None:
    say(f"note: {source} is cut off ({getattr(error, 'strerror', None) or error})")


def _ignore(error: Exception) -> None:
    """An error of a live stream is reported as the end of its connection."""


def _convert(frame: av.VideoFrame, short_side: int) -> Pixels:
    canvas = Canvas(1, short_side)
    canvas.paint(0, frame)
    return canvas.images[0]
