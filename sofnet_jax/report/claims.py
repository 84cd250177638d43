"""The paper's claims, and the verdict of our runs on each."""

from typing import Any, NamedTuple

from sofnet_jax.report import comparison
from sofnet_jax.report.bootstrap import TITLES
from sofnet_jax.report.collection import Collection, measure
from sofnet_jax.report.comparison import Comparison, Outcome, compare
from sofnet_jax.report.figures import read_shares
from sofnet_jax.report.part import Part, Row, Table

LITTLE = 0.01  # accuracy that may be lost for savings, throughout the interval
SEEN, OPPOSITE, OPEN, NOT_RUN = "seen", "the opposite is seen", "not decided", "not run"
NOTHING_SAVED = "not seen: nothing is saved"


class Claim(NamedTuple):
    """A claim that a comparison decides: `a` is more accurate, or with `saves`, cheaper."""

    text: str
    comparison: Comparison
    saves: bool = False


CLAIMS = (
    Claim("The gates save computation without loss", comparison.GATES, saves=True),
    Claim("The gates improve accuracy", comparison.GATES),
    Claim("Temporal modelling helps", comparison.MEMORY),
    Claim("Temporal modelling helps", comparison.MEMORY_ALONE),
    Claim("Guidance helps", comparison.GUIDANCE),
    Claim("Guidance helps", comparison.GUIDANCE_ALONE),
    Claim("Early termination saves computation at little loss", comparison.EARLY_END, saves=True),
    Claim("The cost in the loss saves computation", comparison.COST, saves=True),
    Claim("The inner classifiers help", comparison.CLASSIFIERS),
    Claim("Self-supervision helps", comparison.SELF),
    Claim("Larger frames help", comparison.LARGER),
    Claim("Larger frames help", comparison.LARGEST),
    Claim("SoF-Net improves TSM", comparison.ON_TSM),
    Claim("SoF-Net improves TSM", comparison.ON_TSM_OFFLINE),
    Claim("TSM improves SoF-Net", comparison.SHIFT),
    Claim("TSM improves TSN", comparison.SHIFT_ALONE),
)


def decide(outcome: Outcome, saves: bool) -> str:
    """The verdict on a claim.

    Seen if `a` is more accurate than `b` throughout the interval; with `saves`, if it costs less
    and loses at most `LITTLE` accuracy throughout the interval.
    """
    difference, least = outcome.difference, -LITTLE if saves else 0.0
    if difference is None:
        return NOT_RUN
    if saves and (outcome.cost is None or outcome.cost >= 1):
        return NOTHING_SAVED
    if difference.low > least:
        return SEEN
    return OPPOSITE if difference.high < least else OPEN


def create_claims(collection: Collection) -> Part:
    """A verdict on each claim, with the numbers behind it."""
    metric = collection.choose_metric()
    rows, data = [], []
    for claim in CLAIMS:
        outcome = compare(claim.comparison, metric, collection)
        text, verdict = f"{claim.text} ({claim.comparison.label})", decide(outcome, claim.saves)
        shown = f"{verdict}: {outcome.missing}" if outcome.missing else verdict
        rows.append(Row(text, (shown, *outcome.cells), outcome.difference is not None))
        data.append({"claim": text, "verdict": verdict, **outcome.data})
    row, stops = judge_gates(collection)
    notes = [f"Ours: {collection.describe(list(collection.runs))}."]
    if "stops" in stops:
        shares = ", ".join(f"{share:.1f} at {name}" for name, share in stops["stops"].items())
        drawn = "In the paper's Figure 3, res1 and res5 stop the most."
        notes.insert(0, f"Percent of the frames stopped by each gate: {shares}. {drawn}")
    columns = ("", "verdict", "paper", "ours", "95 % interval", "GFLOPs, ratio")
    return Part(
        "claims",
        "The paper's claims and our verdicts",
        lead=(
            f"Differences are in points of {TITLES[metric]} on {collection.title}; intervals cover "
            "the choice of videos. A claim is seen if its interval lies above zero, and the "
            "opposite is seen if it lies below. A saving is seen if the method costs less and the "
            f"interval lies above a loss of {100 * LITTLE:g} point. Otherwise a claim is not "
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
    if runs and len(runs[0].gate_names) > 2:  # otherwise there is none between them
        shares = [read_shares(run) for run in runs]
        means = {name: measure(own[name] for own in shares) for name in runs[0].gate_names}
        stops = {name: value.mean for name, value in means.items() if value}
        first, *between, last = stops.values()
        verdict = "not seen"
        if first > max(between):
            verdict = SEEN if last > max(between) else "seen for the first gate only"
    row = Row(text, (verdict, *[""] * 4), measured=bool(stops))
    return row, {"claim": text, "verdict": verdict} | ({"stops": stops} if stops else {})
