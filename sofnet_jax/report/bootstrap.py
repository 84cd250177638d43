"""Whether one method is better than another: a paired bootstrap over the videos.

It tells how far the difference depends on which videos were evaluated. The seeds are taken as they
are: how far it depends on them is told by their spread alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from scipy.special import softmax

from sofnet_jax.evaluation.metrics import compute_consensus, compute_fates
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.predictions import Predictions

Metric = Literal["top1", "map"]
TITLES: dict[Metric, str] = {"map": "mAP", "top1": "top-1"}

_INTERVAL = (2.5, 97.5)  # percentiles
_CHUNK = 128  # resamples at a time: their weights stay in the processor's cache


@dataclass(frozen=True)
class Scored:
    """What a method, trained with one seed, says of each video.

    Attributes:
        ids: of the videos, unique.
        labels: multi-hot.
        logits: of the video (Eq. 6).
    """

    ids: tuple[str, ...]
    labels: Float[np.ndarray, "v n"]
    logits: Float[np.ndarray, "v n"]


@dataclass(frozen=True)
class Difference:
    """A difference in accuracy, and its 95 % interval over the choice of videos; all in -1…1."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether one method is better throughout the interval."""
        return self.low > 0 or self.high < 0


def create_scored(
    predictions: Predictions,
    gate_names: tuple[str, ...],
    *,
    threshold: float | None = None,
    min_frames: int = 0,
) -> Scored:
    """The consensus on every video, with early termination (Eq. 7) if `threshold` is given."""
    p = predictions
    fates = compute_fates(p, len(gate_names), threshold, min_frames)
    return Scored(p.ids, p.labels, compute_consensus(p.frame_logits, fates.kept & fates.seen))


def compute_difference(
    a: Sequence[Scored],
    b: Sequence[Scored],
    metric: Metric,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """The mean accuracy of the seeds of `a` minus that of the seeds of `b`.

    Both are measured on the videos that all of them have, and all of them on the same resamples of
    these: what makes a video easy or hard for both methods cancels. Percentile interval.

    Raises:
        UserError: there is no such video, a method has no seed, or labels differ.
    """
    if not a or not b:
        raise UserError("a difference needs at least one run of each method; train both")
    matched = _match([*a, *b])
    num_videos = len(matched[0].ids)
    rng = np.random.default_rng(seed)
    weights = np.ones((1 + resamples, num_videos))  # the first for the videos as they are
    weights[1:] = rng.multinomial(num_videos, np.full(num_videos, 1 / num_videos), resamples)
    accuracies = [compute_weighted_accuracy(scored, weights, metric) for scored in matched]
    differences = np.mean(accuracies[: len(a)], 0) - np.mean(accuracies[len(a) :], 0)
    low, high = np.nanpercentile(differences[1:], _INTERVAL)
    return Difference(float(differences[0]), float(low), float(high))


def compute_weighted_accuracy(
    scored: Scored, weights: Float[np.ndarray, "r v"], metric: Metric
) -> Float[np.ndarray, "r"]:
    """Accuracy in 0…1, in which each video counts as often as its weight says, by row of weights.

    `map` is the mean over the classes with positives of positive weight; NaN if there are none.
    """
    labels = scored.labels > 0
    if metric == "top1":
        correct = labels[np.arange(len(labels)), scored.logits.argmax(-1)]
        return weights @ correct.astype(float) / weights.sum(1)
    scores, present = softmax(scored.logits, axis=-1), labels.any(0)
    chunks = [weights[i : i + _CHUNK] for i in range(0, len(weights), _CHUNK)]
    maps = [_compute_map(scores[:, present], labels[:, present], chunk) for chunk in chunks]
    return np.concatenate(maps)


def _compute_map(
    scores: Float[np.ndarray, "v n"],
    labels: Bool[np.ndarray, "v n"],
    weights: Float[np.ndarray, "r v"],
) -> Float[np.ndarray, "r"]:
    """Mean over the classes whose positives have weight; NaN where there is no such class."""
    weights = np.ascontiguousarray(weights.T)
    total, count = np.zeros((2, weights.shape[1]))
    for class_scores, positive in zip(scores.T, labels.T, strict=True):
        total += _compute_average_precision(class_scores, positive, weights)
        count += weights[positive].any(0)
    return _divide(total, count, np.nan)


def _compute_average_precision(
    scores: Float[np.ndarray, "v"],
    positive: Bool[np.ndarray, "v"],
    weights: Float[np.ndarray, "v r"],
) -> Float[np.ndarray, "r"]:
    """Σ (R_i - R_{i-1}) P_i over the thresholds i, which are the distinct scores of positives.

    At other scores recall R stays, so they add nothing. 0 where no positive has weight.
    """
    thresholds = np.unique(-scores[positive])  # the best score first
    first = np.searchsorted(thresholds, -scores)  # that a video reaches; the last row if none
    shape = len(thresholds) + 1, len(scores)
    reached = csr_array((np.ones(len(scores)), (first, np.arange(len(scores)))), shape=shape)
    found = (reached @ weights).cumsum(0)
    gained = reached[:, positive] @ weights[positive]
    hits = gained.cumsum(0)
    precision = _divide(hits, found, 0.0)
    return _divide((gained * precision).sum(0), hits[-1], 0.0)


def _divide(
    a: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"], otherwise: float
) -> Float[np.ndarray, "*shape"]:
    """a / b, and `otherwise` where b is 0."""
    return np.divide(a, b, out=np.full(b.shape, otherwise), where=b > 0)


def _match(runs: Sequence[Scored]) -> list[Scored]:
    """The runs on the videos that all of them have, ordered by id."""
    common = sorted(set.intersection(*(set(run.ids) for run in runs)))
    if not common:
        raise UserError(
            "no video was evaluated in all of the runs to compare; evaluate them on the same data"
        )
    matched = [_choose(run, common) for run in runs]
    labels = matched[0].labels > 0
    for run in matched[1:]:
        if run.labels.shape != labels.shape:
            raise UserError(
                f"the runs to compare are of {labels.shape[1]} and {run.labels.shape[1]} classes; "
                f"compare runs on the same data"
            )
        differ = ((run.labels > 0) != labels).any(1)
        if differ.any():
            raise UserError(
                f"'{common[differ.argmax()]}' has other labels in one of the runs to compare "
                f"than in another; compare runs on the same data"
            )
    return matched


def _choose(scored: Scored, ids: Sequence[str]) -> Scored:
    index = {id: i for i, id in enumerate(scored.ids)}
    order = [index[id] for id in ids]
    return Scored(tuple(ids), scored.labels[order], scored.logits[order])
