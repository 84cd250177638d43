"""JPEG: written by Pillow; read by libav, which crops and scales before it makes RGB."""

import io
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8
from PIL import Image

from sofnet_jax.data.video.container import MAX_PIXELS
from sofnet_jax.data.views import Look, finish

_FORMAT = "yuvj420p"  # what `encode_jpeg` writes: full range, colours at half the resolution
_MARGIN = 16  # pixels that a crop may be widened by, so that its edges fall on whole pixels


_LONGEST = 65500  # pixels of a side, says libjpeg


class JpegError(Exception):
    """Bytes that are no JPEG, or a picture of which none can be made."""


def encode_jpeg(frame: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """A JPEG with colours at half the resolution, as videos have them. Raises JpegError."""
    height, width = frame.shape[:2]
    if max(height, width) > _LONGEST:
        raise JpegError(f"{width}×{height} pixels; a JPEG has at most {_LONGEST} a side")
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def decode_jpegs(images: Iterable[bytes]) -> UInt8[np.ndarray, "t h w 3"]:
    """Frames, all of one size. Raises JpegError."""
    convert = VideoReformatter()
    return np.stack([_to_rgb(convert, frame) for frame in _decode(images)])


def show_jpegs(images: Iterable[bytes], look: Look) -> UInt8[np.ndarray, "t size size 3"]:
    """What a view shows of frames of one size, as `transforms.show` has it but for rounding.

    The crop is scaled while its colours have half the resolution, and only then made RGB: a third
    of the work. Raises JpegError.
    """
    scale, convert = VideoReformatter(), VideoReformatter()
    squares: list[np.ndarray] = []
    for frame in _decode(images):
        if not squares:
            view = look(frame.height, frame.width)
            side = view.via or view.size
            across = _cut(frame.width, view.box[0], view.box[2], side)
            down = _cut(frame.height, view.box[1], view.box[3], side)
        part = _crop(frame, across, down)
        scaled = scale.reformat(
            part, across.size, down.size, _FORMAT, interpolation=Interpolation.BILINEAR, threads=1
        )
        image = _to_rgb(convert, scaled)
        squares.append(image[down.offset :, across.offset :][:side, :side])
    return finish(np.stack(squares), view)


def _decode(images: Iterable[bytes]) -> Iterator[av.VideoFrame]:
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    sizes = set()
    for data in images:
        try:
            [frame] = decoder.decode(av.Packet(data))
        except (av.FFmpegError, ValueError) as error:
            raise JpegError("damaged JPEG") from error
        sizes.add((frame.width, frame.height))
        if len(sizes) > 1:
            raise JpegError("JPEGs of different sizes")
        yield frame


def _to_rgb(convert: VideoReformatter, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    return convert.reformat(frame, format="rgb24", threads=1).to_ndarray()


class _Cut(NamedTuple):
    """One dimension of a crop: pixels `start` to `end`, scaled to `size`, wanted from `offset`."""

    start: int
    end: int
    size: int
    offset: int


def _cut(length: int, first: int | float, last: int | float, side: int) -> _Cut:
    """Even pixels, for the colours' sake, around `first` to `last`, which become `side`.

    The crop is widened to where its edges fall on whole pixels of the result, as nearly as may be.
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


def _fraction(x: int | float) -> float:
    return round(abs(x - round(x)), 6)


def _crop(frame: av.VideoFrame, across: _Cut, down: _Cut) -> av.VideoFrame:
    """A copy of a part of a frame; the frame itself if it is all of it."""
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
    """The memory of a plane, with what lies between its rows."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
