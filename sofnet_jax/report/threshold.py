"""Thresholds of early termination, all of them from the stored scores of one evaluation."""

import functools
from collections.abc import Sequence
from typing import Any

from sofnet_jax.evaluation.metrics import compute_metrics
from sofnet_jax.host.errors import UserError
from sofnet_jax.report import paper
from sofnet_jax.report.bootstrap import Metric
from sofnet_jax.report.collection import Collection, Run, Value, measure
from sofnet_jax.report.part import Curve, Part, Plot, Row, Table
from sofnet_jax.report.tables import warn

Rule = tuple[float, int]  # ρ, T_min
KEPT = ("top1", "map", "gflops_per_frame", "gflops_per_video", "usage", "exit")  # in the JSON
RHOS = (0.95, 0.99, 0.999)
MIN_FRAMES = (2, 3, 4, 5)
# ρ of the curve, from where nearly every video ends early to where none does.
CURVE = (*(x / 20 for x in range(8, 19)), *(round(1 - 10 ** (-x / 3), 6) for x in range(4, 16)))


@functools.cache
def evaluate_rule(run: Run, rule: Rule) -> dict[str, float]:
    """The metrics of an evaluation with these thresholds. Raises UserError without predictions."""
    predictions, gate_names = run.predictions
    paper_cost, full_cost = run.compute_costs(predictions.labels.shape[1])
    return compute_metrics(
        predictions,
        gate_names=gate_names,
        paper_cost=paper_cost,
        full_cost=full_cost,
        threshold=rule[0],
        min_frames=rule[1],
    )


def create_table_c(collection: Collection) -> Part:
    """The grid over ρ and T_min, and the curve that ρ traces.

    Raises:
        UserError: predictions that cannot be read.
    """
    metric, runs = collection.choose_metric(), collection.find("sofnet")
    title = {"map": "mAP %", "top1": "top-1 %"}[metric]
    groups = tuple((f"T_min = {min_frames}", 2) for min_frames in MIN_FRAMES)
    columns = (f"ρ ({title} / GFLOPs/f)", *("paper", "ours") * len(MIN_FRAMES))
    rows = []
    for rho in RHOS:
        cells: list[str] = []
        for min_frames in MIN_FRAMES:
            published = paper.TABLE_C[rho, min_frames]
            cells += [
                f"{published.accuracy:.1f} / {published.per_frame:.2f}",
                _format_cell(runs, (rho, min_frames), metric),
            ]
        rows.append(Row(f"{rho:g}", tuple(cells), measured=bool(runs)))
    own = sorted({(run.rule["threshold"], run.rule["min_frames"]) for run in runs})
    notes = [f"Ours: {collection.describe(['sofnet'])}; one evaluation of each run, and no other."]
    if own and own != [(0.999, 3)]:
        used = ", ".join(f"ρ = {rho:g}, T_min = {least}" for rho, least in own)
        notes.append(f"The other tables end these videos with {used}.")
    return Part(
        "tableC",
        "Table C: thresholds of early termination",
        lead=tuple(filter(None, [warn(collection, paper.ACTIVITYNET)])),
        tables=(Table("Early termination after ρ and T_min", columns, tuple(rows), groups),),
        plots=(create_plot(collection, metric),) if runs else (),
        notes=tuple(notes) if runs else ("SoF-Net: not run.",),
        data=_create_data(runs, metric) | {"dataset": collection.dataset, "metric": metric},
    )


def create_plot(collection: Collection, metric: Metric) -> Plot:
    """Accuracy against GFLOPs along ρ at the least T_min in use, with the ends of the curve."""
    runs = collection.find("sofnet")
    min_frames = int(runs[0].rule["min_frames"])
    curve = _trace(runs, [(rho, min_frames) for rho in CURVE], metric)
    whole = Curve(
        "without early end",
        (_mean(runs, lambda run: run.metrics(False)["gflops_per_frame"]),),
        (100 * _mean(runs, lambda run: run.metrics(False)[metric]),),
        "points",
    )
    return Plot(
        f"What ρ from {CURVE[0]:g} to {CURVE[-1]:g} trades, T_min = {min_frames}",
        "GFLOPs a frame",
        {"map": "mAP %", "top1": "top-1 %"}[metric],
        (curve, whole),
    )


def _trace(runs: Sequence[Run], rules: Sequence[Rule], metric: Metric) -> Curve:
    points = [
        (
            _mean(runs, lambda run, rule=rule: evaluate_rule(run, rule)["gflops_per_frame"]),
            100 * _mean(runs, lambda run, rule=rule: evaluate_rule(run, rule)[metric]),
        )
        for rule in rules
    ]
    x, y = zip(*sorted(points), strict=True)
    return Curve("SoF-Net along ρ", x, y)


def _mean(runs: Sequence[Run], read: Any) -> float:
    value = measure(runs, read)
    if value is None:
        raise UserError("no runs of SoF-Net")
    return value.mean


def _measure_rule(runs: Sequence[Run], rule: Rule, name: str, scale: float) -> Value | None:
    return measure(runs, lambda run: scale * evaluate_rule(run, rule)[name])


def _format_cell(runs: Sequence[Run], rule: Rule, metric: Metric) -> str:
    accuracy = _measure_rule(runs, rule, metric, 100.0)
    cost = _measure_rule(runs, rule, "gflops_per_frame", 1.0)
    return f"{accuracy.mean:.1f} / {cost.mean:.3g}" if accuracy and cost else ""


def _create_data(runs: Sequence[Run], metric: Metric) -> dict[str, Any]:
    grid = []
    for (rho, min_frames), published in paper.TABLE_C.items():
        rule = rho, min_frames
        accuracy = _measure_rule(runs, rule, metric, 100.0)
        cost = _measure_rule(runs, rule, "gflops_per_frame", 1.0)
        grid.append(
            {
                "rho": rho,
                "min_frames": min_frames,
                "paper": {"accuracy": published.accuracy, "per_frame": published.per_frame},
                "accuracy": accuracy and vars(accuracy),
                "per_frame": cost and vars(cost),
            }
        )
    curve = [
        {"rho": rho, "min_frames": least, "seed": run.seed}
        | {name: evaluate_rule(run, (rho, least))[name] for name in KEPT}
        for run in runs
        for least in [int(run.rule["min_frames"])]
        for rho in CURVE
    ]
    return {"grid": grid, "curve": curve}
