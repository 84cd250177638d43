"""A paired bootstrap over the videos, to compare two methods.

The interval covers the choice of videos only. The seeds are not resampled; their standard deviation
shows how much a result depends on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array
from scipy.special import softmax

from sofnet_jax.host.errors import UserError

Metric = Literal["top1", "map"]
TITLES: dict[Metric, str] = {"map": "mAP", "top1": "top-1"}

_INTERVAL = (2.5, 97.5)  # percentiles
_CHUNK = 128  # resamples at a time, so that their weights stay in the processor's cache


@dataclass(frozen=True)
class Scored:
    """One run's logits of each video (Eq. 6), with unique ids and multi-hot labels."""

    ids: tuple[str, ...]
    labels: Float[np.ndarray, "v n"]
    logits: Float[np.ndarray, "v n"]


class Difference(NamedTuple):
    """A difference in accuracy and its 95 % interval over the choice of videos, in -1…1."""

    mean: float
    low: float
    high: float


def compute_difference(
    a: Sequence[Scored],
    b: Sequence[Scored],
    metric: Metric,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """The mean accuracy of the runs `a` minus that of the runs `b`, with a percentile interval.

    All runs are evaluated on the videos that they have in common and on the same resamples, so
    that what makes a video easy or hard for both methods cancels.

    Raises:
        UserError: the runs have no video in common, or labels differ.
    """
    matched = _match([*a, *b])
    weights = draw_weights(matched[0].ids, resamples=resamples, seed=seed)
    accuracies = [compute_weighted_accuracy(scored, weights, metric) for scored in matched]
    return summarise(np.mean(accuracies[: len(a)], 0) - np.mean(accuracies[len(a) :], 0))


def draw_weights(
    ids: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> Float[np.ndarray, "r v"]:
    """How often each sample has each video: the original one, once each, then the resamples.

    An id that occurs several times is one video, which is drawn with all of its occurrences.
    """
    names, index = np.unique(np.array(ids), return_inverse=True)
    rng, count = np.random.default_rng(seed), len(names)
    weights = np.ones((1 + resamples, count))
    weights[1:] = rng.multinomial(count, np.full(count, 1 / count), resamples)
    return weights.take(index, axis=1)


def summarise(differences: Float[np.ndarray, "r"]) -> Difference:
    """The difference in the original sample, and the interval of those in the resamples."""
    low, high = np.nanpercentile(differences[1:], _INTERVAL)
    return Difference(float(differences[0]), float(low), float(high))


def compute_weighted_accuracy(
    scored: Scored, weights: Float[np.ndarray, "r v"], metric: Metric
) -> Float[np.ndarray, "r"]:
    """Accuracy in 0…1 with weighted videos, for each row of weights.

    `map` averages over the classes that have positives of positive weight; NaN if none has.
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
    """Mean over the classes whose positives have weight; NaN if there is none."""
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
    """Σ (R_i - R_{i-1}) P_i over the distinct scores of positives as thresholds, best first.

    Other scores leave the recall R unchanged, so they add nothing. 0 where no positive has weight.
    """
    thresholds = np.unique(-scores[positive])  # ascending, so that the best score is first
    first = np.searchsorted(thresholds, -scores)  # reached by a video; the last row if none
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
    """a / b, or `otherwise` where b is 0."""
    return np.divide(a, b, out=np.full(b.shape, otherwise), where=b > 0)


def _match(runs: Sequence[Scored]) -> list[Scored]:
    """Restrict the runs to their common videos, ordered by id."""
    common = sorted(set.intersection(*(set(run.ids) for run in runs)))
    if not common:
        raise UserError("the runs have no video in common; compare runs on the same data")
    matched = []
    for run in runs:
        index = {id: i for i, id in enumerate(run.ids)}
        order = [index[id] for id in common]
        matched.append(Scored(tuple(common), run.labels[order], run.logits[order]))
    labels = matched[0].labels > 0
    for run in matched[1:]:
        if run.labels.shape != labels.shape:
            wrong = f"the runs have {labels.shape[1]} and {run.labels.shape[1]} classes"
        elif (differ := ((run.labels > 0) != labels).any(1)).any():
            wrong = f"the labels of '{common[differ.argmax()]}' differ"
        else:
            continue
        raise UserError(f"{wrong}; compare runs on the same data")
    return matched
