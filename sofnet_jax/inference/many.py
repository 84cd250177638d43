"""Many videos at once: `predict_videos`."""

import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace

from sofnet_jax.data.video.container import VideoError
from sofnet_jax.data.video.reader import Pixels, VideoReader
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.time_limit import TimeLimit
from sofnet_jax.host.workers import Failure
from sofnet_jax.inference.lockstep import Lockstep
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.pool import Pool
from sofnet_jax.inference.prediction import Meter, Prediction
from sofnet_jax.inference.prefetch import Ahead, draw_ahead
from sofnet_jax.systems.base import Network, Result, find_device
from sofnet_jax.systems.early_exit import NEVER, Rule

Part = tuple[str, float | None, float | None]  # a file, and seconds from which and to which
# The path of a file that may be elsewhere.
Fetch = Callable[[str], contextlib.AbstractContextManager[str]]


def predict_videos(
    model: TrainedModel,
    videos: Sequence[Part],
    *,
    top_k: int = 5,
    early: bool = True,
    num_threads: int = 1,
    time_limit: float = math.inf,
    fetch: Fetch = contextlib.nullcontext,
) -> Generator[tuple[int, Prediction | Failure], None, None]:
    """Yield each video's number with its prediction or failure, in order of completion.

    Decides as `TrainedModel.predict` does. On a CPU it decodes one frame ahead of the computation,
    elsewhere all frames of a video. A few videos are under way at a time; each fails once its
    decoding took `time_limit` seconds.
    """
    recognizer = create_recognizer(model.network, model.rule if early else NEVER)
    under_way: set[_View] = set()
    admitted: dict[int, _View] = {}  # by their numbers in `recognizer`
    failed: list[_View] = []
    with ThreadPoolExecutor(num_threads) as pool:

        def begin() -> Iterator[_View]:
            for number, video in enumerate(videos):
                view = _View(model, number, video, pool, TimeLimit(time_limit), fetch)
                under_way.add(view)
                yield view

        def admit() -> Iterator[Iterator[Pixels]]:
            numbers = itertools.count()
            for view in draw_ahead(begin(), 2 * num_threads):
                first = next(view.frames, None)
                if first is None:
                    failed.append(view)
                else:
                    admitted[next(numbers)] = view
                    yield itertools.chain([first], view.frames)

        def give_up() -> Iterator[tuple[int, Failure]]:
            while failed:
                view = failed.pop()
                under_way.remove(view)
                yield view.number, view.failure or Failure("unreadable", "it has no frames")

        try:
            for number, result in recognizer.recognize(admit()):
                view = admitted.pop(number)
                view.frames.close()
                under_way.remove(view)
                yield view.number, view.conclude(result, top_k)
                yield from give_up()
            yield from give_up()
        finally:
            for view in under_way:  # if nobody waits for them any more
                view.limit.end()


def create_recognizer(network: Network, rule: Rule = NEVER) -> Lockstep | Pool:
    """Create a `Lockstep` on a CPU, a `Pool` on an accelerator."""
    return (Lockstep if find_device(network).platform == "cpu" else Pool)(network, rule)


class _View:
    """A video being predicted: the frames that the network sees, read ahead, and its timing."""

    def __init__(
        self,
        model: TrainedModel,
        number: int,
        video: Part,
        pool: Executor,
        limit: TimeLimit,
        fetch: Fetch,
    ):
        self._model, self.number, self._video = model, number, video
        self._meter = Meter()
        self._times: list[float] = []
        self._end = self._missing = 0.0
        self.limit, self._fetch = limit, fetch
        self.failure: Failure | None = None
        self.frames = Ahead(limit.over(self._read()), pool)

    def _read(self) -> Generator[Pixels, None, None]:
        model, meter, limit = self._model, self._meter, self.limit
        name, start, end = self._video
        try:
            with self._fetch(name) as path:
                with meter.decoding():
                    reader = VideoReader(path, short_side=model.sampler.short_side, limit=limit)
                with reader:
                    frames = model.look(reader, start=start, end=end)
                    while True:
                        with meter.decoding():
                            pixels, at = next(frames, (None, 0.0))
                        self._end = min(reader.end, reader.end if end is None else end)
                        self._missing = reader.missing
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
        model, (name, start, _) = self._model, self._video
        times = tuple(self._times[: len(result.trace)])
        try:
            prediction = model.conclude(result, self._meter, name, top_k, times, model.num_frames)
        except UserError as error:
            return Failure("unreadable", str(error))
        return replace(
            prediction,
            start=start or 0.0,
            end=self._end,
            missing=self._missing,
            network_ms=None,
        )
