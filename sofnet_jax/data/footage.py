"""TEMPORARY until decode.py has it."""

from dataclasses import dataclass
import av, numpy as np
from sofnet_jax.data.decode import VideoError, read_frames


@dataclass(frozen=True)
class Footage:
    frames: np.ndarray
    times: np.ndarray
    available: int
    duration: float
    width: int
    height: int


def read_footage(path, choose, *, start=None, end=None, short_side=0, lenient=False):
    n = []
    f = lambda c: n.append(c) or choose(c)
    try:
        frames, times = read_frames(path, f, start=start, end=end)
    except VideoError as e:
        if "end is" not in str(e):
            raise
        frames, times = read_frames(path, f, start=start)
    with av.open(str(path)) as c:
        d = (c.duration or 0) / 1e6
    h, w = frames.shape[1:3]
    if short_side and min(h, w) > short_side:
        from PIL import Image

        s = short_side / min(h, w)
        frames = np.stack(
            [
                np.asarray(
                    Image.fromarray(x).resize(
                        (round(w * s), round(h * s)), Image.Resampling.BILINEAR
                    )
                )
                for x in frames
            ]
        )
    s0 = start or 0
    e0 = min(end or d, d)
    return Footage(frames, times, n[-1], e0 - s0, w, h)
def probe(path):
    try:
        with av.open(str(path)) as c:
            v=c.streams.video[0]; return (c.duration or 0)/1e6, v.width, v.height
    except Exception as e: raise VideoError(f"{path}: {e}")
