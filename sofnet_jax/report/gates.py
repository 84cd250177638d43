"""The frames that the gates keep, against the annotated action; not in the paper."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from sofnet_jax.evaluation.metrics import compute_fates
from sofnet_jax.report.ablations import METHODS, Side
from sofnet_jax.report.collection import Collection, measure
from sofnet_jax.report.section import Row, Section, Table
from sofnet_jax.run.predictions import Predictions

DETAILED = ("sofnet", "sofnet_tsm")  # shown inside and outside the action
SCALARS = ("share", "precision", "recall")
ACTION = "Kept frames and the annotated action, percent"
PLACES = "Frames inside and outside the action, percent"
ALL = "All frames, percent"


class Relevance(NamedTuple):
    """Shares in 0…1 of the frames inside and outside the annotated action.

    Attributes:
        share: the frames inside, among all.
        precision: the frames inside, among those kept; NaN if none was kept.
        recall: the frames kept, among those inside; NaN if none is inside.
        inside, outside: the frames there that each gate stops; "exit", never observed because of
            early exit; "used", kept. They sum to 1; NaN if no frame is there.
    """

    share: float
    precision: float
    recall: float
    inside: Mapping[str, float]
    outside: Mapping[str, float]


def compute_relevance(
    predictions: Predictions, *, threshold: float | None = None, min_frames: int = 0
) -> Relevance | None:
    """Over all annotated frames, with early exit (Eq. 7) if `threshold` is given.

    None if nothing is annotated.
    """
    p = predictions
    inside, outside = p.relevant == 1, p.relevant == 0
    known = inside | outside
    if not known.any():
        return None
    by_step = compute_fates(p, threshold, min_frames)
    seen = _by_frame(p, by_step.seen)
    fates = {
        action.name: _by_frame(p, (p.action == k) & by_step.seen)
        for k, action in enumerate(p.actions)
        if not action.uses
    }
    fates |= {"exit": ~seen, "used": _by_frame(p, by_step.used & by_step.seen)}
    return Relevance(
        share=_share(inside, known),
        precision=_share(inside, known & fates["used"]),
        recall=_share(fates["used"], inside),
        inside={name: _share(fate, inside) for name, fate in fates.items()},
        outside={name: _share(fate, outside) for name, fate in fates.items()},
    )


def _by_frame(p: Predictions, steps: Bool[np.ndarray, "v s"]) -> Bool[np.ndarray, "v t"]:
    """Whether one of these steps looked at each frame."""
    frames = np.zeros(p.relevant.shape, bool)
    video, step = np.nonzero(steps)
    frames[video, p.time[video, step]] = True
    return frames


def _share(of: Bool[np.ndarray, "v t"], among: Bool[np.ndarray, "v t"]) -> float:
    return float(of[among].mean()) if among.any() else float("nan")


def create_gates(collection: Collection) -> Section:
    """Precision and recall of the kept frames, and what each gate does inside and outside.

    Raises:
        UserError: predictions cannot be read.
    """
    rows: dict[str, list[Row]] = {ACTION: [], PLACES: [], ALL: []}
    kinds: Sequence[str] = ()
    data = []
    sides = list_sides(collection)
    for side in sides:
        name = METHODS[side.method].title + (", early exit" if side.early else "")
        runs = collection.find(side.method)
        shares = [run.shares(side.early) for run in runs]
        kinds = list(shares[0])
        rows[ALL].append(_create_row(name, shares, kinds, scale=1.0))
        found = {}
        for run in runs:
            value = compute_relevance(run.predictions, **run.rule if side.early else {})
            if value is not None:
                found[run] = value
        if not found:
            continue
        rows[ACTION].append(_create_row(name, [v._asdict() for v in found.values()], SCALARS))
        for where in ("inside", "outside") if side.method in DETAILED else ():
            own = [getattr(value, where) for value in found.values()]
            rows[PLACES].append(_create_row(f"{name}, {where}", own, kinds))
        data += [
            {"method": side.method, "early": side.early, "seed": run.seed, **value._asdict()}
            for run, value in found.items()
        ]
    columns = {ACTION: ("inside, of all frames", *SCALARS[1:])}
    return Section(
        "gates",
        "Which frames the gates keep",
        lead=(
            "Precision is the share of the kept frames that lie inside the annotated action; "
            "recall is the share of the frames inside it that are kept. Not in the paper.",
        ),
        tables=tuple(
            Table(caption, ("", *columns.get(caption, kinds)), tuple(own))
            for caption, own in rows.items()
            if own
        ),
        notes=(
            f"{collection.describe([side.method for side in sides])}.",
            *([] if data else ["No run has annotated segments."]),
        ),
        data={"runs": data},
    )


def list_sides(collection: Collection) -> list[Side]:
    """The methods with gates that were run; SoF-Net with early exit, too."""
    return [
        Side(name, early)
        for name, method in METHODS.items()
        for early in (False, True)[: 2 if name == "sofnet" else 1]
        if collection.find(name) and "model.system" not in method.changes
    ]


def _create_row(
    label: str, shares: Sequence[Mapping[str, float]], names: Sequence[str], scale: float = 100.0
) -> Row:
    """Mean ± standard deviation of each share in percent, over the runs where it is defined."""
    cells = []
    for name in names:
        value = measure(scale * own[name] for own in shares if not math.isnan(own[name]))
        cells.append(value.format(".1f") if value else "")
    return Row(label, tuple(cells))
