"""Generated videos that cost a decoder as much as camera footage."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

RATE = 30  # frames a second
DEFAULT_KEYFRAMES = 250  # frames from one to the next, the default of x264


def write_video(
    path: Path,
    *,
    frames: int,
    width: int,
    height: int,
    keyframes: int = DEFAULT_KEYFRAMES,
    crf: int = 23,
    seed: int = 0,
) -> Path:
    """Write H.264 with x264's preset "veryfast" and a keyframe at least every `keyframes`.

    A lower `crf`, x264's constant rate factor, gives more bits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "g": str(keyframes), "crf": str(crf)}
        for image in _draw_scenes(frames, width, height, np.random.default_rng(seed)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="yuv420p")))
        container.mux(stream.encode())
    return path


def _draw_scenes(
    frames: int, width: int, height: int, rng: np.random.Generator
) -> Iterator[UInt8[np.ndarray, "h w"]]:
    """Two textures, one moving before the other, with grain; a cut every 11 s."""
    size = height * 11 // 6, width * 57 // 32
    textures = [_draw_texture(rng, size, octaves) for octaves in ([2, 8, 32, 128], [4, 16, 64])]
    chroma = [texture[: height // 2, : width // 2] // 4 + 96 for texture in textures]
    grain = [rng.normal(0, 2, (height, width)).astype(np.int16) for _ in range(8)]
    y, x = np.mgrid[:height, :width]
    for i in range(frames):
        shot = i // (11 * RATE)
        back, front = textures[shot % 2], textures[1 - shot % 2]
        top = int(height * (5 / 12 + 7 / 18 * np.sin(i / 90 + shot)))
        left = int(width * (25 / 64 + 3 / 8 * np.sin(i / 140 + shot)))
        luma = back[top : top + height, left : left + width].copy()
        centre = height / 2 * (1 + 0.6 * np.sin(i / 25)), width / 2 * (1 + 0.6 * np.cos(i / 33))
        disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (height / 4) ** 2
        luma[disc] = front[:height, :width][disc]
        luma = np.clip(luma + np.roll(grain[i % 8], i * 37), 16, 235)
        planes = [plane.astype(np.uint8).reshape(-1, width) for plane in (luma, *chroma)]
        yield np.concatenate(planes)


def _draw_texture(
    rng: np.random.Generator, size: tuple[int, int], octaves: list[int]
) -> Int[np.ndarray, "h2 w2"]:
    """Noise with the spectrum of photographs."""
    height, width = size
    texture = np.zeros(size, np.float32)
    for octave in octaves:
        noise = rng.normal(size=(height // octave + 2, width // octave + 2)).astype(np.float32)
        smooth = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        texture += np.asarray(smooth) * octave**0.5
    return np.clip(texture * 6 + 128, 0, 255).astype(np.int16)
