"""Batches of video frames for training and evaluation. The only file that knows grain.

Training example k is a pure function of the seed and k, whatever the number of workers and
processes, and after resuming.
"""

import contextlib
import errno
import functools
import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, cast

import grain
import numpy as np
from absl import flags
from grain.multiprocessing import SharedMemoryArray
from jaxtyping import Int

from sofnet_jax.data.batch import Batch, mark_relevant
from sofnet_jax.data.source import Example, Source
from sofnet_jax.data.video.container import VideoError
from sofnet_jax.data.video.reader import Choose
from sofnet_jax.data.views import Look, Sampler, random_view
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.workers import end_with_parent

SCALES = (1.0, 0.875, 0.75, 0.66)

_MAX_SUBSTITUTES = 20  # to try for an unreadable video before the data counts as unusable
_ENDLESS = 2**60  # examples
_MAX_THREADS = 4  # that read batches without workers
# Independent streams of random numbers.
_ORDER, _SUBSTITUTE, _EXAMPLE = range(3)


def create_train_iterator(
    source: Source,
    *,
    batch_size: int,
    num_frames: int,
    size: int,
    seed: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    scales: Sequence[float] = SCALES,
    flip: bool = True,
    via: int = 0,
) -> Generator[Batch, None, None]:
    """Yield this process's share of batches of `batch_size` random videos, without end.

    `start` is the number of examples already consumed by all processes. Every epoch is shuffled
    again and drops the videos that do not fill a batch. An unreadable video is replaced by another.
    Close the iterator to stop its workers. For `via` see `views.View`. Raises UserError.
    """
    if batch_size > len(source):
        raise UserError(
            f"batch_size {batch_size} is larger than the data ({len(source)} videos); reduce it"
        )
    if batch_size % process_count:
        raise UserError(f"batch_size {batch_size} must be a multiple of {process_count} processes")
    if seed < 0:
        raise UserError(f"seed {seed} is negative; choose one from 0 up")
    sampler = Sampler(num_frames, size, via=via)
    examples = _TrainExamples(source, batch_size, sampler, seed, tuple(scales), flip)
    share = slice(start + process_index, None, process_count)
    return _iterate(examples, share, batch_size // process_count, num_workers)


def create_eval_iterator(
    source: Source,
    *,
    batch_size: int,
    num_frames: int,
    size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    via: int = 0,
) -> Generator[Batch, None, None]:
    """Yield this process's share of all videos once, in batches of `batch_size`.

    Every process yields the same number of batches, padded with invalid examples (index -1). An
    unreadable video is invalid, too; its `errors` say why.
    """
    share = slice(process_index, None, process_count)
    sampler = Sampler(num_frames, size, via=via)
    examples = _EvalExamples(source, batch_size * process_count, sampler)
    return _iterate(examples, share, batch_size, num_workers)


@dataclass(frozen=True)
class _TrainExamples:
    """Training examples in random order, without end."""

    source: Source
    batch_size: int
    sampler: Sampler
    seed: int
    scales: tuple[float, ...]
    flip: bool

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, k: int) -> dict[str, Any]:
        errors: dict[str, str] = {}
        for attempt, i in enumerate(self._candidates(k)):
            rng = np.random.default_rng((_EXAMPLE, self.seed, k, attempt))
            video = self.source[i]
            try:
                shown = self._read(video, rng)
            except VideoError as error:
                errors[video.id] = str(error)
            else:
                example = _describe(self.source, video, k % self.batch_size)
                return example | shown | {"errors": errors}
        first = next(iter(errors.values()))
        raise UserError(f"no readable video among the {len(errors)} tried; the first: {first}")

    def _candidates(self, k: int) -> Iterator[int]:
        """The video of example k, then substitutes."""
        num_videos = len(self.source)
        epoch, position = divmod(k, num_videos // self.batch_size * self.batch_size)
        first = int(_shuffle(num_videos, self.seed, epoch)[position])
        yield first
        rng = np.random.default_rng((_SUBSTITUTE, self.seed, k))
        others = rng.choice(num_videos, min(num_videos, _MAX_SUBSTITUTES), replace=False)
        yield from (i for i in others.tolist() if i != first)

    def _read(self, video: Example, rng: np.random.Generator) -> dict[str, Any]:
        sampler = self.sampler
        look = functools.partial(
            random_view,
            size=sampler.size,
            rng=rng,
            scales=self.scales,
            flip=self.flip,
            via=sampler.via,
        )
        return _read(video, lambda count: sampler.choose(count, rng), look)


@functools.lru_cache(maxsize=4)
def _shuffle(num_videos: int, seed: int, epoch: int) -> Int[np.ndarray, "v"]:
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(num_videos)


@dataclass(frozen=True)
class _EvalExamples:
    """Every video once, then padding to a multiple of `multiple`."""

    source: Source
    multiple: int
    sampler: Sampler

    def __len__(self) -> int:
        return -(-len(self.source) // self.multiple) * self.multiple

    def __getitem__(self, i: int) -> dict[str, Any]:
        count, size = self.sampler.num_frames, self.sampler.size
        blank = {
            "frames": np.zeros((count, size, size, 3), np.uint8),
            "relevant": np.full(count, np.nan, np.float32),
            "valid": np.False_,
        }
        if i >= len(self.source):
            return _describe(self.source, None, -1) | blank | {"errors": {}}
        video = self.source[i]
        example = _describe(self.source, video, i)
        try:
            return example | _read(video, self.sampler.choose, self.sampler.centre) | {"errors": {}}
        except VideoError as error:
            return example | blank | {"errors": {video.id: str(error)}}


def _describe(source: Source, video: Example | None, index: int) -> dict[str, Any]:
    """The parts of an example that are known without reading the video; None is padding."""
    labels = np.zeros(len(source.classes), np.float32)
    if video is not None:
        labels[list(video.labels)] = 1
    return {"id": video.id if video else "", "labels": labels, "index": np.int32(index)}


def _read(video: Example, choose: Choose, look: Look) -> dict[str, Any]:
    frames, times = video.read(choose, look)
    relevant = mark_relevant(video.relevant, times)
    return {"frames": frames, "relevant": relevant, "valid": np.True_}


def _iterate(
    examples: _TrainExamples | _EvalExamples, share: slice, batch_size: int, num_workers: int
) -> Generator[Batch, None, None]:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain's workers read flags even if none are used
    dataset = grain.MapDataset.source(examples).slice(share).batch(batch_size, batch_fn=_collate)
    threads = 0 if num_workers else min(os.cpu_count() or 1, _MAX_THREADS)
    batches = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    )
    options = grain.MultiprocessingOptions(num_workers=num_workers)
    iterator = iter(batches.mp_prefetch(options, worker_init_fn=_init_worker))
    try:
        with _signals_blocked():  # the workers, which start with the first batch, inherit this
            batch = next(iterator, None)
        while batch is not None:
            yield cast(Batch, {key: _own(value) for key, value in batch.items()})
            batch = next(iterator, None)
    except (OSError, RuntimeError) as error:
        advice = f"use fewer workers ({num_workers} now) or smaller batches"
        if os.strerror(errno.ENOSPC) in str(error):  # the workers write nowhere else
            raise UserError(f"no space is left in /dev/shm; enlarge it, or {advice}") from error
        if "Worker process was terminated" in str(error):
            reason = "most likely because memory or /dev/shm was full"
            raise UserError(f"a data worker died, {reason}; {advice}") from error
        raise
    finally:
        iterator.close()
        gc.collect()  # grain's cycles hold the last batches, and their shared memory


def _own(value: Any) -> Any:
    """Copy an array out of shared memory, which is scarce and outlives a crash."""
    return np.array(value) if isinstance(value, SharedMemoryArray) else value


def _collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    columns = {key: [example[key] for example in examples] for key in examples[0]}
    return {key: c if key in ("id", "errors") else np.stack(c) for key, c in columns.items()}


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block SIGINT and SIGTERM, in this thread and in the threads and processes it starts.

    Ctrl-C and a cluster's notice reach the workers as well, which must continue until the main
    process, which handles the signal, closes the iterator.
    """
    _start_tracker()  # it would unblock the signals if it started later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start the process that removes leftover shared memory, such as unused batches.

    Its warning about each piece is disabled, since none is a mistake.
    """
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


def _init_worker(index: int, count: int) -> None:
    """Run first in every worker."""
    del index, count
    end_with_parent()
