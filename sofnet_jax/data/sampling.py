"""Which frames of a video to look at."""

import math

import numpy as np
from jaxtyping import Float, Int

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
