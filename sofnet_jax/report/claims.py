"""The paper's claims, and the verdict of our runs on each."""

import functools
from dataclasses import dataclass
from typing import Any

from sofnet_jax.report.bootstrap import TITLES
from sofnet_jax.report.collection import Collection, measure
from sofnet_jax.report.comparison import EARLY, SOFNET, TSN, Comparison, Outcome, Side, compare
from sofnet_jax.report.figures import read_share
from sofnet_jax.report.part import Part, Row, Table

LITTLE = 0.01  # accuracy that may be lost for savings, throughout the interval
SEEN, OPPOSITE, OPEN, NOT_RUN = "seen", "the opposite is seen", "not decided", "not run"
NOTHING_SAVED = "not seen: nothing is saved"


@dataclass(frozen=True)
class Claim(Comparison):
    """A claim that a comparison decides: `a` is more accurate, or with `saves`, cheaper."""

    saves: bool = False


_UNGUIDED, _FC, _FC_UNGUIDED = Side("unguided"), Side("fc"), Side("fc_unguided")
_TSM, _TSM_ONLINE, _TSM_OFFLINE = Side("sofnet_tsm"), Side("tsm_online"), Side("tsm")
_BETA_0, _BETA_05, _BETA_1 = (Side(f"alpha1_beta{digits}") for digits in ("0", "05", "1"))
CLAIMS = (
    Claim("The gates save computation at no loss (SoF-Net − TSN)", SOFNET, TSN, 1.9, saves=True),
    Claim("The gates make it more accurate (SoF-Net − TSN)", SOFNET, TSN, 1.9),
    Claim("Temporal modelling helps (LSTM − fully connected, with guidance)", SOFNET, _FC, 0.9),
    Claim(
        "Temporal modelling helps (LSTM − fully connected, without guidance)",
        *(_UNGUIDED, _FC_UNGUIDED, 0.7),
    ),
    Claim("Guidance helps (with temporal modelling)", SOFNET, _UNGUIDED, 0.6),
    Claim("Guidance helps (without temporal modelling)", _FC, _FC_UNGUIDED, 0.4),
    Claim("Early termination saves at little loss", EARLY, SOFNET, -0.3, saves=True),
    Claim(
        "The cost in the loss saves computation (without L_pg)",
        *(_UNGUIDED, Side("alpha1_unguided"), -0.5),
        saves=True,
    ),
    Claim("The inner classifiers help (α = 1: β = 0.5 − β = 0)", _BETA_05, _BETA_0, 0.7),
    Claim("Self-supervision helps (α = 1: β = 0.5 − β = 1)", _BETA_05, _BETA_1, 1.2),
    Claim("Larger frames help (192 − 168)", Side("sofnet_192"), SOFNET, 0.8),
    Claim("Larger frames help (224 − 168)", Side("sofnet_224"), SOFNET, 1.5),
    Claim("SoF-Net improves TSM (both shift online)", _TSM, _TSM_ONLINE, 1.1),
    Claim(
        "SoF-Net improves TSM (both shift offline)", Side("sofnet_tsm_offline"), _TSM_OFFLINE, 1.1
    ),
    Claim("TSM helps SoF-Net (SoF-Net with TSM − SoF-Net)", _TSM, SOFNET, -1.5),
    Claim("TSM helps TSN (TSM − TSN)", _TSM_OFFLINE, TSN, -0.7),
)


def decide_by_sign(outcome: Outcome) -> str:
    """Seen if `a` is more accurate than `b` throughout the interval."""
    difference = outcome.difference
    assert difference is not None
    if not difference.excludes_zero:
        return OPEN
    return SEEN if difference.mean > 0 else OPPOSITE


def decide_by_saving(outcome: Outcome) -> str:
    """Seen if `a` costs less and loses at most `LITTLE` accuracy throughout the interval."""
    assert outcome.difference is not None and outcome.cost is not None
    if outcome.cost >= 1:
        return NOTHING_SAVED
    if outcome.difference.high < -LITTLE:
        return OPPOSITE
    return SEEN if outcome.difference.low > -LITTLE else OPEN


def create_claims(collection: Collection) -> Part:
    """A verdict on each claim, with the numbers behind it."""
    metric = collection.choose_metric()
    rows, data = [], []
    for claim in CLAIMS:
        outcome = compare(claim, metric, collection)
        run = outcome.difference is not None
        decide = decide_by_saving if claim.saves else decide_by_sign
        verdict = decide(outcome) if run else NOT_RUN
        shown = f"{verdict}: {outcome.missing}" if outcome.missing else verdict
        rows.append(Row(claim.label, (shown, *outcome.cells), measured=run))
        data.append({"claim": claim.label, "verdict": verdict, **outcome.data})
    row, stops = judge_gates(collection)
    notes = [f"Ours: {collection.describe(list(collection.runs))}."]
    if "stops" in stops:
        shares = ", ".join(f"{share:.1f} at {name}" for name, share in stops["stops"].items())
        notes.insert(
            0,
            f"Of 100 frames are stopped: {shares}; the paper draws res1 and res5 highest "
            "(Figure 3).",
        )
    columns = ("", "verdict", "paper", "ours", "95 % interval", "GFLOPs, ratio")
    return Part(
        "claims",
        "What the paper claims, and what is seen here",
        lead=(
            f"Differences in points of {TITLES[metric]} on {collection.title}. Seen: the paired "
            "interval over the choice of videos lies above zero; for savings, less is computed and "
            f"it lies above a loss of {100 * LITTLE:g} point. The opposite: it lies below. Not "
            "decided: it does neither.",
        ),
        tables=(Table("Claims", columns, (*rows, row)),),
        notes=tuple(notes),
        data={"metric": metric, "claims": [*data, stops]},
    )


def judge_gates(collection: Collection) -> tuple[Row, dict[str, Any]]:
    """Whether the first and the last gate stop more frames than any other, on average."""
    text = "The first and the last gate stop most"
    runs = collection.find("sofnet")
    if not runs or len(runs[0].gate_names) < 3:  # otherwise there is none between them
        row = Row(text, (NOT_RUN, *[""] * 4), measured=False)
        return row, {"claim": text, "verdict": NOT_RUN}
    shares = {}
    for name in runs[0].gate_names:
        value = measure(runs, functools.partial(read_share, kind=name))
        shares[name] = value.mean if value else 0.0
    first, *between, last = shares.values()
    verdict = "not seen"
    if first > max(between):
        verdict = SEEN if last > max(between) else "seen of the first alone"
    return Row(text, (verdict, *[""] * 4)), {"claim": text, "verdict": verdict, "stops": shares}
