"""Accuracy against computation: along thresholds, and over the course of training."""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sofnet_jax.host.files import is_number
from sofnet_jax.report import paper
from sofnet_jax.report.ablations import METHODS
from sofnet_jax.report.bootstrap import Metric
from sofnet_jax.report.collection import Collection, Run
from sofnet_jax.report.part import Curve, Part, Plot
from sofnet_jax.report.threshold import CURVE, evaluate_rule

TRACED = ("sofnet", "sofnet_192", "sofnet_224", "sofnet_tsm")
PLAIN = ("tsn", "tsm", "tsm_online")
COST = "GFLOPs of a video, % of plain TSN's"


def create_curves(collection: Collection) -> Part:
    """Both plots, with the systems of Table 1 as the paper reports them.

    Raises:
        UserError: predictions or logs that cannot be read.
    """
    metric = collection.choose_metric()
    label = {"map": "mAP %", "top1": "top-1 %"}[metric]
    of = collection.dataset if collection.dataset == paper.KINETICS else paper.ACTIVITYNET
    base = next(iter(collection.find("sofnet")), None)
    if base is None:
        return Part("curves", "Accuracy against computation", notes=("SoF-Net: not run.",))
    whole = base.tsn_gflops
    traced = [
        _trace(METHODS[method].title, runs, metric, whole)
        for method in TRACED
        if (runs := collection.find(method))
    ]
    plain = [
        _average(METHODS[method].title, runs, metric, whole)
        for method in PLAIN
        if (runs := collection.find(method))
    ]
    reported = create_reported(of)
    training = [
        _follow(METHODS[method].title, runs, metric, whole)
        for method in (*TRACED, "tsn")
        if (runs := collection.find(method))
    ]
    caption = f"Early termination from ρ = {CURVE[0]:g} to {CURVE[-1]:g}; {collection.title}"
    plots = [
        Plot(caption, COST, label, (*traced, *plain)),
        Plot(
            f"The same, and the systems of Table 1 as reported on {paper.DATASETS[of]}, where "
            f"TSN's {paper.TSN_GFLOPS} GFLOPs are 100 %",
            COST,
            label,
            (*traced, *plain, reported),
        ),
    ]
    followed = tuple(curve for curve in training if len(curve.x) > 1)
    if followed:
        plots.append(
            Plot("Checkpoints of the training, by epoch; without early end", COST, label, followed)
        )
    methods = [method for method in (*TRACED, *PLAIN) if collection.find(method)]
    return Part(
        "curves",
        "Accuracy against computation",
        plots=tuple(plots),
        notes=(
            f"{collection.describe(methods)}; means over seeds. Other systems' points are the "
            "paper's: reported, not measured here.",
        ),
        data={
            "metric": metric,
            "tsn_gflops": whole,
            "curves": [_describe(curve) for curve in (*traced, *plain)],
            "reported": _describe(reported),
            "training": [_describe(curve) for curve in training],
        },
    )


def create_reported(of: str) -> Curve:
    """The systems of Table 1, none of them measured here."""
    systems = [*paper.SYSTEMS, paper.SOFNET_TABLE_1]
    known = [(s.name, s.reported[of]) for s in systems if of in s.reported]
    return Curve(
        "reported by the paper",
        tuple(100 * (p.per_video or 0) / paper.TSN_GFLOPS for _, p in known),
        tuple(p.accuracy or 0 for _, p in known),
        "reported",
        tuple(name if name != "SoF-Net" else "SoF-Net (paper)" for name, _ in known),
    )


def _trace(title: str, runs: Sequence[Run], metric: Metric, whole: float) -> Curve:
    points = []
    for rho in CURVE:
        found = [evaluate_rule(run, (rho, int(run.rule["min_frames"]))) for run in runs]
        points.append(_mean(found, metric, whole))
    points.append(_mean([run.metrics(False) for run in runs], metric, whole))
    x, y = zip(*sorted(points), strict=True)
    return Curve(title, x, y)


def _average(title: str, runs: Sequence[Run], metric: Metric, whole: float) -> Curve:
    x, y = _mean([run.metrics(False) for run in runs], metric, whole)
    return Curve(title, (x,), (y,), "points", (title,))


def _follow(title: str, runs: Sequence[Run], metric: Metric, whole: float) -> Curve:
    """The evaluations that the runs logged, in the order of their epochs."""
    by_epoch: dict[float, list[Mapping[str, float]]] = defaultdict(list)
    for run in runs:
        for epoch, metrics in _read_evaluations(run):
            by_epoch[epoch].append(metrics)
    points = [
        (epoch, _mean(found, metric, whole))
        for epoch, found in sorted(by_epoch.items())
        if len(found) == len(runs)
    ]
    return Curve(
        title,
        tuple(x for _, (x, _) in points),
        tuple(y for _, (_, y) in points),
        names=tuple(f"{epoch:g}" for epoch, _ in points),
    )


def _read_evaluations(run: Run) -> list[tuple[float, dict[str, float]]]:
    """Epoch and metrics of every evaluation in a run's log; a damaged line is passed over."""
    try:
        text = (run.folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    epochs: dict[int, float] = {}
    found = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
            step = int(_read_number(row["step"]))
            if "train/epoch" in row:
                epochs[step] = _read_number(row["train/epoch"])
            if "eval/top1" in row:
                names = "top1", "map", "gflops_per_video"
                found.append((step, {name: _read_number(row[f"eval/{name}"]) for name in names}))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    per_step = next((epoch / step for step, epoch in epochs.items() if step), None)
    return [] if per_step is None else [(round(step * per_step, 2), m) for step, m in found]


def _read_number(value: Any) -> float:
    """Raises ValueError if it is none that can be drawn."""
    if not is_number(value):
        raise ValueError(f"{value} is no number")
    return float(value)


def _mean(
    metrics: Sequence[Mapping[str, float]], metric: Metric, whole: float
) -> tuple[float, float]:
    """Cost in percent of `whole`, and accuracy in percent."""
    cost = statistics.fmean(m["gflops_per_video"] for m in metrics)
    return 100 * cost / whole, 100 * statistics.fmean(m[metric] for m in metrics)


def _describe(curve: Curve) -> dict[str, Any]:
    return {"label": curve.label, "names": curve.names, "x": curve.x, "y": curve.y}
