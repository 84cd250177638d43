"""Prediction of many videos together, in a child process that may crash."""

import functools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from sofnet_jax.archive.gpu import take_gpu
from sofnet_jax.archive.manifest import Entry
from sofnet_jax.archive.store import fetch
from sofnet_jax.host.compilation import keep_compiled_programs
from sofnet_jax.host.errors import LostError, UserError
from sofnet_jax.host.memory import keep_freed_memory
from sofnet_jax.host.workers import Child, ChildDied, Failure
from sofnet_jax.inference.load import load
from sofnet_jax.inference.many import predict_videos
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.prediction import Prediction
from sofnet_jax.run.checkpoint import Which
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
    engine: str = "jax"


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
            tqdm.write(f"note: {death}; {unfinished} videos remain", file=sys.stderr)
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
        model,
        videos,
        top_k=settings.top_k,
        early=settings.early,
        num_threads=settings.num_threads,
        fetch=fetch,
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
    return load(
        settings.checkpoint,
        settings.which,
        dtype=settings.dtype,
        size=settings.size,
        num_frames=settings.num_frames,
        variant=settings.variant,
        many=True,
        engine=settings.engine,
    )
