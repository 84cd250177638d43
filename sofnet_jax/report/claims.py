"""What the paper claims, and whether it is seen in our runs."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sofnet_jax.report.bootstrap import Metric
from sofnet_jax.report.collection import Collection, measure
from sofnet_jax.report.comparison import Comparison, Outcome, Side, compare, format_interval
from sofnet_jax.report.figures import read_share
from sofnet_jax.report.part import Part, Row, Table
from sofnet_jax.report.tables import EARLY, SOFNET, TSN

LITTLE = 0.01  # loss of accuracy that early termination may cost throughout the interval
SEEN, OPPOSITE, OPEN, NOT_RUN = "seen", "the opposite is seen", "not decided", "not run"
NOTHING_SAVED = "not seen: nothing is saved"


@dataclass(frozen=True)
class Claim:
    """A claim that a comparison decides.

    Attributes:
        text: what is claimed.
        decide: the verdict on an outcome that was run.
    """

    text: str
    comparison: Comparison
    decide: Callable[[Outcome], str]


def decide_by_sign(outcome: Outcome) -> str:
    """Seen if a is more accurate than b throughout the interval."""
    difference = outcome.difference
    assert difference is not None
    if not difference.excludes_zero:
        return OPEN
    return SEEN if difference.mean > 0 else OPPOSITE


def decide_by_saving(outcome: Outcome) -> str:
    """Seen if it costs less, and throughout the interval at most `LITTLE` accuracy."""
    assert outcome.difference is not None and outcome.cost is not None
    if outcome.cost >= 1:
        return NOTHING_SAVED
    if outcome.difference.high < -LITTLE:
        return OPPOSITE
    return SEEN if outcome.difference.low > -LITTLE else OPEN


_TSM, _OFFLINE = Side("sofnet_tsm"), Side("tsm")
_UNGUIDED = Side("unguided")
CLAIMS = (
    Claim(
        "The gates save computation at no loss (SoF-Net − TSN)",
        Comparison("SoF-Net − TSN", SOFNET, TSN, 1.9),
        decide_by_saving,
    ),
    Claim(
        "The gates make it more accurate (SoF-Net − TSN)",
        Comparison("SoF-Net − TSN", SOFNET, TSN, 1.9),
        decide_by_sign,
    ),
    Claim(
        "Temporal modelling helps (LSTM − fully connected, with guidance)",
        Comparison("temporal", SOFNET, Side("fc"), 0.9),
        decide_by_sign,
    ),
    Claim(
        "Temporal modelling helps (LSTM − fully connected, without guidance)",
        Comparison("temporal", _UNGUIDED, Side("fc_unguided"), 0.7),
        decide_by_sign,
    ),
    Claim(
        "Guidance helps (with temporal modelling)",
        Comparison("guidance", SOFNET, _UNGUIDED, 0.6),
        decide_by_sign,
    ),
    Claim(
        "Guidance helps (without temporal modelling)",
        Comparison("guidance", Side("fc"), Side("fc_unguided"), 0.4),
        decide_by_sign,
    ),
    Claim(
        "Early termination saves at little loss",
        Comparison("early end", EARLY, SOFNET, -0.3),
        decide_by_saving,
    ),
    Claim(
        "The cost in the loss saves computation (without L_pg)",
        Comparison("α = 0.9 − α = 1", _UNGUIDED, Side("alpha1_unguided"), -0.5),
        decide_by_saving,
    ),
    Claim(
        "The inner classifiers help (α = 1: β = 0.5 − β = 0)",
        Comparison("β = 0.5 − β = 0", Side("alpha1_beta05"), Side("alpha1_beta0"), 0.7),
        decide_by_sign,
    ),
    Claim(
        "Self-supervision helps (α = 1: β = 0.5 − β = 1)",
        Comparison("β = 0.5 − β = 1", Side("alpha1_beta05"), Side("alpha1_beta1"), 1.2),
        decide_by_sign,
    ),
    Claim(
        "Larger frames help (192 − 168)",
        Comparison("192 − 168", Side("sofnet_192"), SOFNET, 0.8),
        decide_by_sign,
    ),
    Claim(
        "Larger frames help (224 − 168)",
        Comparison("224 − 168", Side("sofnet_224"), SOFNET, 1.5),
        decide_by_sign,
    ),
    Claim(
        "SoF-Net improves TSM (both shift online)",
        Comparison("SoF-Net with TSM − TSM", _TSM, Side("tsm_online"), 1.1),
        decide_by_sign,
    ),
    Claim(
        "SoF-Net improves TSM (both shift offline)",
        Comparison("SoF-Net with TSM − TSM", Side("sofnet_tsm_offline"), _OFFLINE, 1.1),
        decide_by_sign,
    ),
    Claim(
        "TSM helps SoF-Net (SoF-Net with TSM − SoF-Net)",
        Comparison("SoF-Net with TSM − SoF-Net", _TSM, SOFNET, -1.5),
        decide_by_sign,
    ),
    Claim(
        "TSM helps TSN (TSM − TSN)", Comparison("TSM − TSN", _OFFLINE, TSN, -0.7), decide_by_sign
    ),
)


def create_claims(collection: Collection) -> Part:
    """A verdict on each claim, with the numbers that it rests on."""
    metric: Metric = collection.choose_metric()
    rows, data = [], []
    for claim in CLAIMS:
        outcome = compare(claim.comparison, metric, collection)
        verdict = claim.decide(outcome) if outcome.difference else NOT_RUN
        rows.append(_create_row(claim, outcome, verdict))
        data.append({"claim": claim.text, "verdict": verdict, **_describe(outcome)})
    row, stops = judge_gates(collection)
    rows.append(row)
    data.append(stops)
    columns = ("", "verdict", "paper", "ours", "95 % interval", "GFLOPs, ratio")
    title = {"map": "mAP", "top1": "top-1"}[metric]
    return Part(
        "claims",
        "What the paper claims, and what is seen here",
        lead=(
            f"Differences in points of {title} on {collection.title}. Seen: the paired interval "
            "over the choice of videos lies above zero; for savings, less is computed and it lies "
            f"above a loss of {100 * LITTLE:g} point. The opposite: it lies below. Not decided: it "
            "does neither.",
        ),
        tables=(Table("Claims", columns, tuple(rows)),),
        notes=(
            *([describe_stops(stops["stops"])] if "stops" in stops else []),
            f"Ours: {collection.describe(list(collection.runs))}.",
        ),
        data={"metric": metric, "claims": data},
    )


def judge_gates(collection: Collection) -> tuple[Row, dict[str, Any]]:
    """Whether the first and the last gate stop more frames than any other, on average."""
    text = "The first and the last gate stop most"
    runs = collection.find("sofnet")
    if not runs or len(runs[0].gate_names) < 3:  # of fewer, there is none between
        row = Row(text, (NOT_RUN, *[""] * 4), measured=False)
        return row, {"claim": text, "verdict": NOT_RUN}
    shares = {}
    for name in runs[0].gate_names:
        value = measure(runs, functools.partial(read_share, kind=name))
        shares[name] = value.mean if value else 0.0
    first, *between, last = shares.values()
    verdict = SEEN if min(first, last) > max(between, default=0.0) else "not seen"
    if verdict != SEEN and first > max(between, default=0.0):
        verdict = "seen of the first alone"
    row = Row(text, (verdict, *[""] * 4))
    return row, {"claim": text, "verdict": verdict, "stops": shares}


def describe_stops(shares: Mapping[str, float]) -> str:
    """Where frames stop, as a sentence."""
    stops = ", ".join(f"{share:.1f} at {name}" for name, share in shares.items())
    return f"Of 100 frames are stopped: {stops}; the paper draws res1 and res5 highest (Figure 3)."


def _create_row(claim: Claim, outcome: Outcome, verdict: str) -> Row:
    paper, difference = outcome.comparison.paper, outcome.difference
    cells = (
        verdict if not outcome.missing else f"{verdict}: {outcome.missing}",
        "" if paper is None else f"{paper:+.1f}",
        "" if difference is None else f"{100 * difference.mean:+.1f}",
        "" if difference is None else format_interval(difference),
        "" if outcome.cost is None else f"{outcome.cost:.2f}",
    )
    return Row(claim.text, cells, measured=difference is not None)


def _describe(outcome: Outcome) -> dict[str, Any]:
    difference = outcome.difference
    return {
        "paper": outcome.comparison.paper,
        "points": difference and 100 * difference.mean,
        "interval": difference and [100 * difference.low, 100 * difference.high],
        "gflops_ratio": outcome.cost,
        "missing": outcome.missing,
    }
