"""Metrics, computed on the host from the stored scores and decisions of every frame.

One pass over the videos serves every threshold of early exit.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.early_exit import Rule
from sofnet_jax.systems.sofnet.costs import Cost


def create_result(
    predictions: Predictions,
    *,
    gate_names: tuple[str, ...],
    costs: tuple[Cost, Cost],
    threshold: float,
    min_frames: int,
) -> dict[str, Any]:
    """The metrics `eval` and, for a network with gates, `eval_early`: with early exit."""
    measure = functools.partial(compute_metrics, predictions, gate_names=gate_names, costs=costs)
    result: dict[str, Any] = {"eval": measure()}
    if gate_names:
        result["eval_early"] = measure(threshold=threshold, min_frames=min_frames)
    return result | {"unreadable": predictions.errors}


def compute_metrics(
    predictions: Predictions,
    *,
    gate_names: tuple[str, ...],
    costs: tuple[Cost, Cost],
    threshold: float | None = None,
    min_frames: int = 0,
) -> dict[str, float]:
    """Accuracy, cost and gate statistics; with early exit if `threshold` is given.

    `costs` of a frame are in the `paper` and the `full` count.

    Returns:
        `top1`, `top5`, `map` in 0…1; `gflops_per_video`, `gflops_per_frame` in the `paper` count
        and `…_full`; shares of all frames: `usage` (kept), `stop/<stage>` and `exit` (unseen);
        with annotations `relevant` and `kept_relevant`, the shares of all and of the kept frames
        that lie in the annotated action; the numbers of `evaluated` and `total` videos.
    """
    p, num_frames = predictions, predictions.stop.shape[1]
    kept, seen, observed = compute_fates(p, len(gate_names), threshold, min_frames)
    logits = compute_consensus(p.frame_logits, kept & seen)
    metrics = {
        "top1": compute_top_k(logits, p.labels, 1),
        "top5": compute_top_k(logits, p.labels, 5),
        "map": compute_map(softmax(logits, axis=-1), p.labels),
    }
    for suffix, cost in zip(("", "_full"), costs, strict=True):
        per_video = cost.per_video(p.stop, observed).mean()
        metrics[f"gflops_per_video{suffix}"] = per_video
        metrics[f"gflops_per_frame{suffix}"] = per_video / num_frames
    metrics["usage"] = (kept & seen).mean()
    metrics["exit"] = 1 - seen.mean()
    for k, name in enumerate(gate_names):
        metrics[f"stop/{name}"] = ((p.stop == k) & seen).mean()
    known = ~np.isnan(p.relevant)
    if known.any():
        metrics["relevant"] = p.relevant[known].mean()
        used = known & kept & seen
        metrics["kept_relevant"] = p.relevant[used].mean() if used.any() else np.nan
    counts = {"evaluated": len(p.ids), "total": p.total}
    return {name: float(value) for name, value in metrics.items()} | counts


class Fates(NamedTuple):
    """The fate of every frame."""

    kept: Bool[np.ndarray, "v t"]  # it passed all gates
    seen: Bool[np.ndarray, "v t"]  # it came before the early exit of its video
    observed: Int[np.ndarray, "v"]  # the number of frames seen in each video


def compute_fates(
    predictions: Predictions, num_gates: int, threshold: float | None = None, min_frames: int = 0
) -> Fates:
    """With early exit (Eq. 7) if `threshold` is given. A frame is used if kept and seen."""
    kept = predictions.stop == num_gates
    num_videos, num_frames = kept.shape
    observed = np.full(num_videos, num_frames)
    if threshold is not None:
        observed = compute_observed(predictions.frame_logits, kept, threshold, min_frames)
    return Fates(kept, np.arange(num_frames) < observed[:, None], observed)


def compute_observed(
    frame_logits: Float[np.ndarray, "v t n"],
    kept: Bool[np.ndarray, "v t"],
    threshold: float,
    min_frames: int,
) -> Int[np.ndarray, "v"]:
    """The number of frames seen before early exit (Eq. 7).

    A video ends after a *kept* frame number T̄ (counting all frames so far) with T̄ > `min_frames`
    if the largest class probability of the mean kept logits exceeds `threshold`; otherwise after
    its last frame.
    """
    num_frames = kept.shape[1]
    count = kept.cumsum(1)[..., None]
    mean = np.where(kept[..., None], frame_logits, 0).cumsum(1) / np.maximum(count, 1)
    ends = kept & Rule(threshold, min_frames).ends(mean, np.arange(1, num_frames + 1))
    return np.where(ends.any(1), ends.argmax(1) + 1, num_frames)


def compute_consensus(
    frame_logits: Float[np.ndarray, "v t n"], kept: Bool[np.ndarray, "v t"]
) -> Float[np.ndarray, "v n"]:
    """Mean logits of the kept frames (Eq. 6); zero without any (`Released.empty`)."""
    return np.where(kept[..., None], frame_logits, 0).sum(1) / np.maximum(kept.sum(1), 1)[:, None]


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
