"""Which frames of a video to look at."""

import numpy as np
from jaxtyping import Int


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
