"""Videos whose frames differ after average pooling too, each in a packet of its own, in order."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE, FRAMES = 25, 60


def write_scene(path: Path, seed: int, rate: int | Fraction = RATE) -> Path:
    """Noise that changes every five frames; one keyframe, nothing reordered."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.options = {"x264-params": "keyint=250:scenecut=0:bframes=0:crf=10"}
        for i in range(FRAMES):
            rng = np.random.default_rng([seed, i // 5])
            coarse = (rng.integers(0, 256, (32, 48, 3)) * rng.random()).astype(np.uint8)
            image = coarse.repeat(2, 0).repeat(2, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path
