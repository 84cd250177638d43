"""Table 3, of what `python -m sofnet_jax.benchmark runtime` measured."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sofnet_jax.host.errors import UserError
from sofnet_jax.report import paper
from sofnet_jax.report.collection import Collection, Run
from sofnet_jax.report.line import USAGE, Line, Measure, create_line_data, create_line_table
from sofnet_jax.report.part import Part
from sofnet_jax.report.tables import warn

FILE = "runtime.json"
MENTIONED = ("host", "device", "videos", "repeats")
LOOP, PROGRAM = "frame by frame", "as one program"


def create_table3(collection: Collection, workdir: Path) -> Part:
    """Runtime and usage.

    Raises:
        UserError: a damaged runtime.json, or one of another data set.
    """
    measured = _read(workdir / FILE, collection)
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
    reported = paper.TABLE_3
    lines = [
        Line("TSN", reported["TSN"], "tsn"),
        Line("AR-Net", reported["AR-Net"]),
        Line("AdaFocus", reported["AdaFocus"]),
        Line("SoF-Net (168)", reported["SoF-Net (168)"], "sofnet", early=True),
        Line("SoF-Net (192)", reported["SoF-Net (192)"], "sofnet_192", early=True),
        Line("SoF-Net (224)", reported["SoF-Net (224)"], "sofnet_224", early=True),
        Line("SoF-Net with TSM", None, "sofnet_tsm", early=True),
    ]
    if methods:
        note = (
            f"Times: {measured['host']}; {measured['device']}; {measured['videos']} videos, one at "
            f"a time, median of {measured['repeats']}; one seed of each method. The total is that "
            "times the videos that were evaluated. The paper's: Titan XP, 4,921 videos."
        )
    else:
        note = (
            f"Times were not measured: python -m sofnet_jax.benchmark runtime --workdir={workdir}"
        )
    whose = [line.method for line in lines if line.method]
    unmeasured = [name for name in whose if collection.find(name) and name not in methods]
    if methods and unmeasured:
        note += f" Not measured: {', '.join(unmeasured)}; the same command does."
    return Part(
        "table3",
        "Table 3: runtime and frames used",
        lead=tuple(
            filter(
                None,
                [
                    "SoF-Net in the Python loop, a frame at a time, each as far as the gates let "
                    "it; and as one compiled program, in which no decision returns to Python. With "
                    "early end.",
                    warn(collection, paper.ACTIVITYNET),
                ],
            )
        ),
        tables=(
            create_line_table(
                f"Paper: ActivityNet-v1.3. Ours: {collection.title}.", lines, measures, collection
            ),
        ),
        notes=(note, f"Ours: {collection.describe(whose)}."),
        data={
            "dataset": collection.dataset,
            "runtime": measured,
            "lines": create_line_data(lines, measures, collection),
        },
    )


def _read(path: Path, collection: Collection) -> Mapping[str, Any]:
    """What was measured; nothing if nobody did."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        whose, _ = content["dataset"], [content[name] for name in MENTIONED]
        for own in content["methods"].values():
            times = [own["milliseconds"][way] for way in (LOOP, PROGRAM)]
            if not all(isinstance(time, float) for time in times) or type(own["seed"]) is not int:
                raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{path} is damaged; measure again: python -m sofnet_jax.benchmark runtime "
            f"--workdir={path.parent}"
        ) from None
    if whose != collection.dataset:
        raise UserError(f"{path} is of {whose}, and not of {collection.dataset}")
    return content
