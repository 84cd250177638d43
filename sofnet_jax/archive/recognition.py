"""Recognises many videos in lockstep, and goes on after those that cannot be."""

import functools
import sys
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from sofnet_jax.archive.gpu import take_device
from sofnet_jax.archive.manifest import Entry
from sofnet_jax.archive.prefetch import Ahead, start_ahead
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
from sofnet_jax.systems.early_exit import NEVER, Result
from sofnet_jax.weights.load import load_weights

_READY = 0  # what the child says first, when everything is loaded and compiled


Outcome = Prediction | Failure


@dataclass(frozen=True)
class Settings:
    """What recognition needs to know, besides the videos.

    `checkpoint` to `variant` are of `trained.load`, `top_k` and `early` of `TrainedModel.predict`.

    Attributes:
        digest: of the weights, which a training may be replacing.
        num_threads: that read videos.
        time_limit: seconds in which some video must be done.
    """

    checkpoint: str
    digest: str
    which: Which
    dtype: str | None
    size: int | None
    num_frames: int | None
    variant: str
    top_k: int
    early: bool
    num_threads: int
    time_limit: float


class Recognition:
    """Recognises videos in a process of its own, which may crash or hang without harm.

    The videos that were in it when it did are tried again, then each by itself; one that ends the
    process twice by itself is a `Failure`.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._child = Child(_work)

    def recognize(self, videos: Sequence[Entry]) -> list[Outcome]:
        """The outcome of each video, whose paths are as this process can open them.

        Raises UserError if the network cannot be loaded, LostError if that ends the process.
        """
        outcomes: dict[int, Outcome] = {}
        for _ in range(2):
            if len(outcomes) < len(videos):
                self._try(videos, outcomes)
        for i, video in enumerate(videos):
            if i not in outcomes:
                outcomes[i] = self._recognize_alone(video)
        return [outcomes[i] for i in range(len(videos))]

    def _recognize_alone(self, video: Entry) -> Outcome:
        outcomes: dict[int, Outcome] = {}
        for _ in range(2):
            failure = self._try([video], outcomes)
            if failure is None:
                return outcomes[0]
        assert failure is not None
        return failure

    def _try(self, videos: Sequence[Entry], outcomes: dict[int, Outcome]) -> Failure | None:
        """Adds the outcomes of those videos that have none; why the process died, if it did."""
        left = [i for i in range(len(videos)) if i not in outcomes]
        job = self._settings, [videos[i] for i in left]
        ready = False
        try:
            for message in self._child.run(job, self._settings.time_limit):
                if message == _READY:
                    ready = True
                else:
                    number, outcome = message
                    outcomes[left[number]] = outcome
        except ChildDied as error:
            if not ready:  # which is no fault of the videos
                raise LostError(f"the network could not be loaded: {error}") from error
            again = len(videos) - len(outcomes)
            print(f"note: {error}; of its videos {again} are not done", file=sys.stderr, flush=True)
            return error.failure
        return None

    def close(self) -> None:
        """Ends the process."""
        self._child.stop()


def _work(job: tuple[Settings, list[Entry]]) -> Iterator[int | tuple[int, Outcome]]:
    """What the child does."""
    settings, videos = job
    model = _load(settings)
    yield _READY
    yield from recognize(
        model,
        videos,
        top_k=settings.top_k,
        early=settings.early,
        num_threads=settings.num_threads,
    )


@functools.lru_cache(1)
def _load(settings: Settings) -> TrainedModel:
    take_device()
    keep_freed_memory()
    keep_compiled_programs(least_seconds=0.0)
    if load_weights(settings.checkpoint, settings.which).digest != settings.digest:
        raise UserError(f"{settings.checkpoint}: the weights changed since this began; start anew")
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


@dataclass
class _View:
    """A video while it is looked at."""

    number: int
    meter: Meter = field(default_factory=Meter)
    times: list[float] = field(default_factory=list)
    end: float = 0.0
    failure: Failure | None = None
    frames: Ahead[Pixels] | None = None


def recognize(
    model: TrainedModel,
    videos: Sequence[Entry],
    *,
    top_k: int = 5,
    early: bool = True,
    num_threads: int = 1,
) -> Iterator[tuple[int, Outcome]]:
    """Yields the number of each video and its outcome, in the order in which they are done.

    Decisions, and what is decoded and computed, are those of `TrainedModel.predict`, but for a
    frame more that is decoded while the one before is computed.
    """
    lockstep = Lockstep(model.network, model.rule if early else NEVER)
    with ThreadPoolExecutor(num_threads) as pool:

        def begin(numbered: tuple[int, Entry]) -> _View:
            view = _View(numbered[0])
            view.frames = Ahead(_read(model, numbered[1], view), pool)
            return view

        admitted: list[_View] = []  # by their numbers in lockstep
        failed: list[_View] = []

        def admit() -> Iterator[Iterator[Pixels]]:
            for view in start_ahead(enumerate(videos), begin, 2 * num_threads):
                assert view.frames is not None
                first = next(view.frames, None)
                if first is None:
                    failed.append(view)
                    continue
                admitted.append(view)
                yield _prepend(first, view.frames)

        for number, result in lockstep.recognize(admit()):
            view = admitted[number]
            assert view.frames is not None
            view.frames.close()
            yield view.number, _conclude(model, videos[view.number], view, result, top_k)
            while failed:
                yield _give_up(failed.pop())
        while failed:
            yield _give_up(failed.pop())


def _prepend(first: Pixels, others: Iterator[Pixels]) -> Iterator[Pixels]:
    yield first
    yield from others


def _give_up(view: _View) -> tuple[int, Failure]:
    failure = view.failure or Failure("unreadable", "there is no frame to look at")
    return view.number, failure


def _read(model: TrainedModel, video: Entry, view: _View) -> Generator[Pixels, None, None]:
    """The frames of a video as the network sees them; what goes wrong is noted in its view."""
    try:
        with fetch(video.path) as path:
            with view.meter.decoding():
                reader = VideoReader(path, short_side=model.short_side)
            with reader:
                view.end = min(reader.end, reader.end if video.end is None else video.end)
                frames = model.look(reader, start=video.start, end=video.end)
                while True:
                    with view.meter.decoding():
                        pixels, at = next(frames, (None, 0.0))
                    if pixels is None:
                        return
                    view.times.append(at)
                    yield pixels
    except (VideoError, UserError, OSError, MemoryError) as error:
        view.failure = Failure("unreadable", str(error) or "it takes more memory than there is")


def _conclude(
    model: TrainedModel, video: Entry, view: _View, result: Result, top_k: int
) -> Outcome:
    if view.failure is not None:
        return view.failure
    times = tuple(view.times[: len(result.stop)])
    try:
        prediction = model.conclude(result, view.meter, video.path, top_k, times, model.num_frames)
    except UserError as error:
        return Failure("unreadable", str(error))
    return replace(prediction, start=video.start or 0.0, end=view.end, network_ms=None)
