"""Decoded frames as upright RGB images."""

import threading
from typing import Any, NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

# The triangle filter, as wide as the scale requires (antialiased), with full chroma.
_SCALE = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT

MAX_BYTES = 8 << 30  # of all images together; a file may have frames of any size


class Orientation(NamedTuple):
    """How a picture becomes upright: rows and columns are exchanged first, then reversed."""

    transposed: bool
    rows_reversed: bool
    columns_reversed: bool

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "y x 3"]:
        """A view of the picture, upright."""
        image = image.swapaxes(0, 1) if self.transposed else image
        return image[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


def read_orientation(frame: av.VideoFrame) -> Orientation:
    """The orientation nearest to the frame's display matrix (ISO 14496-12, 8.3.2: a b u c d v …).

    The pixel in column x and row y is shown in column a x + c y and row b x + d y.
    """
    side_data: Any = frame.side_data  # PyAV declares another type than it returns
    if Type.DISPLAYMATRIX not in side_data:
        return Orientation(False, False, False)
    matrix = np.frombuffer(bytes(side_data[Type.DISPLAYMATRIX]), np.int32)
    a, b, _, c, d = matrix[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, b < 0, c < 0)
    return Orientation(False, d < 0, a < 0)


class _Brush(threading.local):
    """A converter of frames for each thread, which keeps its tables from frame to frame."""

    def __init__(self):
        self.draw = VideoReformatter().reformat


class Canvas:
    """An array of images, all of the size and the orientation of the first frame painted.

    Images are scaled down if their short side exceeds `short_side` > 0. Several threads may paint
    at once; chance then decides which frame is the first, so `mixed` frames have to be painted
    again by one thread. Painting raises ValueError for more than `MAX_BYTES`.
    """

    def __init__(self, count: int, short_side: int):
        self.mixed = False  # whether the frames differ in size or orientation
        self._count = count
        self._short_side = short_side
        self.images: UInt8[np.ndarray, "t h w 3"]
        self._form: tuple[int, int, Orientation] | None = None
        self._brush = _Brush()
        self._lock = threading.Lock()
        self._missing = set(range(count))

    @property
    def complete(self) -> bool:
        """Whether all images are painted."""
        return not self._missing

    def has(self, i: int) -> bool:
        """Whether image i is painted."""
        return i not in self._missing

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the first frame painted, made upright, before it was scaled."""
        assert self._form is not None
        width, height, orientation = self._form
        return (height, width) if orientation.transposed else (width, height)

    def paint(self, i: int, frame: av.VideoFrame) -> None:
        """Make the frame image i, unless there is one already."""
        if i not in self._missing:
            return
        form = frame.width, frame.height, read_orientation(frame)
        with self._lock:
            if self._form is None:
                self._form = form
                self.images = self._create_images(*form)
        self.mixed |= form != self._form
        orientation = self._form[2]
        height, width = self.images[i].shape[:2]
        if orientation.transposed:
            width, height = height, width
        scale = Interpolation.BILINEAR if (width, height) == form[:2] else _SCALE
        rgb = self._brush.draw(frame, width, height, "rgb24", interpolation=scale, threads=1)
        self.images[i] = orientation.apply(rgb.to_ndarray())
        self._missing.discard(i)

    def _create_images(
        self, width: int, height: int, orientation: Orientation
    ) -> UInt8[np.ndarray, "t h w 3"]:
        short = min(width, height)
        if 0 < self._short_side < short:
            width = max(round(width * self._short_side / short), 1)
            height = max(round(height * self._short_side / short), 1)
        if orientation.transposed:
            width, height = height, width
        if 3 * self._count * height * width > MAX_BYTES:
            raise ValueError(
                f"{self._count} frames of {width}×{height} pixels would take more than "
                f"{MAX_BYTES >> 30} GB; read fewer, or scale them down by data.short_side"
            )
        return np.empty((self._count, height, width, 3), np.uint8)
