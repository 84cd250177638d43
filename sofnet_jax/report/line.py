"""Tables whose rows are methods: the paper's figure, ours, and the difference, column by column."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sofnet_jax.report.bootstrap import Metric
from sofnet_jax.report.collection import Collection, Run, Value, measure
from sofnet_jax.report.paper import Published
from sofnet_jax.report.part import Row, Table

NOT_RUN, REPORTED = "not run", "reported"


@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        label: its label.
        paper: what the paper reports of it; None if it does not have it.
        method: ours, a key of `METHODS`; None of systems that are not implemented here.
        early: whether videos end early.
    """

    label: str
    paper: Published | None = None
    method: str | None = None
    early: bool = False


@dataclass(frozen=True)
class Measure:
    """A group of columns: paper, ours, difference.

    Attributes:
        field: of `Published`, or "share of X", in percent of X GFLOPs a video.
        title: with its unit.
        spec: format of ours.
        paper_spec: format of the paper's; "" if it does not report it: then there is one column.
        read: the number of a run, in the unit of the title; None if it has none.
    """

    field: str
    title: str
    spec: str
    paper_spec: str
    read: Callable[[Run, bool], float | None]

    @property
    def columns(self) -> tuple[str, ...]:
        """Their headings."""
        return ("paper", "ours", "difference") if self.paper_spec else ("ours",)


def create_accuracy(metric: Metric, paper: str = "") -> Measure:
    """mAP or top-1 in percent; `paper` names the paper's, if it is another."""
    title = {"map": "mAP %", "top1": "top-1 %"}[metric]
    if paper and paper != title:
        title = f"{title} (paper: {paper})"
    return Measure(
        *("accuracy", title, ".1f", ".1f"), lambda run, early: 100 * run.metrics(early)[metric]
    )


PER_FRAME = Measure(
    *("per_frame", "GFLOPs/f", ".3g", ".2f"),
    lambda run, early: run.metrics(early)["gflops_per_frame"],
)
PER_VIDEO = Measure(
    *("per_video", "GFLOPs/V", ".3g", ".1f"),
    lambda run, early: run.metrics(early)["gflops_per_video"],
)
USAGE = Measure(
    *("usage", "frames used %", ".1f", ".1f"),
    lambda run, early: 100 * run.metrics(early)["usage"],
)


def create_share(collection: Collection, paper_tsn: float) -> Measure | None:
    """GFLOPs of a video in percent of TSN's, which the smallest frames of a table are for."""
    tsn = measure(collection.find("tsn"), lambda run: run.metrics(False)["gflops_per_video"])
    if tsn is None:
        return None
    return Measure(
        f"share of {paper_tsn}",
        "GFLOPs, % of TSN's",
        ".0f",
        ".0f",
        lambda run, early: 100 * run.metrics(early)["gflops_per_video"] / tsn.mean,
    )


def create_line_table(
    caption: str, lines: Sequence[Line], measures: Sequence[Measure], collection: Collection
) -> Table:
    """A row for each line; what was not run says so."""
    groups = tuple((each.title, len(each.columns)) for each in measures)
    columns = ("", *(column for each in measures for column in each.columns), "runs")
    rows = tuple(_create_row(line, measures, collection) for line in lines)
    return Table(caption, columns, rows, (*groups, ("", 1)))


def create_line_data(
    lines: Sequence[Line], measures: Sequence[Measure], collection: Collection
) -> list[dict[str, Any]]:
    """The same for JSON, unrounded, with every run."""
    return [
        {
            "label": line.label,
            "method": line.method,
            "early": line.early,
            "measures": {
                each.field: {
                    "title": each.title,
                    "paper": read_paper(line.paper, each),
                    "ours": vars(value) if (value := read_ours(line, each, collection)) else None,
                }
                for each in measures
            },
            "runs": [
                {"folder": str(run.folder), "seed": run.seed, "commit": run.commit}
                for run in find_runs(line, collection)
            ],
        }
        for line in lines
    ]


def read_paper(paper: Published | None, measure: Measure) -> float | None:
    """What the paper reports."""
    if paper is None:
        return None
    if measure.field.startswith("share of "):
        whole = float(measure.field.removeprefix("share of "))
        return None if paper.per_video is None else 100 * paper.per_video / whole
    return getattr(paper, measure.field) if measure.paper_spec else None


def read_ours(line: Line, each: Measure, collection: Collection) -> Value | None:
    """What was measured here."""
    return measure(find_runs(line, collection), lambda run: each.read(run, line.early))


def find_runs(line: Line, collection: Collection) -> tuple[Run, ...]:
    """The runs of a line."""
    return collection.find(line.method) if line.method else ()


def _create_row(line: Line, measures: Sequence[Measure], collection: Collection) -> Row:
    cells: list[str] = []
    runs = find_runs(line, collection)
    for each in measures:
        paper, ours = read_paper(line.paper, each), read_ours(line, each, collection)
        own = "" if ours is None else ours.format(each.spec)
        if not each.paper_spec:
            cells.append(own)
            continue
        gap = None if paper is None or ours is None else ours.mean - paper
        cells += [
            "" if paper is None else format(paper, each.paper_spec),
            own,
            "" if gap is None else format(gap, f"+{each.paper_spec}"),
        ]
    if runs:
        seeds = " ".join(str(run.seed) for run in runs)
        commits = ", ".join(sorted({run.commit for run in runs}))
        remark = f"{line.method}, seed{'s' if len(runs) > 1 else ''} {seeds}, {commits}"
    else:
        remark = NOT_RUN if line.method else REPORTED
    return Row(line.label, (*cells, remark), measured=bool(runs))


def list_methods(lines: Sequence[Line]) -> Mapping[str, None]:
    """The methods of some lines, each once."""
    return dict.fromkeys(line.method for line in lines if line.method)
