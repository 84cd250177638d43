"""The type of a batch, which crosses module boundaries.

Dimensions: b videos, t frames, h w c pixels, k gates, d features, n classes.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from sofnet_jax.data.annotations.clip import Interval


class Batch(TypedDict):
    """A batch of the input pipeline: arrays for the device; `id` and `errors` for the host."""

    frames: UInt8[np.ndarray, "b t h w 3"]
    labels: Float[np.ndarray, "b n"]  # multi-hot
    index: Int[np.ndarray, "b"]  # training: position in the global batch; evaluation: in the source
    valid: Bool[np.ndarray, "b"]  # False for padding and for unreadable videos (evaluation only)
    relevant: Float[np.ndarray, "b t"]  # 1 inside the annotated action, 0 outside, NaN unknown
    id: list[str]
    errors: list[dict[str, str]]  # for each example, videos that could not be read: {id: reason}


def mark_relevant(
    segments: Sequence[Interval] | None, times: Float[np.ndarray, "t"]
) -> Float[np.ndarray, "t"]:
    """Mark frames: 1 inside a relevant interval, 0 outside, NaN if none is annotated."""
    if segments is None:
        return np.full(len(times), np.nan, np.float32)
    start, end = np.array(segments, np.float64).reshape(-1, 2).T[..., None]
    return np.any((start <= times) & (times < end), axis=0).astype(np.float32)
