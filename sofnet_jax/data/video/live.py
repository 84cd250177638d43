"""Frames of a camera, a network address or standard input, as they arrive."""

import contextlib
import functools
import glob
import itertools
import os
import sys
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
    find_stream,
    report_errors,
)
from sofnet_jax.data.video.reader import LazyFrame, Pixels
from sofnet_jax.host.errors import UserError, explain_unreadable
from sofnet_jax.host.paths import expand, find_spelling

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds of backoff before reconnecting
ATTEMPTS = 10  # to reconnect; the pause doubles each time
_PATIENCE = 10.0  # seconds to wait for a stream to open, and for each read
_GAP = 0.04  # seconds from frame to frame if neither frames nor stream tell
_HINT = "an MP4 with its index at the end cannot be streamed; pass the file"

# A stream must not open files.
_PROTOCOLS = "http,https,tcp,tls,udp,rtp,rtsp,rtmp,srtp,srt,crypto,httpproxy,hls"
_LIMIT = {"max_pixels": str(MAX_PIXELS)}
_OPTIONS = {"rtsp_transport": "tcp", "protocol_whitelist": _PROTOCOLS, **_LIMIT}

STDIN, CAMERA = "-", "/dev/video"


def is_live(name: str) -> bool:
    """Whether a source is a camera, an address or standard input, which may never end."""
    return name == STDIN or "://" in name or name.startswith(CAMERA)


@explain_unreadable()
def find_videos(name: str) -> list[str]:
    """List the videos of a folder or a pattern; a live source and a file stand for themselves.

    Raises UserError if there are none, or a folder cannot be read.
    """
    if is_live(name):
        return [name]
    path = find_spelling(expand(name))
    if Path(path).is_dir():
        videos = [str(file) for file in find_files(Path(path)) if is_video(file.name)]
        if not videos:
            raise UserError(f"{name}: no videos in it (looked for {' '.join(EXTENSIONS)})")
        return videos
    if Path(path).exists():
        return [path]
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    videos = [file for file in found if os.path.isfile(file)]
    if not videos:
        what = "no file matches" if glob.has_magic(path) else "no such file or folder"
        raise UserError(f"{name}: {what}; give a video, a folder, a pattern or an address")
    return videos


def connect(
    source: str,
    *,
    short_side: int = 0,
    say: Callable[[str], None],
    decoding: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
) -> Generator[Iterator[LazyFrame], None, None]:
    """Yield the frames of one connection after another.

    A dropped stream is reconnected with exponential backoff, which `say` reports. Times are seconds
    since the first frame. Frames are scaled down if their short side exceeds `short_side` > 0.
    `decoding` returns a context that is entered for decoding, to measure it.

    Raises:
        VideoError: it cannot be opened, or not be reconnected in `ATTEMPTS` attempts.
    """
    clock, pipe = _Clock(), _Pipe()
    failures = 0
    while True:
        try:
            with _open(source, pipe) as container:
                frames = _read(container, source, short_side, decoding)
                first = next(frames, None)
                if first is not None:
                    yield clock.stamp(itertools.chain([first], frames))
                    failures = 0
                if pipe.interrupted:
                    raise KeyboardInterrupt
                if first is None and not clock.runs:
                    raise VideoError(f"{source}: no frame can be decoded; {_HINT}")
                if source == STDIN or container.duration or container.size > 0:
                    return  # a source with an end
        except VideoError:
            if pipe.interrupted:
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


def _open(source: str, pipe: "_Pipe") -> Any:
    with report_errors(source, "not a video stream"):
        if source == STDIN:
            return av.open(pipe, options={"protocol_whitelist": "", **_LIMIT})
        if source.startswith(CAMERA):
            return av.open(source, format="v4l2", timeout=_PATIENCE)
        return av.open(source, options=_OPTIONS, timeout=_PATIENCE)


class _Pipe:
    """Standard input, which libav cannot seek in."""

    name = STDIN

    def __init__(self):
        self.interrupted = False

    def read(self, size: int) -> bytes:
        try:
            return os.read(sys.stdin.fileno(), size)
        except KeyboardInterrupt:  # PyAV would print it and continue
            self.interrupted = True
            return b""


def _read(
    container: Any,
    source: str,
    short_side: int,
    decoding: Callable[[], contextlib.AbstractContextManager],
) -> Iterator[LazyFrame]:
    """Yield the frames up to the end or the first error, with their own times."""
    stream = find_stream(container, source)
    stream.thread_type = "NONE"
    stream.codec_context.options = _LIMIT
    gap = float(1 / stream.guessed_rate) if stream.guessed_rate else _GAP
    number = itertools.count()
    for packet in itertools.chain(_demux(container, stream), [None]):  # None: what is held back
        with decoding():
            decoded = decode_packet(stream, packet)
        for frame in decoded:
            at = next(number) * gap if frame.time is None else frame.time
            yield at, functools.partial(_convert, frame, short_side)


def _demux(container: Any, stream: Any) -> Iterator[av.Packet]:
    """Yield the packets up to the end or the first error."""
    with contextlib.suppress(av.FFmpegError, OSError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _convert(frame: av.VideoFrame, short_side: int) -> Pixels:
    canvas = Canvas(1, short_side)
    canvas.paint(0, frame)
    return canvas.images[0]
