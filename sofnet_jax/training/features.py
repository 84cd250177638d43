"""Features of training videos, computed once for a phase in which they no longer change."""

import itertools
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from sofnet_jax.data.batch import Batch
from sofnet_jax.parallel import devices
from sofnet_jax.systems.base import Moments


@dataclass(frozen=True)
class Features:
    """Batches of this process, whose frames are their features, and the moments of all features.

    Attributes:
        batches: as the input pipeline yields them, with features (b, t, d) by stage as `frames`.
        moments: mean and standard deviation of every feature, over all processes.
    """

    batches: list[Any]
    moments: dict[str, Moments]

    def repeat(self, seed: int, first: int, noise: float = 0.0) -> Generator[Any, None, None]:
        """All batches in an order of its own in every pass, without end, from number `first` on.

        Adds normal noise of so many of each feature's standard deviations.
        """
        count = len(self.batches)
        passes, skipped = divmod(first, count)
        while True:
            order = np.random.default_rng((seed, passes)).permutation(count)
            for i in order[skipped:]:
                # What could not be read is reported once, by the pass that computed the features.
                yield self._disturb(self.batches[i], noise, (seed, passes, int(i)))
            passes, skipped = passes + 1, 0

    def _disturb(self, batch: Any, noise: float, key: tuple[int, ...]) -> Any:
        if not noise:
            return batch
        rng = np.random.default_rng((*key, jax.process_index()))
        disturbed = {}
        for stage, x in batch["frames"].items():
            deviation = noise * self.moments[stage][1].astype(np.float32)
            drawn = rng.standard_normal(x.shape, np.float32)
            disturbed[stage] = (x + deviation * drawn).astype(x.dtype)
        return batch | {"frames": disturbed}


def compute_features(
    batches: Iterable[Batch], count: int, extract: Callable, variables: Any
) -> Features:
    """Extract the features of `count` batches.

    Args:
        batches: of the input pipeline.
        count: number of batches.
        extract: `extract(variables, frames)`, features by stage of frames (b, t, h, w, 3).
        variables: of the network, replicated.
    """
    step = devices.pmap_predict_step(lambda variables, batch: extract(variables, batch["frames"]))
    found = []
    chosen, hidden = itertools.islice(batches, count), devices.hides_bar()
    for batch in tqdm(chosen, "features", count, unit="batch", leave=False, disable=hidden):
        features = step(variables, devices.put_batch({"frames": batch["frames"]}))
        found.append(batch | {"frames": jax.tree.map(devices.fetch, features)})
    return Features(found, _measure(found))


def _measure(batches: list[Any]) -> dict[str, Moments]:
    """Moments over all videos and frames of all processes, in float64."""
    moments = {}
    for stage in batches[0]["frames"]:
        sums, count = np.zeros(()), 0
        for batch in batches:
            x = batch["frames"][stage].astype(np.float64)
            sums = sums + np.stack([x.sum((0, 1)), np.square(x).sum((0, 1))])
            count += x.shape[0] * x.shape[1]
        mean, square = devices.gather(sums[None]).sum(0) / (count * jax.process_count())
        moments[stage] = mean, np.sqrt(np.maximum(square - mean**2, 0))
    return moments
