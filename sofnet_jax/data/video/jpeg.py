"""JPEG: written by Pillow; read by libav, which crops and scales before converting to RGB."""

import io
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8
from PIL import Image

from sofnet_jax.data.video.container import MAX_PIXELS

Pixels = int | float
_FORMAT = "yuvj420p"  # as `encode_jpeg` writes: full range, colours at half the resolution
_MARGIN = 16  # pixels by which a crop may be widened, so that its edges fall on whole pixels
_LONGEST = 65500  # pixels of a side, the limit of libjpeg


class JpegError(Exception):
    """Bytes that are not a JPEG, or a picture that cannot become one."""


def encode_jpeg(frame: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """Encode with colours at half the resolution, as in videos. Raises JpegError."""
    height, width = frame.shape[:2]
    if max(height, width) > _LONGEST:
        raise JpegError(f"{width}×{height} pixels; a JPEG has at most {_LONGEST} a side")
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def decode_jpegs(images: Iterable[bytes]) -> list[av.VideoFrame]:
    """Decode JPEGs of one size, without converting their colours. Raises JpegError."""
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    frames: list[av.VideoFrame] = []
    for data in images:
        try:
            [frame] = decoder.decode(av.Packet(data))
        except (av.FFmpegError, ValueError) as error:
            raise JpegError("damaged JPEG") from error
        frames.append(frame)
        if (frame.width, frame.height) != (frames[0].width, frames[0].height):
            raise JpegError("JPEGs of different sizes")
    return frames


def to_rgb(frames: Iterable[av.VideoFrame]) -> UInt8[np.ndarray, "t h w 3"]:
    """Convert frames of one size."""
    convert = VideoReformatter()
    return np.stack([_to_rgb(convert, frame) for frame in frames])


def crop(
    frames: Sequence[av.VideoFrame], box: tuple[Pixels, Pixels, Pixels, Pixels], side: int
) -> UInt8[np.ndarray, "t side side 3"]:
    """Resize `box` (left, top, right, bottom) of each frame to a square.

    The result differs from that of `views.resize` by rounding: the crop is scaled while its colours
    have half the resolution, and only then converted to RGB, which is a third of the work.
    """
    scale, convert = VideoReformatter(), VideoReformatter()
    across = _cut(frames[0].width, box[0], box[2], side)
    down = _cut(frames[0].height, box[1], box[3], side)
    squares = []
    for frame in frames:
        scaled = scale.reformat(
            _crop(frame, across, down),
            *(across.size, down.size, _FORMAT),
            interpolation=Interpolation.BILINEAR,
            threads=1,
        )
        squares.append(_to_rgb(convert, scaled)[down.offset :, across.offset :][:side, :side])
    return np.stack(squares)


def _to_rgb(convert: VideoReformatter, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    return convert.reformat(frame, format="rgb24", threads=1).to_ndarray()


class _Cut(NamedTuple):
    """One dimension of a crop: pixels `start` to `end`, scaled to `size`, wanted from `offset`."""

    start: int
    end: int
    size: int
    offset: int


def _cut(length: int, first: Pixels, last: Pixels, side: int) -> _Cut:
    """Widen `first` to `last`, which become `side` pixels, to even pixels, as the colours require.

    The edges of the widened crop fall on whole pixels of the result, as nearly as possible.
    """
    scale = side / (last - first)
    below, above = int(first) // 2 * 2, -int(-last // 2) * 2
    starts = range(below, max(below - _MARGIN, -1), -2)
    start = min(starts, key=lambda s: _fraction((first - s) * scale))
    ends = [*range(above, min(above + _MARGIN, length), 2), length]
    end = min(ends, key=lambda e: _fraction((min(e, length) - start) * scale))
    return _Cut(
        start,
        min(end, length),
        round((min(end, length) - start) * scale),
        round((first - start) * scale),
    )


def _fraction(x: Pixels) -> float:
    return round(abs(x - round(x)), 6)


def _crop(frame: av.VideoFrame, across: _Cut, down: _Cut) -> av.VideoFrame:
    """Copy a part of a frame; return the frame itself if the part is all of it."""
    width, height = across.end - across.start, down.end - down.start
    if (width, height) == (frame.width, frame.height):
        return frame
    part = av.VideoFrame(width, height, _FORMAT)
    for plane, source, shrink in zip(part.planes, frame.planes, (1, 2, 2), strict=True):
        top, left = down.start // shrink, across.start // shrink
        pixels = _pixels(source)[top : top + plane.height, left : left + plane.width]
        _pixels(plane)[: plane.height, : plane.width] = pixels
    part.color_range = frame.color_range
    part.colorspace = frame.colorspace
    return part


def _pixels(plane: av.video.plane.VideoPlane) -> UInt8[np.ndarray, "h w"]:
    """The memory of a plane, including the padding of its rows."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
