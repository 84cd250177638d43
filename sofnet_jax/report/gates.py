"""What the gates keep, against the annotated action: beyond the paper."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sofnet_jax.report.ablations import METHODS
from sofnet_jax.report.collection import Collection, Run, measure
from sofnet_jax.report.comparison import Side
from sofnet_jax.report.figures import read_share
from sofnet_jax.report.part import Part, Row, Table
from sofnet_jax.report.relevance import Relevance, compute_relevance

DETAILED = ("sofnet", "sofnet_tsm")  # of which inside and outside are told


def create_gates(collection: Collection) -> Part:
    """Precision and recall of the kept frames, and what each gate does inside and outside.

    Raises:
        UserError: predictions that cannot be read.
    """
    sides = list_sides(collection)
    found = {side: _read_relevances(collection, side) for side in sides}
    known = {side: list(values.values()) for side, values in found.items() if values}
    kinds = (*(collection.find(sides[0].method)[0].gate_names if sides else ()), "exit", "used")
    tables = [
        Table(
            "Kept frames against the annotated action, percent",
            ("", "inside, of all frames", "precision", "recall"),
            tuple(_create_relevance_row(side, values) for side, values in known.items()),
        ),
        Table(
            "What becomes of frames inside and outside, percent",
            ("", *kinds),
            tuple(
                _create_side_row(side, where, values)
                for side, values in known.items()
                if side.method in DETAILED
                for where in ("inside", "outside")
            ),
        ),
        Table(
            "What becomes of all frames, percent",
            ("", *kinds),
            tuple(_create_stop_row(side, collection) for side in sides),
        ),
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
                {"method": side.method, "early": side.early, "seed": run.seed, **_describe(value)}
                for side, values in found.items()
                for run, value in values.items()
            ]
        },
    )


def list_sides(collection: Collection) -> list[Side]:
    """The methods with gates that were run, and SoF-Net with early termination as well."""
    sides = []
    for name, method in METHODS.items():
        if collection.find(name) and method.changes.get("model.gates") != ():
            sides.append(Side(name))
            if name == "sofnet":
                sides.append(Side(name, early=True))
    return sides


def _read_relevances(collection: Collection, side: Side) -> dict[Run, Relevance]:
    """Of the runs whose videos are annotated."""
    found = {}
    for run in collection.find(side.method):
        value = compute_relevance(*run.predictions, **run.rule if side.early else {})
        if value is not None:
            found[run] = value
    return found


def _name(side: Side) -> str:
    return METHODS[side.method].title + (", early end" if side.early else "")


def _summarise(numbers: Sequence[float]) -> str:
    spread = f" ± {np.std(numbers, ddof=1):.1f}" if len(numbers) > 1 else ""
    return f"{np.mean(numbers):.1f}{spread}"


def _create_relevance_row(side: Side, values: Sequence[Relevance]) -> Row:
    names = "share", "precision", "recall"
    cells = [_summarise([100 * getattr(value, name) for value in values]) for name in names]
    return Row(_name(side), tuple(cells))


def _create_side_row(side: Side, where: str, values: Sequence[Relevance]) -> Row:
    shares: list[Mapping[str, float]] = [getattr(value, where) for value in values]
    cells = [_summarise([100 * share[kind] for share in shares]) for kind in shares[0]]
    return Row(f"{_name(side)}, {where}", tuple(cells))


def _create_stop_row(side: Side, collection: Collection) -> Row:
    runs = collection.find(side.method)
    shares = [
        measure(runs, functools.partial(read_share, kind=kind, early=side.early))
        for kind in (*runs[0].gate_names, "exit", "used")
    ]
    return Row(_name(side), tuple(value.format(".1f") if value else "" for value in shares))


def _describe(relevance: Relevance) -> dict[str, Any]:
    scalars = {name: getattr(relevance, name) for name in ("share", "precision", "recall")}
    return scalars | {"inside": dict(relevance.inside), "outside": dict(relevance.outside)}
