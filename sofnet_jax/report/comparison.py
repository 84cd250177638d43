"""Differences between two methods on the same videos, with intervals."""

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


TSN, SOFNET, EARLY = Side("tsn"), Side("sofnet"), Side("sofnet", early=True)


@dataclass(frozen=True)
class Comparison:
    """`a` against `b`; `paper` is the paper's difference in points, None if it has none."""

    label: str
    a: Side
    b: Side
    paper: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The result of a comparison.

    Attributes:
        difference: in accuracy; None if it could not be computed.
        cost: GFLOPs per video of `a` divided by those of `b`.
        missing: why there is no difference, or "".
    """

    comparison: Comparison
    difference: Difference | None
    cost: float | None
    missing: str = ""

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The paper's points, ours, their interval, and the ratio of costs."""
        paper, difference = self.comparison.paper, self.difference
        return (
            "" if paper is None else f"{paper:+.1f}",
            "" if difference is None else f"{100 * difference.mean:+.1f}",
            ""
            if difference is None
            else f"{100 * difference.low:+.1f} … {100 * difference.high:+.1f}",
            "" if self.cost is None else f"{self.cost:.2f}",
        )

    @property
    def data(self) -> dict[str, Any]:
        """The same for JSON."""
        difference = self.difference
        return {
            "paper": self.comparison.paper,
            "points": difference and 100 * difference.mean,
            "interval": difference and [100 * difference.low, 100 * difference.high],
            "gflops_ratio": self.cost,
            "missing": self.missing,
        }


def compare(comparison: Comparison, metric: Metric, collection: Collection) -> Outcome:
    """Estimate the difference in accuracy by a paired bootstrap over the videos."""
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


def create_comparison_table(outcomes: Sequence[Outcome]) -> tuple[Table, list[dict[str, Any]]]:
    """A row for each comparison, and the same for JSON."""
    rows, data = [], []
    for outcome in outcomes:
        c = outcome.comparison
        cells = (*outcome.cells, outcome.missing)
        rows.append(Row(c.label, cells, measured=outcome.difference is not None))
        data.append({"label": c.label, "a": vars(c.a), "b": vars(c.b), **outcome.data})
    columns = ("", "paper", "ours", "95 % interval", "GFLOPs, ratio", "")
    caption = "Differences in accuracy, in points, on the same videos"
    return Table(caption, columns, tuple(rows)), data
