"""Crops, flips and resizing: the same for every frame of a video."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_Pixels = int | float
Box = tuple[_Pixels, _Pixels, _Pixels, _Pixels]  # left, top, right, bottom

# Offsets in quarters of the room that a crop leaves, (right, down): TSN's "more_fix_crop".
_OFFSETS = (
    *((0, 0), (4, 0), (0, 4), (4, 4), (2, 2)),  # corners and centre
    *((0, 2), (4, 2), (2, 4), (2, 0)),  # middles of the sides
    *((1, 1), (3, 1), (1, 3), (3, 3)),  # centres of the quarters
)


def augment(
    frames: UInt8[np.ndarray, "t h w 3"],
    size: int,
    rng: np.random.Generator,
    *,
    scales: Sequence[float],
    flip: bool,
    via: int = 0,
) -> UInt8[np.ndarray, "t size size 3"]:
    """One random multi-scale crop of all frames, mirrored in half of the cases if `flip`.

    `via`, if given, is the side of the square that a crop is resized to first; of that the nearest
    pixels are taken (`Released.crops`).
    """
    height, width = frames.shape[1:3]
    box = multi_scale_box(height, width, scales, rng)
    mirrored = flip and rng.random() < 0.5
    resized = resize(frames, box, via or size)
    return take_nearest(resized[:, :, ::-1] if mirrored else resized, size)


def centre_crop(
    frames: UInt8[np.ndarray, "t h w 3"], size: int, via: int = 0
) -> UInt8[np.ndarray, "t size size 3"]:
    """The centre of all frames after scaling their short side to 8/7 of `size`, for testing.

    `via` is as of `augment`.
    """
    height, width = frames.shape[1:3]
    side = via or size
    return take_nearest(resize(frames, centre_box(height, width, side), side), size)


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
