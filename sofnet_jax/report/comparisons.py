"""Differences in accuracy between two methods on the same videos, and the claims they decide."""

import itertools
import statistics
from typing import Any, NamedTuple

from sofnet_jax.host.errors import UserError
from sofnet_jax.report.ablations import EARLY, SOFNET, TSN, Side
from sofnet_jax.report.bootstrap import TITLES, Metric, compute_difference
from sofnet_jax.report.collection import Collection, measure
from sofnet_jax.report.section import Row, Section, Table

LITTLE = 1.0  # point of accuracy that may be lost for savings, throughout the interval
SEEN, OPPOSITE, OPEN, NOT_RUN = "seen", "the opposite is seen", "not decided", "not run"
NOTHING_SAVED = "not seen: nothing is saved"


class Comparison(NamedTuple):
    """`a` against `b`.

    Attributes:
        paper: the paper's difference in points, None if it has none.
        improves: the paper's claim that `a` is more accurate, if it makes one.
        saves: its claim that `a` is cheaper.
    """

    label: str
    a: Side
    b: Side
    paper: float | None = None
    improves: str = ""
    saves: str = ""


UNGUIDED, FC, FC_UNGUIDED = Side("unguided"), Side("fc"), Side("fc_unguided")
TSM, TSM_ONLINE, TSM_SOFNET = Side("tsm"), Side("tsm_online"), Side("sofnet_tsm")
SIZE_192, SIZE_224, BETA_05 = Side("sofnet_192"), Side("sofnet_224"), Side("alpha1_beta05")
MEMORY, GUIDANCE = "Temporal modelling helps", "Guidance helps"
LARGER, SHIFT = "Larger frames help", "SoF-Net improves TSM"
ENDING, BOTH = "with − without early exit", "SoF-Net with early exit − TSN"

# By the table that shows them.
COMPARISONS: dict[str, tuple[Comparison, ...]] = {
    "table2": (Comparison(BOTH, EARLY, TSN, 1.2),),
    "tableB": (Comparison(BOTH, EARLY, TSN, 2.0),),
    "table4": (
        Comparison(
            *("SoF-Net − TSN", SOFNET, TSN, 1.9, "The gates improve accuracy"),
            saves="The gates save computation without loss",
        ),
        Comparison("LSTM − fully connected, with guidance", SOFNET, FC, 0.9, MEMORY),
        Comparison("LSTM − fully connected, without guidance", UNGUIDED, FC_UNGUIDED, 0.7, MEMORY),
        Comparison("with − without guidance, LSTM", SOFNET, UNGUIDED, 0.6, GUIDANCE),
        Comparison("with − without guidance, fully connected", FC, FC_UNGUIDED, 0.4, GUIDANCE),
        Comparison(
            *(ENDING, EARLY, SOFNET, -0.3),
            saves="Early exit saves computation at little loss",
        ),
    ),
    "tableD": (
        Comparison(
            *("with − without cost in the loss, no L_pg", UNGUIDED, Side("alpha1_unguided"), -0.5),
            saves="The cost in the loss saves computation",
        ),
        Comparison(
            *("α = 1: β = 0.5 − β = 0", BETA_05, Side("alpha1_beta0"), 0.7),
            improves="The inner classifiers help",
        ),
        Comparison(
            *("α = 1: β = 0.5 − β = 1", BETA_05, Side("alpha1_beta1"), 1.2),
            improves="Self-supervision helps",
        ),
    ),
    "table5": (
        Comparison(f"{ENDING}, 168×168", EARLY, SOFNET, -0.3),
        Comparison(f"{ENDING}, 192×192", SIZE_192._replace(early=True), SIZE_192, -0.1),
        Comparison(f"{ENDING}, 224×224", SIZE_224._replace(early=True), SIZE_224, -0.2),
        Comparison("192×192 − 168×168", SIZE_192, SOFNET, 0.8, LARGER),
        Comparison("224×224 − 168×168", SIZE_224, SOFNET, 1.5, LARGER),
    ),
    "tableA": (
        Comparison("SoF-Net with TSM − TSM, both online", TSM_SOFNET, TSM_ONLINE, 1.1, SHIFT),
        Comparison(
            *("SoF-Net with TSM − TSM, both offline", Side("sofnet_tsm_offline"), TSM, 1.1, SHIFT)
        ),
        Comparison("SoF-Net with TSM − SoF-Net", TSM_SOFNET, SOFNET, -1.5, "TSM improves SoF-Net"),
        Comparison("TSM − TSN", TSM, TSN, -0.7, "TSM improves TSN"),
        Comparison("TSM, online − TSN", TSM_ONLINE, TSN),
        Comparison("TSM, online − TSM", TSM_ONLINE, TSM),
    ),
}


class Outcome(NamedTuple):
    """The result of a comparison.

    Attributes:
        paper, points: the paper's difference in accuracy and ours; None if there is none.
        interval: of our points.
        gflops_ratio: GFLOPs per video of `a` divided by those of `b`.
        missing: why we have no difference, or "".
    """

    paper: float | None
    points: float | None = None
    interval: tuple[float, float] | None = None
    gflops_ratio: float | None = None
    missing: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """The paper's points, ours, their interval, and the ratio of costs."""
        points = ("" if x is None else f"{x:+.1f}" for x in (self.paper, self.points))
        interval = " … ".join(f"{x:+.1f}" for x in self.interval or ())
        ratio = "" if self.gflops_ratio is None else f"{self.gflops_ratio:.2f}"
        return (*points, interval, ratio)

    def decide(self, saves: bool) -> str:
        """The verdict on a claim.

        Seen if `a` is more accurate than `b` throughout the interval; with `saves`, if it costs
        less and loses at most `LITTLE` throughout the interval.
        """
        least = -LITTLE if saves else 0.0
        if self.interval is None:
            return NOT_RUN
        if saves and (self.gflops_ratio is None or self.gflops_ratio >= 1):
            return NOTHING_SAVED
        low, high = self.interval
        if low > least:
            return SEEN
        return OPPOSITE if high < least else OPEN


def compare(comparison: Comparison, metric: Metric, collection: Collection) -> Outcome:
    """Estimate the difference in accuracy by a paired bootstrap over the videos."""
    outcome, sides = Outcome(comparison.paper), (comparison.a, comparison.b)
    absent = [side.method for side in sides if not collection.find(side.method)]
    if absent:
        return outcome._replace(missing=f"no {', '.join(dict.fromkeys(absent))}")
    runs = [[(run, s.early) for run in collection.find(s.method)] for s in sides]
    costs = [[run.metrics(early)["gflops_per_video"] for run, early in own] for own in runs]
    outcome = outcome._replace(gflops_ratio=statistics.mean(costs[0]) / statistics.mean(costs[1]))
    try:
        scored = [[run.score(early) for run, early in own] for own in runs]
        mean, *interval = compute_difference(scored[0], scored[1], metric)
    except UserError as error:
        return outcome._replace(missing=str(error))
    low, high = (100 * x for x in interval)
    return outcome._replace(points=100 * mean, interval=(low, high))


def create_comparison_table(
    table: str, metric: Metric, collection: Collection
) -> tuple[Table, list[dict[str, Any]]]:
    """A row for each comparison of a table, and their data for JSON."""
    rows, data = [], []
    for c in COMPARISONS.get(table, ()):
        outcome = compare(c, metric, collection)
        cells = (*outcome.cells, outcome.missing)
        rows.append(Row(c.label, cells, measured=outcome.points is not None))
        data.append({"label": c.label, "a": c.a._asdict(), "b": c.b._asdict(), **outcome._asdict()})
    columns = ("", "paper", "ours", "95 % interval", "GFLOPs, ratio", "")
    caption = "Differences in accuracy in points, on the same videos"
    return Table(caption, columns, tuple(rows)), data


def create_claims(collection: Collection) -> Section:
    """A verdict on each claim of the paper, with the numbers behind it."""
    metric = collection.choose_metric()
    rows, data = [], []
    claims = [
        (f"{claim} ({c.label})", saves, c)
        for c in itertools.chain(*COMPARISONS.values())
        for claim, saves in ((c.saves, True), (c.improves, False))
        if claim
    ]
    for text, saves, c in claims:
        outcome = compare(c, metric, collection)
        verdict = outcome.decide(saves)
        shown = f"{verdict}: {outcome.missing}" if outcome.missing else verdict
        rows.append(Row(text, (shown, *outcome.cells), outcome.points is not None))
        data.append({"claim": text, "verdict": verdict, **outcome._asdict()})
    row, stops = judge_gates(collection)
    notes = [f"Ours: {collection.describe(list(collection.runs))}."]
    if "stops" in stops:
        shares = ", ".join(f"{share:.1f} at {name}" for name, share in stops["stops"].items())
        drawn = "In the paper's Figure 3, res1 and res5 stop the most."
        notes.insert(0, f"Percent of the frames stopped by each gate: {shares}. {drawn}")
    columns = ("", "verdict", "paper", "ours", "95 % interval", "GFLOPs, ratio")
    return Section(
        "claims",
        "The paper's claims and our verdicts",
        lead=(
            f"Differences are in points of {TITLES[metric]} on {collection.title}; intervals cover "
            "the choice of videos. A claim is seen if its interval lies above zero, and the "
            "opposite is seen if it lies below. A saving is seen if the method costs less and the "
            f"interval lies above a loss of {LITTLE:g} point. Otherwise a claim is not "
            "decided.",
        ),
        tables=(Table("Claims", columns, (*rows, row)),),
        notes=tuple(notes),
        data={"metric": metric, "claims": [*data, stops]},
    )


def judge_gates(collection: Collection) -> tuple[Row, dict[str, Any]]:
    """Whether the first and the last gate stop more frames than any other, on average."""
    text, verdict, stops = "The first and the last gate stop the most frames", NOT_RUN, {}
    runs = collection.find("sofnet")
    if runs and len(runs[0].stopping) > 2:  # otherwise there is none between them
        shares = [run.shares(early=True) for run in runs]
        means = {name: measure(own[name] for own in shares) for name in runs[0].stopping}
        stops = {name: value.mean for name, value in means.items() if value}
        first, *between, last = stops.values()
        verdict = "not seen"
        if first > max(between):
            verdict = SEEN if last > max(between) else "seen for the first gate only"
    row = Row(text, (verdict, *[""] * 4), measured=bool(stops))
    return row, {"claim": text, "verdict": verdict} | ({"stops": stops} if stops else {})
