"""Prediction of many videos in lockstep, in a child process that may crash."""

import functools
import itertools
import sys
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

from sofnet_jax.archive.gpu import take_gpu
from sofnet_jax.archive.manifest import Entry
from sofnet_jax.archive.prefetch import Ahead, draw_ahead
from sofnet_jax.archive.store import fetch
from sofnet_jax.data.video.container import VideoError
from sofnet_jax.data.video.reader import Pixels, VideoReader
from sofnet_jax.host.compilation import keep_compiled_programs
from sofnet_jax.host.errors import LostError, UserError
from sofnet_jax.host.memory import keep_freed_memory
from sofnet_jax.host.workers import Child, ChildDied, Failure
from sofnet_jax.inference.load import load
from sofnet_jax.inference.lockstep import Lockstep
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.prediction import Meter, Prediction
from sofnet_jax.run.checkpoint import Which
from sofnet_jax.systems.base import Result
from sofnet_jax.systems.early_exit import NEVER
from sofnet_jax.weights.load import load_weights

_READY = 0  # the child's first message: the network is loaded and compiled


@dataclass(frozen=True)
class Settings:
    """How to predict videos.

    `checkpoint` to `variant` are arguments of `load`; `top_k`, `early` of `TrainedModel.predict`.
    """

    checkpoint: str
    digest: str  # of the weights, which a training may replace meanwhile
    which: Which
    dtype: str | None
    size: int | None
    num_frames: int | None
    variant: str
    top_k: int
    early: bool
    num_threads: int  # that read videos
    time_limit: float  # seconds within which some video must be finished


class Worker:
    """Predict videos in a child process, which may crash or hang without harm.

    If it does, the unfinished videos are retried together, then each alone. A video that ends the
    process twice while alone is a `Failure`.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._child = Child(_work)

    def predict(self, videos: Sequence[Entry]) -> list[Prediction | Failure]:
        """Predict videos, whose paths this process can open.

        Raises:
            UserError: the network cannot be loaded.
            LostError: the child died while loading the network.
        """
        found: dict[int, Prediction | Failure] = {}
        for _ in range(2):
            self._try(videos, range(len(videos)), found)
        for number in range(len(videos)):
            for _ in range(2):
                failure = self._try(videos, [number], found)
            if failure:
                found.setdefault(number, failure)
        return [found[number] for number in range(len(videos))]

    def _try(
        self,
        videos: Sequence[Entry],
        numbers: Sequence[int],
        found: dict[int, Prediction | Failure],
    ) -> Failure | None:
        """Add to `found` what it lacks of some videos; return why the child died, if it did."""
        left = [number for number in numbers if number not in found]
        if not left:
            return None
        job = self._settings, [videos[number] for number in left]
        ready = False
        try:
            for message in self._child.run(job, self._settings.time_limit):
                if message == _READY:
                    ready = True
                else:
                    number, outcome = message
                    found[left[number]] = outcome
        except ChildDied as death:
            if not ready:  # not the fault of a video
                raise LostError(f"the network could not be loaded: {death}") from death
            unfinished = len(videos) - len(found)
            print(f"note: {death}; {unfinished} videos remain", file=sys.stderr, flush=True)
            return death.failure
        return None

    def close(self) -> None:
        """End the child process."""
        self._child.stop()


def _work(job: tuple[Settings, list[Entry]]) -> Iterator[int | tuple[int, Prediction | Failure]]:
    """The function that the child runs."""
    settings, videos = job
    model = _load(settings)
    yield _READY
    yield from predict_videos(
        model, videos, top_k=settings.top_k, early=settings.early, num_threads=settings.num_threads
    )


@functools.lru_cache(1)
def _load(settings: Settings) -> TrainedModel:
    take_gpu()
    keep_freed_memory()
    keep_compiled_programs(least_seconds=0.0)
    if load_weights(settings.checkpoint, settings.which).digest != settings.digest:
        raise UserError(
            f"{settings.checkpoint}: the weights changed since the command began; start it again"
        )
    model = load(
        settings.checkpoint,
        settings.which,
        dtype=settings.dtype,
        size=settings.size,
        num_frames=settings.num_frames,
        variant=settings.variant,
    )
    Lockstep(model.network).warm_up(model.size, model.size)
    return model


def predict_videos(
    model: TrainedModel,
    videos: Sequence[Entry],
    *,
    top_k: int = 5,
    early: bool = True,
    num_threads: int = 1,
) -> Iterator[tuple[int, Prediction | Failure]]:
    """Yield each video's number with its prediction or failure, in order of completion.

    Decodes, computes and decides what `TrainedModel.predict` does, except that it decodes one frame
    ahead of the computation.
    """
    lockstep = Lockstep(model.network, model.rule if early else NEVER)
    admitted: list[_View] = []  # indexed by their numbers in `lockstep`
    failed: list[_View] = []
    with ThreadPoolExecutor(num_threads) as pool:

        def admit() -> Iterator[Iterator[Pixels]]:
            views = (_View(model, number, video, pool) for number, video in enumerate(videos))
            for view in draw_ahead(views, 2 * num_threads):
                first = next(view.frames, None)
                if first is None:
                    failed.append(view)
                else:
                    admitted.append(view)
                    yield itertools.chain([first], view.frames)

        def give_up() -> Iterator[tuple[int, Failure]]:
            while failed:
                view = failed.pop()
                yield view.number, view.failure or Failure("unreadable", "it has no frames")

        for number, result in lockstep.recognize(admit()):
            view = admitted[number]
            view.frames.close()
            yield view.number, view.conclude(result, top_k)
            yield from give_up()
        yield from give_up()


class _View:
    """A video being predicted: the frames that the network sees, read ahead, and its timing."""

    def __init__(self, model: TrainedModel, number: int, video: Entry, pool: Executor):
        self._model, self.number, self._video = model, number, video
        self._meter = Meter()
        self._times: list[float] = []
        self._end = 0.0
        self.failure: Failure | None = None
        self.frames = Ahead(self._read(), pool)

    def _read(self) -> Generator[Pixels, None, None]:
        video, model, meter = self._video, self._model, self._meter
        try:
            with fetch(video.path) as path:
                with meter.decoding():
                    reader = VideoReader(path, short_side=model.sampler.short_side)
                with reader:
                    self._end = min(reader.end, reader.end if video.end is None else video.end)
                    frames = model.look(reader, start=video.start, end=video.end)
                    while True:
                        with meter.decoding():
                            pixels, at = next(frames, (None, 0.0))
                        if pixels is None:
                            return
                        self._times.append(at)
                        yield pixels
        except (VideoError, UserError, OSError, MemoryError) as error:
            self.failure = Failure("unreadable", str(error) or "not enough memory")

    def conclude(self, result: Result, top_k: int) -> Prediction | Failure:
        """The prediction, unless reading the frames failed."""
        if self.failure is not None:
            return self.failure
        model, video = self._model, self._video
        times = tuple(self._times[: len(result.trace)])
        try:
            prediction = model.conclude(
                result, self._meter, video.path, top_k, times, model.num_frames
            )
        except UserError as error:
            return Failure("unreadable", str(error))
        return replace(prediction, start=video.start or 0.0, end=self._end, network_ms=None)
