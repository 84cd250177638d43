"""Frames that show their number, which survives scaling and compression."""

import numpy as np

_BITS = 8


def draw_number(number: int, width: int, height: int) -> np.ndarray:
    """A frame (height, width, 3) with `number` in 8 vertical stripes, the lowest bit first."""
    stripe = np.arange(width) * _BITS // width
    row = (number >> stripe & 1) * 200 + 20
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)


def read_number(frame: np.ndarray) -> int:
    """The number in a frame drawn by `draw_number`, however scaled and compressed."""
    edges = np.arange(_BITS + 1) * frame.shape[1] // _BITS
    means = [frame[:, a + 1 : b - 1].mean() for a, b in zip(edges, edges[1:], strict=False)]
    return sum(int(mean > 120) << bit for bit, mean in enumerate(means))


def read_numbers(frames: np.ndarray) -> list[int]:
    """The numbers of several frames."""
    return [read_number(frame) for frame in frames]
