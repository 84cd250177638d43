"""Differences in accuracy between two methods on the same videos, with intervals."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sofnet_jax.host.errors import UserError
from sofnet_jax.report.bootstrap import Difference, Metric, compute_difference
from sofnet_jax.report.collection import Collection
from sofnet_jax.report.part import Row, Table


@dataclass(frozen=True)
class Side:
    """A method, with or without early termination."""

    method: str
    early: bool = False


TSN, SOFNET, EARLY = Side("tsn"), Side("sofnet"), Side("sofnet", early=True)
UNGUIDED, FC, FC_UNGUIDED = Side("unguided"), Side("fc"), Side("fc_unguided")
TSM, TSM_ONLINE, SOFNET_TSM = Side("tsm"), Side("tsm_online"), Side("sofnet_tsm")
BETA_05 = Side("alpha1_beta05")


@dataclass(frozen=True)
class Comparison:
    """`a` against `b`; `paper` is the paper's difference in points, None if it has none."""

    label: str
    a: Side
    b: Side
    paper: float | None = None


# With the differences that the paper reports, in Tables 4, A and D.
GATES = Comparison("SoF-Net − TSN", SOFNET, TSN, 1.9)
MEMORY = Comparison("LSTM − fully connected, with guidance", SOFNET, FC, 0.9)
MEMORY_ALONE = Comparison("LSTM − fully connected, without guidance", UNGUIDED, FC_UNGUIDED, 0.7)
GUIDANCE = Comparison("with − without guidance, LSTM", SOFNET, UNGUIDED, 0.6)
GUIDANCE_ALONE = Comparison("with − without guidance, fully connected", FC, FC_UNGUIDED, 0.4)
EARLY_END = Comparison("with − without early termination", EARLY, SOFNET, -0.3)
COST = Comparison(
    "with − without cost in the loss, no L_pg", UNGUIDED, Side("alpha1_unguided"), -0.5
)
CLASSIFIERS = Comparison("α = 1: β = 0.5 − β = 0", BETA_05, Side("alpha1_beta0"), 0.7)
SELF = Comparison("α = 1: β = 0.5 − β = 1", BETA_05, Side("alpha1_beta1"), 1.2)
LARGER = Comparison("192×192 − 168×168", Side("sofnet_192"), SOFNET, 0.8)
LARGEST = Comparison("224×224 − 168×168", Side("sofnet_224"), SOFNET, 1.5)
ON_TSM = Comparison("SoF-Net with TSM − TSM, both online", SOFNET_TSM, TSM_ONLINE, 1.1)
ON_TSM_OFFLINE = Comparison(
    "SoF-Net with TSM − TSM, both offline", Side("sofnet_tsm_offline"), TSM, 1.1
)
SHIFT = Comparison("SoF-Net with TSM − SoF-Net", SOFNET_TSM, SOFNET, -1.5)
SHIFT_ALONE = Comparison("TSM − TSN", TSM, TSN, -0.7)


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
        paper, own = self.comparison.paper, self.difference
        return (
            f"{paper:+.1f}" if paper is not None else "",
            f"{100 * own.mean:+.1f}" if own else "",
            f"{100 * own.low:+.1f} … {100 * own.high:+.1f}" if own else "",
            f"{self.cost:.2f}" if self.cost is not None else "",
        )

    @property
    def data(self) -> dict[str, Any]:
        """The numbers of `cells`, unrounded, for JSON."""
        own = self.difference
        return {
            "paper": self.comparison.paper,
            "points": own and 100 * own.mean,
            "interval": own and [100 * own.low, 100 * own.high],
            "gflops_ratio": self.cost,
            "missing": self.missing,
        }


def compare(comparison: Comparison, metric: Metric, collection: Collection) -> Outcome:
    """Estimate the difference in accuracy by a paired bootstrap over the videos."""
    sides = comparison.a, comparison.b
    absent = [side.method for side in sides if not collection.find(side.method)]
    if absent:
        return Outcome(comparison, None, None, f"no {', '.join(dict.fromkeys(absent))}")
    runs = [[(run, s.early) for run in collection.find(s.method)] for s in sides]
    costs = [[run.metrics(early)["gflops_per_video"] for run, early in own] for own in runs]
    cost = statistics.mean(costs[0]) / statistics.mean(costs[1])
    try:
        scored = [[run.score(early) for run, early in own] for own in runs]
        difference = compute_difference(scored[0], scored[1], metric)
    except UserError as error:
        return Outcome(comparison, None, cost, str(error))
    return Outcome(comparison, difference, cost)


def create_comparison_table(outcomes: Sequence[Outcome]) -> tuple[Table, list[dict[str, Any]]]:
    """A row for each comparison, and their data for JSON."""
    rows, data = [], []
    for outcome in outcomes:
        c = outcome.comparison
        cells = (*outcome.cells, outcome.missing)
        rows.append(Row(c.label, cells, measured=outcome.difference is not None))
        data.append({"label": c.label, "a": vars(c.a), "b": vars(c.b), **outcome.data})
    columns = ("", "paper", "ours", "95 % interval", "GFLOPs, ratio", "")
    caption = "Differences in accuracy in points, on the same videos"
    return Table(caption, columns, tuple(rows)), data
