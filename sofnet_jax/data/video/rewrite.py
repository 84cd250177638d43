"""Write a copy of a video with every frame drawn upon."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from sofnet_jax.data.video.container import FILE, VideoError
from sofnet_jax.data.video.reader import Pixels, VideoReader
from sofnet_jax.host.files import write_whole

_CLOCK = Fraction(1, 12800)  # seconds; a multiple of all usual rates


def rewrite(
    source: str | os.PathLike,
    target: Path,
    draw: Callable[[Pixels, float], Pixels],
    *,
    short_side: int,
) -> None:
    """Write `draw(frame, seconds)` for every frame as H.264 in MP4, without sound.

    Frames are scaled down first if their short side exceeds `short_side` > 0. Raises VideoError and
    OSError.
    """
    with VideoReader(source, short_side=short_side) as reader:
        require_other_file(source, target)
        _write(reader, target, draw)


def require_other_file(source: str | os.PathLike, target: Path) -> None:
    """Raise VideoError if a copy at `target` would replace its video `source`."""
    if target.exists() and target.samefile(source):
        raise VideoError(f"{target}: the copy would replace its video; give another name")


def _write(reader: VideoReader, target: Path, draw: Callable[[Pixels, float], Pixels]) -> None:
    with (
        write_whole(target) as partial,
        av.open(f"{FILE}{partial}", "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=25)
        stream.codec_context.time_base = _CLOCK
        last = -1
        for time, read in reader.scan(np.arange(len(reader.times))):
            pixels = _make_even(draw(read(), time))
            height, width = pixels.shape[:2]
            if not stream.codec_context.is_open:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            last = max(round(time / _CLOCK), last + 1)  # frames may be closer than a tick
            frame.pts, frame.time_base = last, _CLOCK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _make_even(pixels: Pixels) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture with its last row and column twice where their number is odd."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
