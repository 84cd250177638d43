"""Write a copy of a video with every frame drawn upon."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

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
    with (
        VideoReader(source, short_side=short_side) as reader,
        write_whole(target) as partial,
        av.open(str(partial), "w", format="mp4") as container,
    ):
        stream = container.add_stream("libx264", rate=25)
        stream.codec_context.time_base = _CLOCK
        last = -1
        for time, read in reader.scan(np.arange(len(reader.times))):
            pixels = draw(read(), time)
            height, width = (side - side % 2 for side in pixels.shape[:2])
            if not stream.codec_context.is_open:
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(pixels[:height, :width]), format="rgb24"
            )
            last = max(round(time / _CLOCK), last + 1)  # frames may be closer than a tick
            frame.pts, frame.time_base = last, _CLOCK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
