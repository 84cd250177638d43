"""Which frames of a video a network sees, and which of their pixels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

_Pixels = int | float
Box = tuple[_Pixels, _Pixels, _Pixels, _Pixels]  # left, top, right, bottom

ROUNDING = 1e-6  # of an interval, that a frame may come before its centre

# Offsets in quarters of the room that a crop leaves, (right, down): TSN's "more_fix_crop".
_OFFSETS = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),  # corners and centre
    *((0, 2), (4, 2), (2, 4), (2, 0)),  # middles of the sides
    *((1, 1), (3, 1), (1, 3), (3, 3)),  # centres of the quarters
)


class View(NamedTuple):
    """A crop: the pixels inside `box`, resized to a square of `size`.

    `via`, if not 0, is the side of a square that they are resized to first, from which the nearest
    pixels are taken (`Released.crops`).
    """

    box: Box
    size: int
    via: int = 0
    mirrored: bool = False


Look = Callable[[int, int], View]  # from the height and width of the frames


@dataclass(frozen=True)
class Sampler:
    """The frames and crops that a network sees of a video.

    Attributes:
        num_frames: T, frames of a video.
        size: side of the crops in pixels.
        short_side: pixels to which larger videos are scaled down first; 0: never.
        via: as in `View`.
    """

    num_frames: int
    size: int
    short_side: int = 0
    via: int = 0

    def choose(
        self, num_available: int, rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, "t"]:
        """Indices of the frames: `segment_indices`."""
        return segment_indices(num_available, self.num_frames, rng)

    def centre(self, height: int, width: int) -> View:
        """The view for testing: `centre_view`."""
        return centre_view(height, width, self.size, self.via)

    def crop(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "size size 3"]:
        """The centre of a frame, for testing."""
        return show(pixels[None], self.centre(*pixels.shape[:2]))[0]

    def fit(self, pixels: np.ndarray) -> UInt8[np.ndarray, "size size 3"]:
        """A frame that may have the network's size already. Raises ValueError for no image."""
        check_pixels(pixels)
        return pixels if pixels.shape[:2] == (self.size, self.size) else self.crop(pixels)


def check_pixels(pixels: np.ndarray) -> None:
    """Raise ValueError unless the pixels are a uint8 RGB image."""
    shape, dtype = np.shape(pixels), getattr(pixels, "dtype", type(pixels).__name__)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or not all(shape):
        raise ValueError(f"a frame is uint8 of shape (height, width, 3), not {dtype} of {shape}")


def random_view(
    height: int,
    width: int,
    size: int,
    rng: np.random.Generator,
    *,
    scales: Sequence[float],
    flip: bool,
    via: int = 0,
) -> View:
    """A multi-scale crop for training, mirrored with probability 0.5 if `flip`."""
    box = multi_scale_box(height, width, scales, rng)
    return View(box, size, via, mirrored=flip and rng.random() < 0.5)


def centre_view(height: int, width: int, size: int, via: int = 0) -> View:
    """The centre after scaling the short side to 8/7 of `size`, for testing."""
    return View(centre_box(height, width, via or size), size, via)


def show(frames: UInt8[np.ndarray, "t h w 3"], view: View) -> UInt8[np.ndarray, "t size size 3"]:
    """Apply a view to all frames."""
    return finish(resize(frames, view.box, view.via or view.size), view)


def finish(
    squares: UInt8[np.ndarray, "t side side 3"], view: View
) -> UInt8[np.ndarray, "t size size 3"]:
    """Mirror a box that was resized to `via` or `size`, and take the nearest pixels."""
    return take_nearest(squares[:, :, ::-1] if view.mirrored else squares, view.size)


def multi_scale_box(
    height: int, width: int, scales: Sequence[float], rng: np.random.Generator
) -> Box:
    """A crop at one of 13 fixed places; its sides are the short side times two of the `scales`.

    The two scales are at most one step apart in `scales`, which bounds the distortion (TSN).
    """
    steps = range(len(scales))
    pairs = [(i, j) for i in steps for j in steps if abs(i - j) <= 1]
    i, j = pairs[rng.integers(len(pairs))]
    crop_height, crop_width = (max(int(min(height, width) * scales[s]), 1) for s in (i, j))
    right, down = _OFFSETS[rng.integers(len(_OFFSETS))]
    left = right * ((width - crop_width) // 4)
    top = down * ((height - crop_height) // 4)
    return left, top, left + crop_width, top + crop_height


def centre_box(height: int, width: int, size: int) -> Box:
    """The part of a frame that scaling its short side to 8/7 of `size` and cropping keeps.

    Resizing this box gives the pixels of the two steps, without computing those cropped away.
    """
    short = round(size * 8 / 7)
    scaled = [round(side * short / min(height, width)) for side in (width, height)]
    left, top = ((side - size) // 2 for side in scaled)
    x, y = width / scaled[0], height / scaled[1]
    return left * x, top * y, (left + size) * x, (top + size) * y


def resize(
    frames: UInt8[np.ndarray, "t h w 3"], box: Box, size: int
) -> UInt8[np.ndarray, "t size size 3"]:
    """Resize `box` of every frame to a square; bilinear, antialiased."""
    resized = (
        Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR, box=box)
        for frame in frames
    )
    return np.stack([np.asarray(image) for image in resized])


def take_nearest(
    frames: UInt8[np.ndarray, "t side side 3"], size: int
) -> UInt8[np.ndarray, "t size size 3"]:
    """Resize squares as torch.nn.functional.interpolate does with mode="nearest"."""
    side = frames.shape[1]
    if side == size:
        return frames
    place = np.arange(size, dtype=np.float32) * np.float32(side / size)  # rounded as there
    nearest = place.astype(int)
    return frames[:, nearest][:, :, nearest]


def segment_indices(
    num_available: int, num_frames: int, rng: np.random.Generator | None = None
) -> Int[np.ndarray, "t"]:
    """One frame from each of `num_frames` equal segments of a video (TSN, Wang et al. 2016).

    With `rng` a random frame of each segment, for training; else the one in its centre. Ascending;
    frames repeat if the video has fewer than requested.
    """
    within = 0.5 if rng is None else rng.random(num_frames)
    position = (np.arange(num_frames) + within) * num_available / num_frames
    return np.minimum(position.astype(np.int64), num_available - 1)  # in case it was rounded up


def regular_indices(
    times: Float[np.ndarray, "f"], start: float, end: float, interval: float
) -> Int[np.ndarray, "t"]:
    """The first frame at or after the centre of each `interval` from `start` to `end`.

    Ascending indices into `times`; fewer if the frames are further apart than the interval.
    """
    count = math.ceil((end - start) / interval - ROUNDING)
    # A list of the centres could be endless: a damaged time stamp may be 10,000 years ahead.
    passed = np.floor((times - start) / interval + 0.5 + ROUNDING).clip(0, count)
    return np.flatnonzero(np.diff(passed, prepend=0.0))
