"""Metrics, computed on the host from the stored scores and decisions of every frame.

One pass over the videos serves every threshold of early exit.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.base import Prices
from sofnet_jax.systems.early_exit import Rule


def create_result(
    predictions: Predictions, *, prices: Prices, threshold: float, min_frames: int
) -> dict[str, Any]:
    """The metrics `eval` and, for a system that decides, `eval_early`: with early exit."""
    measure = functools.partial(compute_metrics, predictions, prices=prices)
    result: dict[str, Any] = {"eval": measure()}
    if len(predictions.actions) > 1:
        result["eval_early"] = measure(threshold=threshold, min_frames=min_frames)
    return result | {"unreadable": predictions.errors}


def compute_metrics(
    predictions: Predictions,
    *,
    prices: Prices,
    threshold: float | None = None,
    min_frames: int = 0,
) -> dict[str, float]:
    """Accuracy, cost and the fates of frames; with early exit if `threshold` is given.

    Returns:
        `top1`, `top5`, `map` in 0…1; `gflops_per_video`, `gflops_per_frame` in the `paper` count
        and `…_full`; shares of all frames: `usage` (used), `stop/<action>` and `exit` (unseen);
        with annotations `relevant` and `kept_relevant`, the shares of all and of the kept frames
        that lie in the annotated action; the numbers of `evaluated` and `total` videos.
    """
    p, total = predictions, predictions.relevant.size
    fates = compute_fates(p, threshold, min_frames)
    used, seen = fates.used & fates.seen, fates.seen
    logits = compute_answer(p, fates)
    metrics = {
        "top1": compute_top_k(logits, p.labels, 1),
        "top5": compute_top_k(logits, p.labels, 5),
        "map": compute_map(softmax(logits, axis=-1), p.labels),
    }
    for suffix, price in (("", prices.paper), ("_full", prices.full)):
        per_video = (price[p.action] * seen).sum(1).mean()
        metrics[f"gflops_per_video{suffix}"] = per_video
        metrics[f"gflops_per_frame{suffix}"] = per_video / p.num_frames
    metrics["usage"] = used.sum() / total
    metrics["exit"] = 1 - seen.sum() / total
    for k, action in enumerate(p.actions):
        if not action.uses:
            metrics[f"stop/{action.name}"] = ((p.action == k) & seen).sum() / total
    known = ~np.isnan(p.relevant)
    if known.any():
        metrics["relevant"] = p.relevant[known].mean()
        relevant = np.take_along_axis(p.relevant, p.time, 1)[used]
        relevant = relevant[~np.isnan(relevant)]
        metrics["kept_relevant"] = relevant.mean() if relevant.size else np.nan
    counts = {"evaluated": len(p.ids), "total": p.total}
    return {name: float(value) for name, value in metrics.items()} | counts


class Fates(NamedTuple):
    """The fate of every step."""

    used: Bool[np.ndarray, "v s"]  # its frame counts, had the video not ended early
    seen: Bool[np.ndarray, "v s"]  # it came before the video's end
    observed: Int[np.ndarray, "v"]  # the number of steps seen in each video


def compute_fates(
    predictions: Predictions, threshold: float | None = None, min_frames: int = 0
) -> Fates:
    """With early exit (Eq. 7) if `threshold` is given. A frame is used if `used` and `seen`."""
    p = predictions
    taken = p.action >= 0
    used = np.array([action.uses for action in p.actions])[p.action] & taken
    observed = taken.sum(1)
    if threshold is not None:
        observed = compute_observed(p, threshold, min_frames)
    steps = np.arange(p.action.shape[1])
    return Fates(used, steps < observed[:, None], observed)


def compute_observed(
    predictions: Predictions, threshold: float, min_frames: int
) -> Int[np.ndarray, "v"]:
    """The number of frames seen before early exit (Eq. 7).

    A video ends after a step that *answered*, number T̄ (counting all steps so far) with T̄ >
    `min_frames`, if the largest class probability exceeds `threshold`; otherwise after its last
    step. SoF-Net answers after a kept frame, with the mean of the kept logits.
    """
    p = predictions
    taken = p.action >= 0
    answered = np.array([action.answers for action in p.actions])[p.action] & taken
    answers = p.logits
    if p.pooling == "mean":
        count = answered.cumsum(1)[..., None]
        answers = np.where(answered[..., None], p.logits, 0).cumsum(1) / np.maximum(count, 1)
    steps = np.arange(1, p.action.shape[1] + 1)
    ends = answered & Rule(threshold, min_frames).ends(answers, steps)
    return np.where(ends.any(1), ends.argmax(1) + 1, taken.sum(1))


def compute_answer(predictions: Predictions, fates: Fates) -> Float[np.ndarray, "v n"]:
    """The logits of each video: the mean of the used steps (Eq. 6), or those of the last answer.

    Zero without any (`Released.empty`).
    """
    p = predictions
    if p.pooling == "mean":
        used = fates.used & fates.seen
        total = np.where(used[..., None], p.logits, 0).sum(1)
        return total / np.maximum(used.sum(1), 1)[:, None]
    answered = np.array([action.answers for action in p.actions])[p.action] & fates.seen
    last = answered.shape[1] - 1 - answered[:, ::-1].argmax(1)
    return np.where(answered.any(1)[:, None], p.logits[np.arange(len(last)), last], 0)


def compute_top_k(logits: Float[np.ndarray, "v n"], labels: Float[np.ndarray, "v n"], k: int):
    """Share of the videos that have one of their labels among the k best scores.

    Among tied classes, the lower number comes first.
    """
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
    return np.take_along_axis(labels, best, axis=-1).any(-1).mean()


def compute_map(scores: Float[np.ndarray, "v n"], labels: Float[np.ndarray, "v n"]) -> float:
    """Mean of the non-interpolated average precision over the classes with positives."""
    positive = labels > 0
    present = np.flatnonzero(labels.any(0))
    return float(
        np.mean([_compute_average_precision(scores[:, c], positive[:, c]) for c in present])
    )


def _compute_average_precision(
    scores: Float[np.ndarray, "v"], positive: Bool[np.ndarray, "v"]
) -> float:
    """Σ (R_i - R_{i-1}) P_i over the distinct scores i as thresholds.

    Summed from the lowest threshold to the highest, as in scikit-learn, whose bits it reproduces.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of equal scores
    hits = positive[order].cumsum()[last]
    precision, recall = hits / (last + 1), hits / hits[-1]
    return max(0.0, float(-np.sum(np.diff(recall[::-1], append=0.0) * precision[::-1])))
