"""A trained network that recognises actions in videos: `sofnet_jax.load(…).predict(…)`."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from sofnet_jax.data.video.reader import LazyFrame, Pixels, VideoReader
from sofnet_jax.data.views import centre_view, regular_indices, segment_indices, show
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.online import Recognizer, check_pixels
from sofnet_jax.inference.prediction import Guess, Meter, Prediction, Spending
from sofnet_jax.inference.program import export_program
from sofnet_jax.inference.stream import Window, Windows
from sofnet_jax.systems.early_exit import NEVER, Result, Rule
from sofnet_jax.systems.sofnet.costs import compute_costs
from sofnet_jax.systems.sofnet.folded import Network

PLATFORMS = {"cpu", "cuda", "rocm", "tpu"}  # that JAX exports for
Video = str | os.PathLike | np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True)
class TrainedModel:
    """A network, and how it is to be shown a video.

    Attributes:
        network: of `deploy`.
        classes: their names.
        num_frames: T, frames of a video to look at.
        size: side of the frames in pixels.
        short_side: pixels to which larger videos are scaled down first; 0: never.
        via: as of `transforms.View`.
        rule: of the early end.
        notes: what else to know of the weights, a sentence each.
    """

    network: Network
    classes: tuple[str, ...]
    num_frames: int
    size: int
    short_side: int
    via: int
    rule: Rule
    notes: tuple[str, ...] = ()

    def predict(
        self,
        video: Video,
        *,
        top_k: int = 5,
        early: bool = True,
        start: float | None = None,
        end: float | None = None,
    ) -> Prediction:
        """Recognises the action of a video, and decodes and computes only what that takes.

        Args:
            video: a file, or frames, uint8 RGB. Of both, one frame in the centre of each of
                `num_frames` segments is looked at; frames that are not of the network's size are
                cropped to their centre.
            top_k: classes to name.
            early: whether the video may end early (Eq. 7).
            start: second of a file from which on it is recognised.
            end: second before which it is.

        Raises:
            VideoError: the file cannot be read.
            ValueError: there are no frames, or they are no images.
        """
        if not isinstance(video, str | os.PathLike):
            indices = _choose(len(video), self.num_frames) if len(video) else ()
            given = ((self._take(video[i]), None) for i in indices)
            return self._predict(given, Meter(), "", top_k, early)
        meter = Meter()
        with meter.decoding():
            reader = VideoReader(video, short_side=self.short_side)
        with reader:
            shown = self.look(reader, start=start, end=end)
            prediction = self._predict(shown, meter, os.fspath(video), top_k, early)
            end = min(reader.end, reader.end if end is None else end)
        return replace(prediction, start=start or 0.0, end=end)

    def look(
        self, reader: VideoReader, *, start: float | None = None, end: float | None = None
    ) -> Iterator[tuple[UInt8[np.ndarray, "size size 3"], float]]:
        """What the network is to see of a file, and when, decoded as it is asked for.

        Raises VideoError.
        """
        frames = reader.read(lambda n: _choose(n, self.num_frames), start=start, end=end)
        return ((self._crop(pixels), at) for pixels, at in frames)

    def segment(
        self, video: str | os.PathLike, *, seconds: float, every: float = 0.0, **options: Any
    ) -> Iterator[Prediction]:
        """Recognises what happens in each window of a file, as `watch` does; `predict`'s options.

        A video shorter than a window is recognised as a whole. Raises VideoError.
        """
        _check_windows(seconds, every)
        meter = Meter()
        with meter.decoding():
            reader = VideoReader(video, short_side=self.short_side)
        with reader:
            if reader.end - reader.times[0] > seconds:
                start = float(reader.times[0])
                interval = seconds / self.num_frames
                chosen = regular_indices(reader.times, start, reader.end, interval)
                yield from self.watch(
                    reader.scan(chosen),
                    seconds=seconds,
                    every=every,
                    start=start,
                    end=reader.end,
                    name=os.fspath(video),
                    meter=meter,
                    **options,
                )
                return
        yield self.predict(video, **options)

    def watch(
        self,
        frames: Iterable[LazyFrame],
        *,
        seconds: float,
        every: float = 0.0,
        start: float | None = None,
        end: float | None = None,
        top_k: int = 5,
        early: bool = True,
        name: str = "",
        meter: Meter | None = None,
    ) -> Iterator[Prediction]:
        """Recognises what happens in each window of a stream, as soon as that is known.

        Args:
            frames: the time of each in seconds, and what reads it (`VideoReader.scan`).
            seconds: of a window.
            every: seconds from the beginning of one window to that of the next, to the nearest
                segment; 0: a window's, so that they do not overlap.
            start: second at which the first window begins; by default that of the first frame.
            end: second at which the stream ends, if that is known.
            top_k: classes to name.
            early: whether windows may end early.
            name: of the stream.
            meter: that the frames' source counts its decoding in, if it does any before they are
                read.
        """
        _check_windows(seconds, every)
        meter = meter or Meter()
        stride = self._count_segments(every, seconds) if every else None
        windows = Windows(
            self.network,
            self.rule if early else NEVER,
            num_frames=self.num_frames,
            seconds=seconds,
            every=stride,
            start=start,
            end=end,
        )
        for at, read in frames:

            def look(read: Any = read) -> Pixels:
                with meter.decoding():
                    return self._crop(read())

            with meter.computing():
                done = windows.step(at, look)
            for window in done:
                yield self._tell(window, meter, name, top_k)
        with meter.computing():
            done = windows.conclude()
        for window in done:
            yield self._tell(window, meter, name, top_k)

    def round_step(self, every: float, seconds: float) -> float:
        """The seconds from window to window that `every` becomes in `watch`."""
        return self._count_segments(every, seconds) * seconds / self.num_frames

    def _count_segments(self, every: float, seconds: float) -> int:
        return max(round(every * self.num_frames / seconds), 1)

    def export(self, path: str | os.PathLike, *, platforms: Sequence[str] = ()) -> None:
        """Writes the network with its gates and its early end as one program, for JAX alone.

        `jax.export.deserialize(bytearray(…)).call(frames)` of the file's content gives the scores,
        the logits and where each frame stopped (`program.Recognition`), for uint8 frames of shape
        (videos, t, size, size, 3).

        Args:
            path: of the file.
            platforms: it can run on, such as "cpu" and "cuda"; by default the one at hand.

        Raises:
            UserError: an unknown platform, or the file cannot be written.
        """
        path = Path(path).expanduser()
        if unknown := set(platforms) - PLATFORMS:
            raise UserError(f"no platform {min(unknown)}; there are {', '.join(sorted(PLATFORMS))}")
        try:
            export_program(path, self.network, self.size, self.rule, platforms=platforms)
        except OSError as error:
            raise UserError(f"cannot write to {path}: {error.strerror or error}") from error

    def picture(self, prediction: Prediction) -> UInt8[np.ndarray, "t size size 3"]:
        """The frames of a file that a prediction was to look at, also those it did not."""
        with VideoReader(prediction.video, short_side=self.short_side) as reader:

            def choose(count: int) -> Int[np.ndarray, "t"]:
                if not prediction.is_window:
                    return _choose(count, self.num_frames)
                seen = np.searchsorted(reader.times, np.array(prediction.times))
                start, end = prediction.times[-1], max(prediction.end or 0.0, prediction.times[-1])
                steps = np.arange(1, prediction.unseen + 1) / (prediction.unseen + 0.5)
                unseen = np.searchsorted(reader.times, start + steps * (end - start))
                return np.minimum(np.concatenate([seen, unseen]), count - 1)

            part = (None, None) if prediction.is_window else (prediction.start, prediction.end)
            frames = reader.read(choose, start=part[0], end=part[1])
            return np.stack([self._crop(pixels) for pixels, _ in frames])

    def _predict(
        self,
        frames: Iterator[tuple[np.ndarray, float | None]],
        meter: Meter,
        name: str,
        top_k: int,
        early: bool,
    ) -> Prediction:
        recognizer = Recognizer(self.network, self.rule if early else NEVER)
        times = []
        ended = False
        while not ended:
            with meter.decoding():
                pixels, at = next(frames, (None, None))
            if pixels is None:
                break
            times += [] if at is None else [at]
            with meter.computing():
                ended = recognizer.step(pixels).ended
        with meter.computing():
            result = recognizer.result()
        return self.conclude(result, meter, name, top_k, tuple(times), self.num_frames)

    def _tell(self, window: Window, meter: Meter, name: str, top_k: int) -> Prediction:
        prediction = self.conclude(
            window.result, meter, name, top_k, window.times, window.num_frames
        )
        return replace(prediction, start=window.start, end=window.end, is_window=True)

    def conclude(
        self,
        result: Result,
        meter: Meter,
        name: str,
        top_k: int,
        times: tuple[float, ...],
        num_frames: int,
    ) -> Prediction:
        """The prediction that a result stands for.

        Args:
            result: of `consensus`.
            meter: of its decoding and computing.
            name: of the video.
            top_k: classes to name.
            times: of the frames looked at, in seconds.
            num_frames: that were to be looked at.

        Raises:
            UserError: the network's scores are no numbers.
        """
        architecture = self.network.architecture
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be a number from 1 up")
        if not np.isfinite(result.logits).all():
            raise UserError(
                f"{name or 'frames'}: the network's scores are no numbers; see its weights"
            )
        decode_ms, network_ms = meter.read()
        costs = compute_costs(architecture, self.size)
        plain = compute_costs(replace(architecture, gates=()), self.size)
        best = np.argsort(-result.scores, kind="stable")[:top_k]
        return Prediction(
            video=name,
            start=None,
            end=None,
            guesses=tuple(Guess(self.classes[i], float(result.scores[i])) for i in best),
            scores=result.scores,
            gate_names=architecture.gate_names,
            stop=result.stop,
            times=times,
            num_frames=num_frames,
            spent=Spending(*(float(cost.by_stop[result.stop].sum()) for cost in costs)),
            plain=Spending(*(cost.whole * num_frames for cost in plain)),
            decode_ms=decode_ms,
            network_ms=network_ms,
        )

    def _take(self, pixels: np.ndarray) -> UInt8[np.ndarray, "size size 3"]:
        """A frame that was given, which may be as the network sees it already."""
        check_pixels(pixels)
        return pixels if pixels.shape[:2] == (self.size, self.size) else self._crop(pixels)

    def _crop(self, pixels: Pixels) -> UInt8[np.ndarray, "size size 3"]:
        """What the network sees of a video's frame."""
        height, width = pixels.shape[:2]
        view = centre_view(height, width, self.size, self.via)
        return show(pixels[None], view)[0]


def _check_windows(seconds: float, every: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0 and math.isfinite(every) and every >= 0):
        raise ValueError(f"windows of {seconds} s every {every} s")


def _choose(num_available: int, num_frames: int) -> Int[np.ndarray, "t"]:
    return segment_indices(num_available, num_frames, None)
