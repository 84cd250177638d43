"""Pictures of what was done with frames, after the paper's Figure 4."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from sofnet_jax.host.files import write_whole
from sofnet_jax.host.fonts import choose_font
from sofnet_jax.systems.base import Action, Trace

CELL, GAP, BAR, TEXT = 96, 4, 6, 18  # pixels: side of a frame, space, height of the bar, of text
INK, PAPER, STOPPED, EXIT, SPAN = "#1a1a1a", "#ffffff", "#dcdfe4", "#1a1a1a", "#2f6fde"


def draw_decisions(
    *,
    frames: UInt8[np.ndarray, "v t h w 3"],
    traces: Sequence[Trace],
    relevant: Float[np.ndarray, "v t"],
    actions: Sequence[Action],
    captions: Sequence[str],
    lengths: Int[np.ndarray, "v"] | None = None,
) -> Image.Image:
    """Draws one strip per video.

    The upper row shows the frames; the lower row repeats those that the answer depends on, names
    what was done with the others, and says `exit` for those that were never looked at. A blue bar
    marks the annotated action.

    Args:
        frames: as the network saw them.
        traces: what was done with each video.
        relevant: 1 inside the annotated action, 0 outside, NaN where unknown.
        actions: what can be done with a frame.
        captions: a line of text for each video.
        lengths: the number of frames of each video, if they differ.
    """
    num_videos, num_frames = relevant.shape
    strip = TEXT + 2 * CELL + GAP + BAR + 3 * GAP
    width = num_frames * (CELL + GAP) + GAP
    image = Image.new("RGB", (width, num_videos * strip + GAP), PAPER)
    draw = ImageDraw.Draw(image)
    large = ImageFont.load_default(20)
    for v in range(num_videos):
        top = v * strip + GAP
        font, caption = choose_font(captions[v], 13)
        draw.text((GAP, top), caption, INK, font)
        top += TEXT
        done = dict(zip(traces[v].time.tolist(), traces[v].action.tolist(), strict=True))
        for t in range(num_frames if lengths is None else lengths[v]):
            left = GAP + t * (CELL + GAP)
            frame = Image.fromarray(frames[v, t]).resize((CELL, CELL), Image.Resampling.BICUBIC)
            image.paste(frame, (left, top))
            low = top + CELL + GAP
            if t not in done:
                _draw_label(draw, (left, low), "exit", EXIT, PAPER, large)
            elif actions[done[t]].uses:
                image.paste(frame, (left, low))
            else:
                _draw_label(draw, (left, low), actions[done[t]].name, STOPPED, INK, large)
            if relevant[v, t] == 1:
                bar = low + CELL + GAP
                draw.rectangle((left, bar, left + CELL + GAP - 1, bar + BAR), SPAN)
    return image


def write_picture(path: Path, image: Image.Image) -> None:
    """Writes a PNG, whole or not at all. Raises OSError."""
    with write_whole(path) as partial:
        image.save(partial, "PNG")


def _draw_label(draw, corner, text: str, background: str, ink: str, font) -> None:
    x, y = corner
    draw.rectangle((x, y, x + CELL - 1, y + CELL - 1), background)
    draw.text((x + CELL / 2, y + CELL / 2), text, ink, font, anchor="mm")
