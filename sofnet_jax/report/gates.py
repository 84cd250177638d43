"""The frames that the gates keep, against the annotated action; not in the paper."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from sofnet_jax.evaluation.metrics import compute_fates
from sofnet_jax.report.ablations import METHODS
from sofnet_jax.report.collection import Collection, Run, measure
from sofnet_jax.report.comparison import Side
from sofnet_jax.report.figures import read_share
from sofnet_jax.report.part import Part, Row, Table
from sofnet_jax.run.predictions import Predictions

DETAILED = ("sofnet", "sofnet_tsm")  # shown inside and outside the action
SCALARS = ("share", "precision", "recall")


class Relevance(NamedTuple):
    """What happens to frames inside and outside the annotated action; all shares in 0…1.

    Attributes:
        share: the frames inside, among all.
        precision: the frames inside, among those kept; NaN if none was kept.
        recall: the frames kept, among those inside; NaN if none is inside.
        inside, outside: the frames there that stop at each gate, by its name; `exit`, never seen
            because of early termination; `used`, kept. They sum to 1; NaN if no frame is there.
    """

    share: float
    precision: float
    recall: float
    inside: Mapping[str, float]
    outside: Mapping[str, float]


def compute_relevance(
    predictions: Predictions,
    gate_names: tuple[str, ...],
    *,
    threshold: float | None = None,
    min_frames: int = 0,
) -> Relevance | None:
    """Over all annotated frames, with early termination (Eq. 7) if `threshold` is given.

    None if nothing is annotated.
    """
    p = predictions
    inside, outside = p.relevant == 1, p.relevant == 0
    known = inside | outside
    if not known.any():
        return None
    kept, seen, _ = compute_fates(p, len(gate_names), threshold, min_frames)
    fates = {name: (p.stop == k) & seen for k, name in enumerate(gate_names)}
    fates |= {"exit": ~seen, "used": kept & seen}
    return Relevance(
        share=_share(inside, known),
        precision=_share(inside, known & fates["used"]),
        recall=_share(fates["used"], inside),
        inside={name: _share(fate, inside) for name, fate in fates.items()},
        outside={name: _share(fate, outside) for name, fate in fates.items()},
    )


def _share(of: Bool[np.ndarray, "v t"], among: Bool[np.ndarray, "v t"]) -> float:
    return float(of[among].mean()) if among.any() else float("nan")


def create_gates(collection: Collection) -> Part:
    """Precision and recall of the kept frames, and what each gate does inside and outside.

    Raises:
        UserError: predictions cannot be read.
    """
    sides = list_sides(collection)
    found = {side: _read_relevances(collection, side) for side in sides}
    known = {side: list(values.values()) for side, values in found.items() if values}
    kinds = (*(collection.find(sides[0].method)[0].gate_names if sides else ()), "exit", "used")
    whole = [
        Row(_name(side), _average([v._asdict() for v in values], SCALARS))
        for side, values in known.items()
    ]
    detailed = [
        Row(f"{_name(side)}, {where}", _average([getattr(v, where) for v in values], kinds))
        for side, values in known.items()
        if side.method in DETAILED
        for where in ("inside", "outside")
    ]
    stops = []
    for side in sides:
        runs = collection.find(side.method)
        read = functools.partial(read_share, early=side.early)
        shares = [measure(runs, functools.partial(read, kind=kind)) for kind in kinds]
        stops.append(Row(_name(side), tuple(v.format(".1f") if v else "" for v in shares)))
    columns = ("", "inside, of all frames", "precision", "recall")
    tables = [
        Table("Kept frames against the annotated action, percent", columns, tuple(whole)),
        Table("What becomes of frames inside and outside, percent", ("", *kinds), tuple(detailed)),
        Table("What becomes of all frames, percent", ("", *kinds), tuple(stops)),
    ]
    note = f"{collection.describe([side.method for side in sides])}."
    return Part(
        "gates",
        "What the gates keep",
        lead=(
            "Precision: the share of the kept frames that lie in the annotated action. Recall: the "
            "share of its frames that are kept. Not in the paper.",
        ),
        tables=tuple(table for table in tables if table.rows),
        notes=(note, *([] if known else ["No run has annotated segments."])),
        data={
            "runs": [
                {"method": side.method, "early": side.early, "seed": run.seed, **value._asdict()}
                for side, values in found.items()
                for run, value in values.items()
            ]
        },
    )


def list_sides(collection: Collection) -> list[Side]:
    """The methods with gates that were run, SoF-Net with early termination, too."""
    sides = []
    for name, method in METHODS.items():
        if collection.find(name) and method.changes.get("model.gates") != ():
            sides.append(Side(name))
            if name == "sofnet":
                sides.append(Side(name, early=True))
    return sides


def _read_relevances(collection: Collection, side: Side) -> dict[Run, Relevance]:
    """By run, where videos are annotated."""
    runs = collection.find(side.method)
    found = {r: compute_relevance(*r.predictions, **r.rule if side.early else {}) for r in runs}
    return {run: value for run, value in found.items() if value is not None}


def _name(side: Side) -> str:
    return METHODS[side.method].title + (", early end" if side.early else "")


def _average(shares: Sequence[Mapping[str, float]], names: Sequence[str]) -> tuple[str, ...]:
    """Mean ± standard deviation of each share, in percent."""
    cells = []
    for name in names:
        numbers = [100 * share[name] for share in shares]
        spread = f" ± {np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else ""
        cells.append(f"{np.mean(numbers):.1f}{spread}")
    return tuple(cells)
