"""Differences between methods on the same videos, with intervals, and what becomes of a claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sofnet_jax.host.errors import UserError
from sofnet_jax.report.bootstrap import Difference, Metric, compute_difference
from sofnet_jax.report.collection import Collection, Value, measure
from sofnet_jax.report.part import Row, Table


@dataclass(frozen=True)
class Side:
    """A method, with or without early termination."""

    method: str
    early: bool = False


@dataclass(frozen=True)
class Comparison:
    """Is `a` more accurate than `b`?

    Attributes:
        label: what differs between them.
        paper: points that the paper has a above b; None if it does not compare them.
    """

    label: str
    a: Side
    b: Side
    paper: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What was found of a comparison.

    Attributes:
        difference: of the accuracies, in 0…1; None if it was not run.
        cost: GFLOPs a video of a over those of b.
        missing: what hinders, if something does.
    """

    comparison: Comparison
    difference: Difference | None
    cost: float | None
    missing: str = ""


def compare(comparison: Comparison, metric: Metric, collection: Collection) -> Outcome:
    """The difference in accuracy on the same videos, by a paired bootstrap over them."""
    sides = comparison.a, comparison.b
    absent = [side.method for side in sides if not collection.find(side.method)]
    if absent:
        return Outcome(comparison, None, None, f"no {', '.join(dict.fromkeys(absent))}")
    costs = [_measure_cost(side, collection) for side in sides]
    cost = costs[0].mean / costs[1].mean if costs[0] and costs[1] else None
    try:
        scored = [[run.score(s.early) for run in collection.find(s.method)] for s in sides]
        difference = compute_difference(scored[0], scored[1], metric)
    except UserError as error:
        return Outcome(comparison, None, cost, str(error))
    return Outcome(comparison, difference, cost)


def _measure_cost(side: Side, collection: Collection) -> Value | None:
    runs = collection.find(side.method)
    return measure(runs, lambda run: run.metrics(side.early)["gflops_per_video"])


def create_comparison_table(outcomes: Sequence[Outcome]) -> Table:
    """A row for each comparison."""
    columns = ("", "paper", "ours", "95 % interval", "GFLOPs, ratio", "")
    rows = tuple(_create_row(outcome) for outcome in outcomes)
    return Table("Differences in accuracy, in points, on the same videos", columns, rows)


def create_comparison_data(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """The same for JSON, in points."""
    return [
        {
            "label": o.comparison.label,
            "a": vars(o.comparison.a),
            "b": vars(o.comparison.b),
            "paper": o.comparison.paper,
            "points": o.difference and 100 * o.difference.mean,
            "interval": o.difference and [100 * o.difference.low, 100 * o.difference.high],
            "gflops_ratio": o.cost,
            "missing": o.missing,
        }
        for o in outcomes
    ]


def _create_row(outcome: Outcome) -> Row:
    paper, difference = outcome.comparison.paper, outcome.difference
    cells = (
        "" if paper is None else f"{paper:+.1f}",
        "" if difference is None else f"{100 * difference.mean:+.1f}",
        "" if difference is None else format_interval(difference),
        "" if outcome.cost is None else f"{outcome.cost:.2f}",
        outcome.missing,
    )
    return Row(outcome.comparison.label, cells, measured=difference is not None)


def format_interval(difference: Difference) -> str:
    """In points."""
    return f"{100 * difference.low:+.1f} … {100 * difference.high:+.1f}"
