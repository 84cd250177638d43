"""Predictions as a picture, or laid over their video."""

import bisect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from sofnet_jax.data.video.rewrite import rewrite
from sofnet_jax.evaluation.strip import (
    EXIT,
    INK,
    PAPER,
    SPAN,
    STOPPED,
    draw_decisions,
    write_picture,
)
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.prediction import Prediction

STRIPS = 64  # on a picture
_SHORT_SIDE = 480  # pixels, to which a video is scaled down
_BAND = 8  # the band below is this part of a video's short side


def draw_picture(path: Path, predictions: Sequence[Prediction], model: TrainedModel) -> None:
    """A strip for each of the first predictions, after the paper's Figure 4; a PNG.

    The frames that were never looked at are decoded for it. Raises VideoError and OSError.
    """
    predictions = predictions[:STRIPS]
    shape = len(predictions), model.num_frames
    frames = np.zeros((*shape, model.size, model.size, 3), np.uint8)
    stop = np.zeros(shape, np.int64)
    for v, prediction in enumerate(predictions):
        frames[v, : prediction.num_frames] = model.picture(prediction)
        stop[v, : len(prediction.stop)] = prediction.stop
    image = draw_decisions(
        frames=frames,
        stop=stop,
        observed=np.array([len(prediction.stop) for prediction in predictions]),
        relevant=np.full(shape, np.nan),
        gate_names=model.network.architecture.gate_names,
        captions=[_describe(prediction) for prediction in predictions],
        lengths=np.array([prediction.num_frames for prediction in predictions]),
    )
    write_picture(path, image)


def draw_film(path: Path, predictions: Sequence[Prediction]) -> None:
    """The video of the predictions, with what became of each frame in a band below; an MP4.

    Raises VideoError and OSError.
    """
    starts = [prediction.start or 0.0 for prediction in predictions]

    def draw(pixels: UInt8[np.ndarray, "h w 3"], time: float) -> UInt8[np.ndarray, "h2 w 3"]:
        at = max(bisect.bisect_right(starts, time) - 1, 0)
        return draw_band(pixels, predictions[at], time)

    rewrite(predictions[0].video, path, draw, short_side=_SHORT_SIDE)


def draw_band(
    pixels: UInt8[np.ndarray, "h w 3"], prediction: Prediction, time: float
) -> UInt8[np.ndarray, "h2 w 3"]:
    """A frame of the video, with the decisions up to `time` below it."""
    height, width = pixels.shape[:2]
    line = max(min(height, width) // _BAND // 2, 12)
    image = Image.new("RGB", (width, height + 2 * line), PAPER)
    image.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(line * 2 // 3)
    draw.text((4, height + line / 2), _describe(prediction), INK, font, anchor="lm")
    top = height + line
    for j, state in enumerate(list_states(prediction, time)):
        left, right = (width * k // prediction.num_frames for k in (j, j + 1))
        background, ink = {"used": (SPAN, PAPER), "exit": (EXIT, PAPER)}.get(state, (STOPPED, INK))
        if state:
            draw.rectangle((left, top, max(left, right - 2), top + line - 1), background)
            middle = ((left + right) / 2, top + line / 2)
            draw.text(middle, state, ink, font, anchor="mm")
    return np.asarray(image)


def list_states(prediction: Prediction, time: float) -> list[str]:
    """What has become of each frame by `time`: `used`, `res#`, `exit`; empty for those to come."""
    start, end = prediction.start or 0.0, prediction.end or 0.0
    passed = (time - start) / max(end - start, 1e-9) * prediction.num_frames - 0.5
    names = [*prediction.gate_names, "used"]
    seen = [
        names[stop] if at <= time else ""
        for stop, at in zip(prediction.stop, prediction.times, strict=True)
    ]
    unseen = range(len(seen), prediction.num_frames)
    return seen + ["exit" if j <= passed else "" for j in unseen]


def _describe(prediction: Prediction) -> str:
    best = prediction.guesses[0]
    name = Path(prediction.video).name
    where = f", {prediction.start:.1f} to {prediction.end:.1f} s" if prediction.is_window else ""
    return f"{name}{where}: {best.name}, {100 * best.probability:.1f} %"
