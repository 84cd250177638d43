"""The paper's tables of methods: 1, 2, 4, 5, A, B and D."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sofnet_jax.report import paper
from sofnet_jax.report.ablations import METHODS, TSN
from sofnet_jax.report.bootstrap import TITLES, Metric
from sofnet_jax.report.collection import Collection, Run, Value, measure
from sofnet_jax.report.comparisons import create_comparison_table
from sofnet_jax.report.paper import Line
from sofnet_jax.report.section import Row, Section, Table


@dataclass(frozen=True)
class Measure:
    """A group of columns: the paper's number, ours, and the difference.

    Attributes:
        field: its name in the JSON file.
        title: with the unit.
        spec: format of our numbers.
        paper_spec: format of the paper's; "" if it has none, which leaves one column.
        read: a run's number, with or without early exit; None if it has none.
        read_paper: the paper's number; None if it reports none. Default: that of this name.
    """

    field: str
    title: str
    spec: str
    paper_spec: str
    read: Callable[[Run, bool], float | None]
    read_paper: Callable[[Mapping[str, float]], float | None] | None = None

    def find_paper(self, numbers: Mapping[str, float]) -> float | None:
        """The paper's number, None if it reports none."""
        if not self.paper_spec:
            return None
        return self.read_paper(numbers) if self.read_paper else numbers.get(self.field)

    def format(self, paper: float | None, ours: Value | None) -> list[str]:
        """The cells of a row."""
        own = ours.format(self.spec) if ours else ""
        if not self.paper_spec:
            return [own]
        gap = format(ours.mean - paper, f"+{self.paper_spec}") if ours and paper is not None else ""
        return ["" if paper is None else format(paper, self.paper_spec), own, gap]


def _read_metric(name: str, scale: float = 1.0) -> Callable[[Run, bool], float]:
    return lambda run, early: scale * run.metrics(early)[name]


PER_FRAME = Measure("per_frame", "GFLOPs/f", ".3g", ".2f", _read_metric("gflops_per_frame"))
PER_VIDEO = Measure("per_video", "GFLOPs/V", ".3g", ".1f", _read_metric("gflops_per_video"))
USAGE = Measure("usage", "frames used %", ".1f", ".1f", _read_metric("usage", 100.0))


class Design(NamedTuple):
    """A table of methods, as the paper prints it; `of` is the paper's data set."""

    title: str
    lines: Sequence[Line]
    measures: Sequence[Measure]
    of: str = paper.ACTIVITYNET
    lead: tuple[str, ...] = ()


TABLES = {
    "table2": Design(
        *("Table 2: THUMOS'14", paper.TABLE_2, (PER_FRAME, PER_VIDEO)),
        of=paper.THUMOS,
    ),
    "table4": Design("Table 4: components", paper.TABLE_4, (PER_VIDEO,)),
    "table5": Design("Table 5: frame sizes", paper.TABLE_5, (PER_FRAME, PER_VIDEO)),
    "tableA": Design(
        *("Table A: SoF-Net with TSM", paper.TABLE_A, (PER_VIDEO, USAGE)),
        lead=(
            "TSM shifts offline, from the previous and the next frame. SoF-Net shifts online, from "
            "the last kept frame only, because a stopped frame's features are not computed; the "
            "paper does not say which shift it used. SoF-Net with an offline shift can be "
            "evaluated, but it saves no computation.",
        ),
    ),
    "tableB": Design("Table B: mini-Sports1M", paper.TABLE_B, (PER_VIDEO, USAGE), of=paper.SPORTS),
    "tableD": Design("Table D: loss weights", paper.TABLE_D, (PER_VIDEO, USAGE)),
}


def create_table1(collections: Sequence[Collection]) -> Section:
    """SoF-Net beside the systems that the paper compares it with, on one or two data sets."""
    sections = []
    for collection in collections:
        of = collection.dataset if collection.dataset == paper.KINETICS else paper.ACTIVITYNET
        design = Design(
            *("Table 1: comparison with other systems", paper.TABLE_1[of]),
            (PER_FRAME, PER_VIDEO),
            of=of,
            lead=(
                "† marks what the SoF-Net authors reproduced; the numbers of other systems are as "
                "their paper quotes them. SoF-Net uses early exit.",
            ),
        )
        sections.append(_create_section("table1", design, collection))
    return replace(
        sections[0],
        lead=tuple(dict.fromkeys(paragraph for section in sections for paragraph in section.lead)),
        tables=tuple(table for section in sections for table in section.tables),
        notes=tuple(note for section in sections for note in section.notes),
        data={section.data["dataset"]: section.data for section in sections},
    )


def create_table(name: str, collection: Collection) -> Section:
    """A section of one of `TABLES`."""
    return _create_section(name, TABLES[name], collection)


def _create_section(name: str, design: Design, collection: Collection) -> Section:
    """A table of methods, and one of comparisons if there are any."""
    of, lines = design.of, design.lines
    theirs: Metric = "top1" if of in paper.TOP1_DATASETS else "map"
    metric = collection.choose_metric(theirs)
    plain = (line.numbers["per_video"] for line in lines if line.side == TSN)
    tsn_gflops = next(plain, paper.TSN_GFLOPS)
    measures = [*_create_shared(metric, theirs, collection, tsn_gflops), *design.measures]
    caption = f"Paper: {paper.DATASETS[of]}. Ours: {collection.title}."
    table, line_data = create_line_table(caption, lines, measures, collection)
    differences, difference_data = create_comparison_table(name, metric, collection)
    methods = list(dict.fromkeys(line.side.method for line in lines if line.side))
    notes = [f"Ours: {collection.describe(methods)}. Mean ± standard deviation over seeds."]
    if differences.rows:
        notes.append("Intervals: paired bootstrap over the videos, 1,000 resamples.")
    if missing := [method for method in methods if not collection.find(method)]:
        titles = "; ".join(METHODS[method].title for method in missing)
        how = f"python -m sofnet_jax.sweep --methods={','.join(missing)} …"
        notes.append(f"Not run: {titles}. To train them: {how}")
    return Section(
        name,
        design.title,
        lead=(*design.lead, *collection.caution(of)),
        tables=(table, differences) if differences.rows else (table,),
        notes=tuple(notes),
        data={
            "dataset": collection.dataset,
            "paper_dataset": of,
            "metric": metric,
            "lines": line_data,
            "comparisons": difference_data,
        },
    )


def _create_shared(
    metric: Metric, theirs: Metric, collection: Collection, tsn_gflops: float
) -> list[Measure]:
    """Accuracy, and GFLOPs in percent of TSN's at a table's smallest frames if TSN was run."""
    title = f"{TITLES[metric]} %"
    if metric != theirs:
        title = f"{title} (paper: {TITLES[theirs]} %)"
    accuracy = Measure("accuracy", title, ".1f", ".1f", _read_metric(metric, 100.0))
    tsn = measure(run.metrics(False)["gflops_per_video"] for run in collection.find("tsn"))
    if tsn is None:
        return [accuracy]
    share = Measure(
        *(f"share of {tsn_gflops}", "GFLOPs, % of TSN's", ".0f", ".0f"),
        lambda run, early: 100 * run.metrics(early)["gflops_per_video"] / tsn.mean,
        lambda n: 100 * n["per_video"] / tsn_gflops if "per_video" in n else None,
    )
    return [accuracy, share]


def create_line_table(
    caption: str, lines: Sequence[Line], measures: Sequence[Measure], collection: Collection
) -> tuple[Table, list[dict[str, Any]]]:
    """A row for each line, and the same for JSON, unrounded and with every run."""
    rows, data = [], []
    for line in lines:
        method, early = line.side or (None, False)
        runs = collection.find(method) if method else ()
        label = _format_label(line, runs)
        cells: list[str] = []
        numbers = {}
        for each in measures:
            paper = each.find_paper(line.numbers)
            ours = measure(each.read(run, early) for run in runs)
            cells += each.format(paper, ours)
            own = ours and vars(ours)
            numbers[each.field] = {"title": each.title, "paper": paper, "ours": own}
        remark = "not run" if method else "reported"
        if runs:
            seeds = " ".join(str(run.seed) for run in runs)
            commits = ", ".join(sorted({run.commit for run in runs}))
            remark = f"{method}, seed{'s' if len(runs) > 1 else ''} {seeds}, {commits}"
        rows.append(Row(label, (*cells, remark), measured=bool(runs)))
        sources = [{"folder": str(r.folder), "seed": r.seed, "commit": r.commit} for r in runs]
        entry = {"label": label, "method": method, "early": early}
        data.append({**entry, "measures": numbers, "runs": sources})
    headings = [("paper", "ours", "difference") if m.paper_spec else ("ours",) for m in measures]
    groups = [(m.title, len(own)) for m, own in zip(measures, headings, strict=True)]
    columns = ("", *itertools.chain(*headings), "runs")
    return Table(caption, columns, tuple(rows), (*groups, ("", 1))), data


def _format_label(line: Line, runs: Sequence[Run]) -> str:
    """The label, with our frame size and α where they are not the paper's."""
    sizes = {run.config["data.size"] for run in runs} - {METHODS[run.method].size for run in runs}
    alphas = {run.config["loss.alpha"] for run in runs} - {paper.ALPHA}
    size = f" (ours: {'/'.join(map(str, sorted(sizes)))})" if sizes else ""
    alpha = f" (ours: α = {'/'.join(map(str, sorted(alphas)))})" if alphas else ""
    return line.label.format(size=size, alpha=alpha)
