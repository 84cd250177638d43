"""A picture of sample videos, with their crops as the network sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from sofnet_jax.data.views import View, centre_view, random_view, show
from sofnet_jax.host.files import write_whole
from sofnet_jax.host.fonts import choose_font

CELL, GAP, BAR, TEXT = 112, 4, 5, 18  # pixels: side of a cell, gap, heights of bar and text
INK, PAPER, SPAN = "#1a1a1a", "#ffffff", "#2f6fde"
TEST, TRAIN = "#00c853", "#ff6d00"  # outlines of the crops
_LEGEND = (("whole frame", INK), ("as tested", TEST), ("as trained, one of many ways", TRAIN))


@dataclass(frozen=True)
class Sample:
    """Some frames of a video, and whether each is in its action."""

    caption: str
    frames: UInt8[np.ndarray, "t h w 3"]
    relevant: Bool[np.ndarray, "t"]


@dataclass(frozen=True)
class Sheet:
    """Where to draw a contact sheet, and how a network sees the videos (`random_view`)."""

    path: Path
    size: int
    scales: tuple[float, ...]
    seed: int


def draw_contact_sheet(sheet: Sheet, samples: Sequence[Sample]) -> None:
    """Write a PNG with three rows for each sample.

    The first shows whole frames with outlines of the two crops below: the one for testing, and a
    random one for training, both of `size` pixels and drawn smaller. A bar marks the action.
    """
    columns = max(len(sample.frames) for sample in samples)
    strip = TEXT + 3 * (CELL + GAP) + BAR + 2 * GAP
    width = columns * (CELL + GAP) + GAP
    image = Image.new("RGB", (width, TEXT + len(samples) * strip + GAP), PAPER)
    draw = ImageDraw.Draw(image)
    font, left = ImageFont.load_default(13), GAP
    for text, colour in _LEGEND:
        draw.text((left, 2), text, colour, font)
        left += round(draw.textlength(text, font)) + 4 * GAP
    for i, sample in enumerate(samples):
        height, width = sample.frames.shape[1:3]
        rng = np.random.default_rng((sheet.seed, i))
        views = {
            TEST: centre_view(height, width, sheet.size),
            TRAIN: random_view(height, width, sheet.size, rng, scales=sheet.scales, flip=True),
        }
        _draw_sample(image, TEXT + i * strip, sample, views)
    with write_whole(sheet.path) as partial:
        image.save(partial, "PNG")


def _draw_sample(image: Image.Image, top: int, sample: Sample, views: dict[str, View]) -> None:
    draw = ImageDraw.Draw(image)
    crops = [show(sample.frames, view) for view in views.values()]
    font, caption = choose_font(sample.caption, 13)
    draw.text((GAP, top), caption, INK, font)
    for t, frame in enumerate(sample.frames):
        left, below = GAP + t * (CELL + GAP), top + TEXT
        _paste_whole(image, (left, below), frame, views)
        for crop in crops:
            below += CELL + GAP
            image.paste(Image.fromarray(crop[t]).resize((CELL, CELL)), (left, below))
        if sample.relevant[t]:
            bar = below + CELL + GAP
            draw.rectangle((left, bar, left + CELL + GAP - 1, bar + BAR - 1), SPAN)


def _paste_whole(
    image: Image.Image,
    corner: tuple[int, int],
    frame: UInt8[np.ndarray, "h w 3"],
    views: dict[str, View],
) -> None:
    """Paste a frame into the middle of a cell, and outline its views."""
    height, width = frame.shape[:2]
    scale = CELL / max(height, width)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    left, top = corner[0] + (CELL - small[0]) // 2, corner[1] + (CELL - small[1]) // 2
    image.paste(Image.fromarray(frame).resize(small), (left, top))
    for colour, view in views.items():
        x, y, right, bottom = view.box
        first = left + x * scale, top + y * scale
        last = left + right * scale - 1, top + bottom * scale - 1
        # A box may be smaller than a pixel here.
        box = (first, tuple(map(max, first, last)))
        ImageDraw.Draw(image).rectangle(box, None, colour)
