"""Chosen frames of a video file in one call, and what a look at the file tells."""

import os

import numpy as np
from jaxtyping import Float, UInt8

from sofnet_jax.data.video.canvas import Canvas
from sofnet_jax.data.video.container import VideoError, report_errors
from sofnet_jax.data.video.reader import Choose, VideoReader, open_video

Frames = tuple[UInt8[np.ndarray, "t h w 3"], Float[np.ndarray, "t"]]


def read_frames(
    path: str | os.PathLike,
    choose: Choose,
    *,
    start: float | None = None,
    end: float | None = None,
    short_side: int = 0,
    num_threads: int = 1,
) -> Frames:
    """Read the frames that `choose` picks, and their times in seconds from the file's beginning.

    `choose` gets the number of frames with start <= time < end (at least one) and may pick a frame
    several times. It is called again if the file turns out to hold fewer frames than its packets
    promise. Frames are upright RGB, all of the size of the first one, scaled down if their short
    side exceeds `short_side` > 0; they do not depend on `num_threads`.

    Raises:
        VideoError: the file cannot be read, or `end` is more than a second after its end.
    """
    with VideoReader(path, short_side=short_side) as reader:
        footage = reader.read_footage(
            choose, start=start, end=end, strict=True, num_threads=num_threads
        )
    return footage.frames, footage.times


def probe(path: str | os.PathLike) -> tuple[float, int, int]:
    """The seconds that the header claims, and width and height of the first frame, upright.

    Raises VideoError.
    """
    path = os.fspath(path)
    with open_video(path) as video, report_errors(path):
        frame = next(video.decode(), None)
        if frame is None:
            raise VideoError(f"{path}: {video.no_frame}")
        canvas = Canvas(1, 0)
        canvas.paint(0, frame)
        return video.claimed_duration, *canvas.upright_size
