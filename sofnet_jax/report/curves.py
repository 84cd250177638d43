"""Accuracy against computation: along thresholds of early exit, and over training."""

import contextlib
import functools
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sofnet_jax.data.views import segment_indices
from sofnet_jax.evaluation.metrics import compute_metrics
from sofnet_jax.host.files import is_number
from sofnet_jax.report import paper
from sofnet_jax.report.ablations import FRAMEEXIT, FRAMEEXIT_ONLINE, METHODS
from sofnet_jax.report.bootstrap import TITLES, Metric
from sofnet_jax.report.collection import Collection, Run, measure
from sofnet_jax.report.section import Curve, Plot, Row, Section, Table

Rule = tuple[float, int]  # ρ, T_min
Metrics = Mapping[str, float]
KEPT = ("top1", "map", "gflops_per_frame", "gflops_per_video", "usage", "exit")  # in the JSON
LOGGED = ("top1", "map", "gflops_per_video")
MIN_FRAMES = (2, 3, 4, 5)
FEWER = "TSN on fewer frames, evenly spaced"
# ρ of the curves, from nearly every video ending early to none.
CURVE = (*(x / 20 for x in range(8, 19)), *(round(1 - 10 ** (-x / 3), 6) for x in range(4, 16)))
TRACED = ("sofnet", "sofnet_192", "sofnet_224", "sofnet_tsm")
PLAIN = ("tsn", "tsm", "tsm_online", "frameexit", "frameexit_online")


@functools.cache
def evaluate_rule(run: Run, rule: Rule) -> dict[str, float]:
    """Metrics with these thresholds, from the stored scores. Raises UserError without them."""
    return compute_metrics(
        run.predictions,
        prices=run.prices,
        threshold=rule[0],
        min_frames=rule[1],
    )


@functools.cache
def evaluate_fewer(run: Run) -> list[dict[str, float]]:
    """Metrics on 1, 2, … T of a video's T frames, evenly spaced. Raises UserError."""
    p, found = run.predictions, []
    for count in range(1, p.num_frames + 1):
        steps = segment_indices(p.num_frames, count)
        parts = {name: getattr(p, name)[:, steps] for name in ("logits", "time", "action")}
        found.append(compute_metrics(replace(p, **parts), prices=run.prices))
    return found


def create_table_c(collection: Collection) -> Section:
    """The grid over ρ and T_min, and the curve that ρ traces.

    Raises:
        UserError: predictions cannot be read.
    """
    metric, runs = collection.choose_metric(), collection.find("sofnet")
    cells: dict[float, list[str]] = defaultdict(list)
    grid = []
    for (rho, least), reported in paper.TABLE_C.items():
        own = [evaluate_rule(run, (rho, least)) for run in runs]
        accuracy = measure(100.0 * metrics[metric] for metrics in own)
        cost = measure(metrics["gflops_per_frame"] for metrics in own)
        ours = f"{accuracy.mean:.1f} / {cost.mean:.3g}" if accuracy and cost else ""
        cells[rho] += f"{reported[0]:.1f} / {reported[1]:.2f}", ours
        grid.append(
            {
                "rho": rho,
                "min_frames": least,
                "paper": dict(zip(("accuracy", "per_frame"), reported, strict=True)),
                "accuracy": accuracy and vars(accuracy),
                "per_frame": cost and vars(cost),
            }
        )
    notes = ["SoF-Net: not run."]
    if runs:
        notes = [f"Ours: {collection.describe(['sofnet'])}; computed from one evaluation per run."]
    used = sorted({(run.rule["threshold"], run.rule["min_frames"]) for run in runs})
    if used not in ([], [(0.999, 3)]):
        rules = ", ".join(f"ρ = {rho:g}, T_min = {least}" for rho, least in used)
        notes.append(f"The other tables use {rules}.")
    groups = tuple((f"T_min = {least}", 2) for least in MIN_FRAMES)
    columns = (f"ρ ({TITLES[metric]} % / GFLOPs/f)", *("paper", "ours") * len(MIN_FRAMES))
    rows = tuple(Row(f"{rho:g}", tuple(own), bool(runs)) for rho, own in cells.items())
    return Section(
        "tableC",
        "Table C: thresholds of early exit",
        lead=collection.caution(paper.ACTIVITYNET),
        tables=(Table("Early exit by ρ and T_min", columns, rows, groups),),
        drawings=(_create_threshold_plot(runs, metric),) if runs else (),
        notes=tuple(notes),
        data={
            "grid": grid,
            "curve": [
                {"rho": rho, "min_frames": least, "seed": run.seed}
                | {name: evaluate_rule(run, (rho, least))[name] for name in KEPT}
                for run in runs
                for least in [int(run.rule["min_frames"])]
                for rho in CURVE
            ],
            "dataset": collection.dataset,
            "metric": metric,
        },
    )


def _create_threshold_plot(runs: Sequence[Run], metric: Metric) -> Plot:
    """Accuracy against GFLOPs per frame along ρ, and without early exit."""
    least = int(runs[0].rule["min_frames"])
    average = functools.partial(_average, metric=metric, whole=100.0, cost="gflops_per_frame")
    end = average([run.metrics(False) for run in runs])
    return Plot(
        f"Accuracy against computation for ρ from {CURVE[0]:g} to {CURVE[-1]:g}, T_min = {least}",
        "GFLOPs per frame",
        f"{TITLES[metric]} %",
        (
            Curve("SoF-Net along ρ", sorted(map(average, _trace(runs, least)))),
            Curve("without early exit", [end], "points"),
        ),
    )


def create_curves(collection: Collection) -> Section:
    """Accuracy against GFLOPs, ours alone and with the reported systems, and over training.

    Raises:
        UserError: predictions cannot be read.
    """
    metric, title = collection.choose_metric(), "Accuracy against computation"
    base = next(iter(collection.find("sofnet")), None)
    if base is None:
        return Section("curves", title, notes=("SoF-Net: not run.",))
    average = functools.partial(_average, metric=metric, whole=base.tsn_gflops)
    known = {name: runs for name in (*TRACED, *PLAIN) if (runs := collection.find(name))}
    curves, training = [], []
    for name, runs in known.items():
        label = METHODS[name].title
        early = name in (FRAMEEXIT.method, FRAMEEXIT_ONLINE.method)
        end = average([run.metrics(early) for run in runs])
        if name in TRACED:
            curves.append(Curve(label, sorted([end, *map(average, _trace(runs))])))
        else:
            curves.append(Curve(label, [end], "points", [label]))
        if name in (*TRACED, "tsn"):
            logged = _read_logged(runs)
            epochs = [f"{epoch:g}" for epoch in logged]
            training.append(Curve(label, list(map(average, logged.values())), names=epochs))
    if runs := collection.find("tsn"):
        points = [average(found) for found in zip(*map(evaluate_fewer, runs), strict=True)]
        curves.append(Curve(FEWER, points[:-1], "points", list(map(str, range(1, len(points))))))
    of = collection.dataset if collection.dataset == paper.KINETICS else paper.ACTIVITYNET
    reported = create_reported(of)
    plots = {
        f"Early exit from ρ = {CURVE[0]:g} to {CURVE[-1]:g}; {collection.title}": curves,
        f"With the systems of Table 1 as reported on {paper.DATASETS[of]}; 100 % is TSN's "
        f"{paper.TSN_GFLOPS} GFLOPs": [*curves, reported],
        "Checkpoints of each training, labelled by epoch; without early exit": [
            curve for curve in training if len(curve.points) > 1
        ],
    }
    return Section(
        "curves",
        title,
        drawings=tuple(
            Plot(caption, "GFLOPs per video, % of plain TSN's", f"{TITLES[metric]} %", tuple(own))
            for caption, own in plots.items()
            if own
        ),
        notes=(
            f"{collection.describe(list(known))}; means over seeds. The points of other systems "
            "are reported by the paper, not measured here.",
        ),
        data={
            "metric": metric,
            "tsn_gflops": base.tsn_gflops,
            "curves": list(map(_describe, curves)),
            "reported": _describe(reported),
            "training": list(map(_describe, training)),
        },
    )


def create_reported(of: str) -> Curve:
    """The systems of Table 1 on a data set, none of them measured here."""
    lines = [line for line in paper.TABLE_1[of] if line.numbers]
    points = [
        (100 * line.numbers["per_video"] / paper.TSN_GFLOPS, line.numbers["accuracy"])
        for line in lines
    ]
    names = [line.label.partition(" (")[0] for line in lines[:-1]]
    return Curve("reported by the paper", points, "reported", [*names, "SoF-Net (paper)"])


def _trace(runs: Sequence[Run], min_frames: int | None = None) -> list[list[Metrics]]:
    """The metrics of every run at each ρ, with the T_min given or else the run's own."""
    return [
        [evaluate_rule(run, (rho, min_frames or int(run.rule["min_frames"]))) for run in runs]
        for rho in CURVE
    ]


def _read_logged(runs: Sequence[Run]) -> dict[float, list[Metrics]]:
    """The evaluations that all runs logged, by epoch."""
    by_epoch: dict[float, list[Metrics]] = defaultdict(list)
    for run in runs:
        for epoch, metrics in _read_evaluations(run):
            by_epoch[epoch].append(metrics)
    return {e: found for e, found in sorted(by_epoch.items()) if len(found) == len(runs)}


def _read_evaluations(run: Run) -> list[tuple[float, Metrics]]:
    """Epoch and metrics of every evaluation in a run's log; damaged lines are skipped."""
    try:
        text = (run.folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    per_step, found = None, []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, KeyError, AttributeError, RecursionError):
            row = {name: float(x) for name, x in json.loads(line).items() if is_number(x)}
            step = row["step"]
            if per_step is None and step and "train/epoch" in row:
                per_step = row["train/epoch"] / step
            found.append((step, {name: row[f"eval/{name}"] for name in LOGGED}))
    return [] if per_step is None else [(round(step * per_step, 2), m) for step, m in found]


def _average(
    metrics: Sequence[Metrics], metric: Metric, whole: float, cost: str = "gflops_per_video"
) -> tuple[float, float]:
    """Mean cost in percent of `whole`, and mean accuracy in percent."""
    mean = statistics.fmean(m[cost] for m in metrics)
    return 100 * mean / whole, 100 * statistics.fmean(m[metric] for m in metrics)


def _describe(curve: Curve) -> dict[str, Any]:
    x, y = zip(*curve.points, strict=True) if curve.points else ((), ())
    return {"label": curve.label, "names": curve.names, "x": x, "y": y}
