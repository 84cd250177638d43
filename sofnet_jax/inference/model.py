"""A trained network that recognises actions in videos: `sofnet_jax.load(…).predict(…)`."""

import functools
import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from sofnet_jax.data.video.reader import LazyFrame, Pixels, VideoReader
from sofnet_jax.data.views import ROUNDING, Sampler, regular_indices
from sofnet_jax.engines.network import restore_network
from sofnet_jax.host.errors import UserError, first_line
from sofnet_jax.host.paths import expand
from sofnet_jax.host.time_limit import TimeLimit
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.prediction import Guess, Meter, Prediction
from sofnet_jax.inference.program import export_program
from sofnet_jax.inference.stream import Window, Windows
from sofnet_jax.systems.base import Network, Result, Spending
from sofnet_jax.systems.early_exit import NEVER, Rule

PLATFORMS = {"cpu", "cuda", "rocm", "tpu"}  # that JAX exports for
Video = str | os.PathLike | np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True)
class TrainedModel:
    """A network, the names of its classes, and how it sees a video.

    `sampler` chooses and crops the frames, `rule` says when a video ends early, and `notes` are
    warnings about the weights, a sentence each.
    """

    network: Network
    classes: tuple[str, ...]
    sampler: Sampler
    rule: Rule
    notes: tuple[str, ...] = ()

    @property
    def num_frames(self) -> int:
        """T, frames of a video."""
        return self.sampler.num_frames

    @property
    def size(self) -> int:
        """Side of the frames in pixels."""
        return self.sampler.size

    def predict(
        self,
        video: Video,
        *,
        top_k: int = 5,
        early: bool = True,
        start: float | None = None,
        end: float | None = None,
        time_limit: float = math.inf,
    ) -> Prediction:
        """Recognise the action of a video; decode and compute only what the gates let through.

        Args:
            video: a file, or uint8 RGB frames. One frame is taken from the centre of each of
                `num_frames` segments, and cropped to its centre unless it has the network's size.
            top_k: number of classes to name.
            early: whether the video may end early (Eq. 7).
            start: second at which the part of a file to recognise begins.
            end: second at which it ends.
            time_limit: seconds that a file may take.

        Raises:
            VideoError: the file cannot be read, or not in time.
            ValueError: there are no frames, or they are not images.
            TypeError: it is neither a file's name nor frames.
        """
        if not isinstance(video, str | os.PathLike):
            if isinstance(video, bytes) or not hasattr(video, "__len__"):
                kind = type(video).__name__
                raise TypeError(f"video is a {kind}; give a file's path, or frames (t, h, w, 3)")
            chosen = self._order(len(video)) if len(video) else ()
            frames = ((self.sampler.fit(video[i]), None) for i in chosen)
            return self._predict(frames, Meter(), "", top_k, early)
        limit, part = TimeLimit(time_limit), {"start": start, "end": end}
        with limit.running():
            return self._predict_file(video, limit, top_k=top_k, early=early, **part)

    def _predict_file(
        self,
        video: str | os.PathLike,
        limit: TimeLimit,
        *,
        top_k: int = 5,
        early: bool = True,
        start: float | None = None,
        end: float | None = None,
    ) -> Prediction:
        meter = Meter()
        with self._open(video, limit, meter) as reader:
            looked = self.look(reader, start=start, end=end)
            prediction = self._predict(looked, meter, os.fspath(video), top_k, early)
            end = min(reader.end, reader.end if end is None else end)
            return replace(prediction, start=start or 0.0, end=end, missing=reader.missing)

    def _open(self, video: str | os.PathLike, limit: TimeLimit, meter: Meter) -> VideoReader:
        with meter.decoding():
            return VideoReader(video, short_side=self.sampler.short_side, limit=limit)

    def look(
        self, reader: VideoReader, *, start: float | None = None, end: float | None = None
    ) -> Iterator[tuple[UInt8[np.ndarray, "size size 3"], float]]:
        """Yield the frames that the network sees of a file, decoded on demand, and their seconds.

        Raises VideoError.
        """
        part = {"start": start, "end": end}
        if self.network.architecture.online:
            frames: Iterator[tuple[Pixels, float]] = reader.read(self.sampler.choose, **part)
        else:  # each by itself, since the reader goes forwards
            frames = (self._read_one(reader, k, **part) for k in range(self.num_frames))
        return ((self.sampler.crop(pixels), at) for pixels, at in frames)

    def _read_one(self, reader: VideoReader, k: int, **part: float | None) -> tuple[Pixels, float]:
        """The frame that is looked at as number k."""
        return next(reader.read(lambda count: self._order(count)[k : k + 1], **part))

    def _order(self, num_available: int) -> Int[np.ndarray, "t"]:
        """The frames of a video that the network looks at, in its order."""
        return self.sampler.choose(num_available)[self.network.architecture.order(self.num_frames)]

    def _predict(
        self,
        frames: Iterator[tuple[np.ndarray, float | None]],
        meter: Meter,
        name: str,
        top_k: int,
        early: bool,
    ) -> Prediction:
        recognizer = Recognizer(self.network, self.rule if early else NEVER)
        recognizer.reset(self.network.architecture.num_frames or None)
        times: list[float] = []
        ended = False
        while not ended:
            with meter.decoding():
                pixels, at = next(frames, (None, None))
            if pixels is None:
                break
            times += [] if at is None else [at]
            with meter.computing():
                ended = recognizer.step(pixels)
        with meter.computing():
            result = recognizer.result()
        return self.conclude(result, meter, name, top_k, tuple(times), self.num_frames)

    def segment(
        self,
        video: str | os.PathLike,
        *,
        seconds: float,
        every: float = 0.0,
        time_limit: float = math.inf,
        **options: Any,
    ) -> Iterator[Prediction]:
        """Recognise each window of a file, as `watch` does; `top_k` and `early` as in `predict`.

        A video shorter than a window is predicted whole. All windows together may take `time_limit`
        seconds. Raises VideoError.
        """
        _check_windows(seconds, every)
        limit = TimeLimit(time_limit)
        return limit.over(self._segment(video, limit, seconds, every, **options))

    def _segment(
        self,
        video: str | os.PathLike,
        limit: TimeLimit,
        seconds: float,
        every: float,
        **options: Any,
    ) -> Generator[Prediction, None, None]:
        meter = Meter()
        with self._open(video, limit, meter) as reader:
            part: dict[str, Any] = {"start": float(reader.times[0]), "end": reader.end}
            if part["end"] - part["start"] > seconds and not self.network.architecture.online:
                step = every or seconds
                yield from self._predict_parts(video, limit, seconds, step, **part, **options)
                return
            if part["end"] - part["start"] > seconds:
                chosen = regular_indices(reader.times, **part, interval=seconds / self.num_frames)
                windows = {"seconds": seconds, "every": every, **part, **options}
                source = {"name": os.fspath(video), "times": reader.times[chosen], "meter": meter}
                for window in self.watch(reader.scan(chosen), **source, **windows):
                    yield replace(window, missing=reader.missing)
                return
        yield self._predict_file(video, limit, **options)

    def _predict_parts(
        self,
        video: str | os.PathLike,
        limit: TimeLimit,
        seconds: float,
        every: float,
        *,
        start: float,
        end: float,
        **options: Any,
    ) -> Iterator[Prediction]:
        """Each window as a part of the file, for a network that looks at frames out of order."""
        for number in range(math.ceil((end - start) / every - ROUNDING)):
            begin = start + number * every
            until = min(begin + seconds, end)
            part = self._predict_file(video, limit, start=begin, end=until, **options)
            yield replace(part, is_window=True)

    def watch(
        self,
        frames: Iterable[LazyFrame],
        *,
        seconds: float,
        every: float = 0.0,
        start: float | None = None,
        end: float | None = None,
        times: Float[np.ndarray, "f"] | None = None,
        top_k: int = 5,
        early: bool = True,
        name: str = "",
        meter: Meter | None = None,
    ) -> Iterator[Prediction]:
        """Recognise each window of a stream, as soon as its prediction is known.

        Args:
            frames: the time of each in seconds, and a function that reads it
                (`VideoReader.scan`).
            seconds: length of a window.
            every: seconds between the starts of windows, rounded to whole segments; 0: `seconds`,
                so that windows do not overlap.
            start: second at which the first window begins; by default that of the first frame.
            end: second at which the stream ends, if known.
            times: seconds of all frames, if they and `start` are known.
            top_k: number of classes to name.
            early: whether windows may end early (Eq. 7).
            name: of the stream.
            meter: the one in which the source of the frames counts its decoding.
        """
        _check_windows(seconds, every)
        self.require_online(name)
        meter = meter or Meter()
        windows = Windows(
            self.network,
            self.rule if early else NEVER,
            num_frames=self.num_frames,
            seconds=seconds,
            every=self._count_segments(every, seconds) if every else None,
            start=start,
            end=end,
            times=times,
        )

        def read_cropped(read: Callable[[], Pixels]) -> Pixels:
            with meter.decoding():
                return self.sampler.crop(read())

        def conclude(window: Window) -> Prediction:
            prediction = self.conclude(
                window.result, meter, name, top_k, window.times, window.num_frames
            )
            return replace(prediction, start=window.start, end=window.end, is_window=True)

        for at, read in frames:
            with meter.computing():
                done = windows.step(at, functools.partial(read_cropped, read))
            yield from map(conclude, done)
        with meter.computing():
            done = windows.conclude()
        yield from map(conclude, done)

    def require_online(self, name: str) -> None:
        """Raise UserError if the network cannot see the stream `name`."""
        if not self.network.architecture.online:
            raise UserError(
                f"{name or 'a stream'}: this network looks at the frames of a video out of order, "
                "which a stream cannot give; predict a file, or take an online one"
            )

    def round_step(self, every: float, seconds: float) -> float:
        """The seconds between windows that `watch` makes of `every`."""
        return self._count_segments(every, seconds) * seconds / self.num_frames

    def _count_segments(self, every: float, seconds: float) -> int:
        return max(round(every * self.num_frames / seconds), 1)

    def export(
        self, path: str | os.PathLike, *, platforms: Sequence[str] = (), parts: bool = False
    ) -> None:
        """Write the network, its gates and its early exit as one program.

        A file that ends in .onnx is an ONNX model (`portable.write_video_model`); with `parts`,
        the path is a folder for a model of each span (`portable.write_parts`). Any other file is a
        program that needs only JAX (`program.export_program`); `platforms` that it runs on, such as
        "cpu" and "cuda", are by default the current one.

        Raises:
            UserError: an unknown platform, a path that cannot be written, onnx is missing, or the
                system computes what `engines.jaxpr` has no rule for.
        """
        path = Path(expand(path))
        if unknown := set(platforms) - PLATFORMS:
            raise UserError(f"no platform {min(unknown)}; choose of {', '.join(sorted(PLATFORMS))}")
        network = restore_network(self.network)
        is_onnx = parts or path.suffix.lower() == ".onnx"
        if is_onnx and platforms:
            raise UserError("platforms are for programs that JAX runs; an ONNX model names none")
        try:
            if is_onnx:
                self._export_onnx(path, network, parts)
            else:
                export_program(path, network, self.size, self.rule, platforms=platforms)
        except OSError as error:
            raise UserError(f"cannot write to {path}: {error.strerror or error}") from error

    def _export_onnx(self, path: Path, network: Network, parts: bool) -> None:
        try:
            from sofnet_jax.inference import portable
        except ImportError as error:
            raise UserError(
                f"cannot write ONNX ({first_line(error)}): pip install '.[onnx]'"
            ) from error
        metadata = portable.create_metadata(network, self.classes, self.sampler, self.rule)
        write = portable.write_parts if parts else portable.write_video_model
        try:
            write(path, network, self.rule, self.size, metadata)
        except NotImplementedError as error:
            raise UserError(f"this system cannot be written as ONNX: {error}") from error

    def conclude(
        self,
        result: Result,
        meter: Meter,
        name: str,
        top_k: int,
        times: tuple[float, ...],
        num_frames: int,
    ) -> Prediction:
        """Turn the result of a video into a `Prediction`, with the arguments as its fields.

        Raises UserError if the network's scores are not numbers.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be a number from 1 up")
        if not np.isfinite(result.logits).all():
            raise UserError(
                f"{name or 'frames'}: the network's scores are not numbers; check its weights"
            )
        decode_ms, network_ms = meter.read()
        plain = self.network.architecture.plain(self.size)
        best = np.argsort(-result.scores, kind="stable")[:top_k]
        return Prediction(
            video=name,
            start=None,
            end=None,
            guesses=tuple(Guess(self.classes[i], float(result.scores[i])) for i in best),
            scores=result.scores,
            actions=self.network.architecture.actions,
            trace=result.trace,
            times=times,
            num_frames=num_frames,
            spent=self.network.architecture.prices(self.size).spend(result.trace.action),
            plain=Spending(plain.paper * num_frames, plain.full * num_frames),
            decode_ms=decode_ms,
            network_ms=network_ms,
        )


def _check_windows(seconds: float, every: float) -> None:
    if not (math.isfinite(seconds) and seconds > 0 and math.isfinite(every) and every >= 0):
        raise ValueError(f"windows of {seconds} s every {every} s")
