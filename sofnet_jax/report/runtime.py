"""Table 3, from the measurements of `python -m sofnet_jax.benchmark runtime`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sofnet_jax.host.errors import UserError
from sofnet_jax.report import paper
from sofnet_jax.report.collection import Collection, Run
from sofnet_jax.report.section import Section
from sofnet_jax.report.tables import USAGE, Measure, create_line_table

FILE = "runtime.json"
MENTIONED = ("host", "device", "videos", "repeats")
LOOP, PROGRAM = "frame by frame", "as one program"


def create_table3(collection: Collection) -> Section:
    """Runtime and usage.

    Raises:
        UserError: runtime.json is damaged or belongs to another data set.
    """
    measured = _read(collection.folder / FILE, collection)
    methods: Mapping[str, Any] = measured.get("methods", {})

    def read(run: Run, way: str) -> float | None:
        own = methods.get(run.method)
        return own["milliseconds"][way] if own and own["seed"] == run.seed else None

    def read_total(run: Run, early: bool) -> float | None:
        milliseconds = read(run, LOOP)
        return milliseconds and milliseconds * run.metrics(early)["evaluated"] / 1000

    measures = (
        Measure("runtime", "runtime/V, ms", ".2f", ".1f", lambda run, _: read(run, LOOP)),
        Measure("total", "total runtime, s", ".1f", ".1f", read_total),
        Measure("program", "as one program, ms", ".2f", "", lambda run, _: read(run, PROGRAM)),
        USAGE,
    )
    caption = f"Paper: ActivityNet-v1.3. Ours: {collection.title}."
    table, data = create_line_table(caption, paper.TABLE_3, measures, collection)
    names = [line.side.method for line in paper.TABLE_3 if line.side]
    command = f"python -m sofnet_jax.benchmark runtime --workdir={collection.folder}"
    note = f"Times were not measured. To measure them: {command}"
    if methods:
        note = (
            f"Times: {measured['host']}; {measured['device']}; {measured['videos']} videos, one at "
            f"a time; median of {measured['repeats']}; one seed per method. The total is the time "
            "per video times the number of evaluated videos. Paper: Titan XP, 4,921 videos."
        )
        if unmeasured := [name for name in names if collection.find(name) and name not in methods]:
            note += f" Not measured: {', '.join(unmeasured)}. To measure them: {command}"
    lead = (
        "SoF-Net with early exit, first in a Python loop that runs one frame at a time, "
        "then as one compiled program that takes every decision without returning to Python."
    )
    return Section(
        "table3",
        "Table 3: runtime and frames used",
        lead=(lead, *collection.caution(paper.ACTIVITYNET)),
        tables=(table,),
        notes=(note, f"Ours: {collection.describe(names)}."),
        data={"dataset": collection.dataset, "runtime": measured, "lines": data},
    )


def _read(path: Path, collection: Collection) -> Mapping[str, Any]:
    """The measurements; empty if there is no file."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        dataset, _ = content["dataset"], [content[name] for name in MENTIONED]
        for own in content["methods"].values():
            times = [own["milliseconds"][way] for way in (LOOP, PROGRAM)]
            if not all(isinstance(time, float) for time in times) or type(own["seed"]) is not int:
                raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path} is damaged; measure again: python -m sofnet_jax.benchmark runtime "
            f"--workdir={path.parent}"
        ) from None
    if dataset != collection.dataset:
        raise UserError(
            f"{path} was measured on {dataset}, not on {collection.dataset}; choose that data set "
            "with --dataset, or measure again"
        )
    return content
