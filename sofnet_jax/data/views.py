"""Crops, flips and resizing: the same for every frame of a video."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

_Pixels = int | float
Box = tuple[_Pixels, _Pixels, _Pixels, _Pixels]  # left, top, right, bottom

# Offsets in quarters of the room that a crop leaves, (right, down): TSN's "more_fix_crop".
_OFFSETS = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),  # corners and centre
    *((0, 2), (4, 2), (2, 4), (2, 0)),  # middles of the sides
    *((1, 1), (3, 1), (1, 3), (3, 3)),  # centres of the quarters
)


class View(NamedTuple):
    """What is shown of a frame: the pixels inside `box`, resized to a square of `size`.

    `via`, if not 0, is the side of the square that they are resized to first; of that the nearest
    pixels are taken (`Released.crops`).
    """

    box: Box
    size: int
    via: int = 0
    mirrored: bool = False


Look = Callable[[int, int], View]  # height and width of the frames -> what to show of each


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
    """A multi-scale crop for training, mirrored in half of the cases if `flip`."""
    box = multi_scale_box(height, width, scales, rng)
    return View(box, size, via, mirrored=flip and rng.random() < 0.5)


def centre_view(height: int, width: int, size: int, via: int = 0) -> View:
    """The centre after scaling the short side to 8/7 of `size`, for testing."""
    return View(centre_box(height, width, via or size), size, via)


def show(frames: UInt8[np.ndarray, "t h w 3"], view: View) -> UInt8[np.ndarray, "t size size 3"]:
    """What a view shows of all frames."""
    return finish(resize(frames, view.box, view.via or view.size), view)


def finish(
    squares: UInt8[np.ndarray, "t side side 3"], view: View
) -> UInt8[np.ndarray, "t size size 3"]:
    """What is left to do once the box is a square of `via` or `size`: mirror, take the nearest."""
    return take_nearest(squares[:, :, ::-1] if view.mirrored else squares, view.size)


def multi_scale_box(
    height: int, width: int, scales: Sequence[float], rng: np.random.Generator
) -> Box:
    """A crop at one of 13 fixed places, its sides the short side times two of the `scales`.

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
    """Resizes `box` of every frame to a square; bilinear, antialiased."""
    resized = (
        Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR, box=box)
        for frame in frames
    )
    return np.stack([np.asarray(image) for image in resized])


def take_nearest(
    frames: UInt8[np.ndarray, "t side side 3"], size: int
) -> UInt8[np.ndarray, "t size size 3"]:
    """Squares of another side, as torch.nn.functional.interpolate's "nearest" makes them."""
    side = frames.shape[1]
    if side == size:
        return frames
    place = np.arange(size, dtype=np.float32) * np.float32(side / size)  # rounded as there
    nearest = place.astype(int)
    return frames[:, nearest][:, :, nearest]


ROUNDING = 1e-6  # of an interval, that a frame may come before its centre


def segment_indices(
    num_available: int, num_frames: int, rng: np.random.Generator | None
) -> Int[np.ndarray, "t"]:
    """One frame from each of `num_frames` equal segments of a video (TSN, Wang et al. 2016).

    A random frame of each segment for training (`rng` given), the one in its centre for testing.
    Ascending; frames repeat where the video has fewer than asked.
    """
    within = 0.5 if rng is None else rng.random(num_frames)
    position = (np.arange(num_frames) + within) * num_available / num_frames
    return np.minimum(position.astype(np.int64), num_available - 1)  # in case it was rounded up


def regular_indices(
    times: Float[np.ndarray, "f"], start: float, end: float, interval: float
) -> Int[np.ndarray, "t"]:
    """The first frame that is not before the centre of each `interval` from `start` to `end`.

    Ascending, of frames at these times; fewer where the frames are further apart.
    """
    count = math.ceil((end - start) / interval - ROUNDING)
    # Not by a list of the centres: a damaged time stamp may be ten thousand years ahead.
    passed = np.floor((times - start) / interval + 0.5 + ROUNDING).clip(0, count)
    return np.flatnonzero(np.diff(passed, prepend=0.0))
