"""Predictions drawn as a picture, or below the frames of their video."""

import bisect
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from sofnet_jax.data.video.reader import VideoReader
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
from sofnet_jax.host.fonts import choose_font
from sofnet_jax.host.time_limit import TimeLimit
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.prediction import Prediction

STRIPS = 64  # in a picture, at most
_SHORT_SIDE = 480  # pixels, to which a video is scaled down
_BAND = 8  # the band below is 1/8 of a video's short side high


def draw_picture(
    path: Path,
    predictions: Sequence[Prediction],
    model: TrainedModel,
    *,
    time_limit: float = math.inf,
) -> None:
    """Write a PNG with a strip for each of the first predictions, after the paper's Figure 4.

    Frames that were never looked at are decoded for it, of each video for `time_limit` seconds at
    most. Raises VideoError and OSError.
    """
    predictions = predictions[:STRIPS]
    shape = len(predictions), model.num_frames
    frames = np.zeros((*shape, model.size, model.size, 3), np.uint8)
    for v, prediction in enumerate(predictions):
        frames[v, : prediction.num_frames] = read_frames(model, prediction, time_limit)
    image = draw_decisions(
        frames=frames,
        traces=[prediction.trace for prediction in predictions],
        relevant=np.full(shape, np.nan),
        actions=model.network.architecture.actions,
        captions=[_describe(prediction) for prediction in predictions],
        lengths=np.array([prediction.num_frames for prediction in predictions]),
    )
    write_picture(path, image)


def read_frames(
    model: TrainedModel, prediction: Prediction, time_limit: float = math.inf
) -> UInt8[np.ndarray, "t size size 3"]:
    """The frames of a file that a prediction was to look at, including those after an early exit.

    Raises VideoError, also if that takes more than `time_limit` seconds.
    """
    limit, short_side = TimeLimit(time_limit), model.sampler.short_side
    with (
        limit.running(),
        VideoReader(prediction.video, short_side=short_side, limit=limit) as reader,
    ):

        def choose(count: int) -> Int[np.ndarray, "t"]:
            if not prediction.is_window:
                return model.sampler.choose(count)
            seen = np.searchsorted(reader.times, np.array(prediction.times))
            start, end = prediction.times[-1], max(prediction.end or 0.0, prediction.times[-1])
            steps = np.arange(1, prediction.unseen + 1) / (prediction.unseen + 0.5)
            unseen = np.searchsorted(reader.times, start + steps * (end - start))
            return np.minimum(np.concatenate([seen, unseen]), count - 1)

        start, end = (None, None) if prediction.is_window else (prediction.start, prediction.end)
        frames = reader.read(choose, start=start, end=end)
        return np.stack([model.sampler.crop(pixels) for pixels, _ in frames])


def draw_film(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write the video of the predictions as an MP4, with the decisions in a band below.

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
    """A frame of a video with the decisions up to `time` below it."""
    height, width = pixels.shape[:2]
    line = max(min(height, width) // _BAND // 2, 12)
    image = Image.new("RGB", (width, height + 2 * line), PAPER)
    image.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(image)
    caption_font, caption = choose_font(_describe(prediction), line * 2 // 3)
    draw.text((4, height + line / 2), caption, INK, caption_font, anchor="lm")
    font = ImageFont.load_default(line * 2 // 3)
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
    """The fate of each frame by `time`: `used`, `res#`, `exit`; empty if it is still to come."""
    start, end = prediction.start or 0.0, prediction.end or 0.0
    passed = (time - start) / max(end - start, 1e-9) * prediction.num_frames - 0.5
    names = ["used" if action.uses else action.name for action in prediction.actions]
    states = ["exit" if j <= passed else "" for j in range(prediction.num_frames)]
    trace = prediction.trace
    for frame, action, at in zip(trace.time, trace.action, prediction.times, strict=True):
        states[frame] = names[action] if at <= time else ""
    return states


def _describe(prediction: Prediction) -> str:
    best = prediction.guesses[0]
    name = Path(prediction.video).name
    where = f", {prediction.start:.1f} to {prediction.end:.1f} s" if prediction.is_window else ""
    return f"{name}{where}: {best.name}, {100 * best.probability:.1f} %"
