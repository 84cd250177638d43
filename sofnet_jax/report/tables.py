"""The paper's tables of methods: 1, 2, 4, 5, A, B and D."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sofnet_jax.report import comparison, paper
from sofnet_jax.report.ablations import METHODS
from sofnet_jax.report.bootstrap import TITLES, Metric
from sofnet_jax.report.collection import Collection, Run, Value, measure
from sofnet_jax.report.comparison import (
    EARLY,
    TSM,
    TSM_ONLINE,
    TSN,
    Comparison,
    Side,
    compare,
    create_comparison_table,
)
from sofnet_jax.report.paper import Published
from sofnet_jax.report.part import Part, Row, Table

_OURS = {"TSN": "tsn", "SoF-Net": "sofnet"}
_BENCHMARK = "SoF-Net with early termination − TSN"


@dataclass(frozen=True)
class Line:
    """A row of a table of methods.

    Attributes:
        paper: the paper's numbers, if it has any.
        method: ours, a key of `METHODS`; None for systems that are not implemented here.
        early: whether videos end early.
    """

    label: str
    paper: Published | None = None
    method: str | None = None
    early: bool = False


@dataclass(frozen=True)
class Measure:
    """A group of columns: the paper's number, ours, and the difference.

    Attributes:
        field: its name in the JSON file.
        title: with the unit.
        spec: format of our numbers.
        paper_spec: format of the paper's; "" if it has none, which leaves one column.
        read: a run's number, with or without early termination; None if it has none.
        read_paper: the paper's number; None if it reports none. Default: the field of this name.
    """

    field: str
    title: str
    spec: str
    paper_spec: str
    read: Callable[[Run, bool], float | None]
    read_paper: Callable[[Published], float | None] | None = None

    def find_paper(self, paper: Published | None) -> float | None:
        """The paper's number, None if it reports none."""
        if paper is None or not self.paper_spec:
            return None
        return self.read_paper(paper) if self.read_paper else getattr(paper, self.field)

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


def create_line_table(
    caption: str, lines: Sequence[Line], measures: Sequence[Measure], collection: Collection
) -> tuple[Table, list[dict[str, Any]]]:
    """A row for each line, and the same for JSON, unrounded and with every run."""
    rows, data = [], []
    for line in lines:
        runs = collection.find(line.method) if line.method else ()
        cells: list[str] = []
        numbers = {}
        for each in measures:
            paper = each.find_paper(line.paper)
            ours = measure(each.read(run, line.early) for run in runs)
            cells += each.format(paper, ours)
            own = ours and vars(ours)
            numbers[each.field] = {"title": each.title, "paper": paper, "ours": own}
        remark = "not run" if line.method else "reported"
        if runs:
            seeds = " ".join(str(run.seed) for run in runs)
            commits = ", ".join(sorted({run.commit for run in runs}))
            remark = f"{line.method}, seed{'s' if len(runs) > 1 else ''} {seeds}, {commits}"
        rows.append(Row(line.label, (*cells, remark), measured=bool(runs)))
        sources = [{"folder": str(r.folder), "seed": r.seed, "commit": r.commit} for r in runs]
        entry = {"label": line.label, "method": line.method, "early": line.early}
        data.append({**entry, "measures": numbers, "runs": sources})
    headings = [("paper", "ours", "difference") if m.paper_spec else ("ours",) for m in measures]
    groups = [(m.title, len(own)) for m, own in zip(measures, headings, strict=True)]
    columns = ("", *itertools.chain(*headings), "runs")
    return Table(caption, columns, tuple(rows), (*groups, ("", 1))), data


def list_lines(reported: Mapping[str, Published], methods: Mapping[str, str]) -> list[Line]:
    """The paper's rows, with our methods where we have them; SoF-Net's end videos early."""
    return [
        Line(label, numbers, methods.get(label), early=label.startswith("SoF-Net"))
        for label, numbers in reported.items()
    ]


def create_table1(collections: Sequence[Collection]) -> Part:
    """SoF-Net beside the systems that the paper compares it with, on one or two data sets."""
    parts = [_create_table1(collection) for collection in collections]
    return replace(
        parts[0],
        lead=tuple(dict.fromkeys(paragraph for part in parts for paragraph in part.lead)),
        tables=tuple(table for part in parts for table in part.tables),
        notes=tuple(note for part in parts for note in part.notes),
        data={part.data["dataset"]: part.data for part in parts},
    )


def _create_table1(collection: Collection) -> Part:
    of = collection.dataset if collection.dataset == paper.KINETICS else paper.ACTIVITYNET
    lines = [
        Line(
            f"{s.name} ({s.kind}, {s.backbone}, {s.resolution}, T = {s.num_frames})",
            s.reported.get(of),
        )
        for s in paper.SYSTEMS
    ]
    lines.append(Line("SoF-Net (online)", paper.SOFNET_TABLE_1.reported[of], "sofnet", early=True))
    return _create_part(
        *("table1", "Table 1: comparison with other systems", collection, lines),
        (PER_FRAME, PER_VIDEO),
        of=of,
        lead=(
            "† marks what the SoF-Net authors reproduced; the numbers of other systems are as "
            "their paper quotes them. SoF-Net uses early termination.",
        ),
    )


def create_table2(collection: Collection) -> Part:
    """THUMOS'14."""
    return _create_part(
        *("table2", "Table 2: THUMOS'14", collection, list_lines(paper.TABLE_2, _OURS)),
        (PER_FRAME, PER_VIDEO),
        [Comparison(_BENCHMARK, EARLY, TSN, 1.2)],
        of=paper.THUMOS,
        tsn_gflops=paper.TSN_GFLOPS_224,
    )


def create_table_b(collection: Collection) -> Part:
    """mini-Sports1M."""
    return _create_part(
        *("tableB", "Table B: mini-Sports1M", collection, list_lines(paper.TABLE_B, _OURS)),
        (PER_VIDEO, USAGE),
        [Comparison(_BENCHMARK, EARLY, TSN, 2.0)],
        of=paper.SPORTS,
    )


def create_table4(collection: Collection) -> Part:
    """The ablation of the components."""
    methods = ("tsn", "fc_unguided", "unguided", "fc", "sofnet", "sofnet")  # as in the paper's rows
    components = "policy", "temporal", "guidance", "early termination"
    lines = [
        Line(
            " + ".join(itertools.compress(components, key)) or "none (TSN)",
            *(published, method, key[-1]),
        )
        for (key, published), method in zip(paper.TABLE_4.items(), methods, strict=True)
    ]
    comparisons = [
        *(comparison.GATES, comparison.MEMORY, comparison.MEMORY_ALONE, comparison.GUIDANCE),
        *(comparison.GUIDANCE_ALONE, comparison.EARLY_END),
    ]
    title = "Table 4: components"
    return _create_part("table4", title, collection, lines, (PER_VIDEO,), comparisons)


def create_table5(collection: Collection) -> Part:
    """Frame sizes, with and without early termination."""
    methods = {168: "sofnet", 192: "sofnet_192", 224: "sofnet_224"}
    lines, comparisons = [], []
    for size, (whole, early) in paper.TABLE_5.items():
        method = methods[size]
        sides = sorted({run.config["data.size"] for run in collection.find(method)})
        ours = f" (ours: {'/'.join(map(str, sides))})" if sides and sides != [size] else ""
        label = f"{size}×{size}{ours}"
        lines += [
            Line(label, whole, method),
            Line(f"{label}, early termination", early, method, True),
        ]
        loss = round((early.accuracy or 0) - (whole.accuracy or 0), 1)
        change = f"with − without early termination, {size}×{size}"
        comparisons.append(Comparison(change, Side(method, early=True), Side(method), loss))
    comparisons += [comparison.LARGER, comparison.LARGEST]
    title = "Table 5: frame sizes"
    return _create_part("table5", title, collection, lines, (PER_FRAME, PER_VIDEO), comparisons)


def create_table_a(collection: Collection) -> Part:
    """SoF-Net with the temporal shift."""
    whole = "SoF-Net with TSM, without early termination"
    lines = [
        Line("TSM", paper.TABLE_A["TSM"], "tsm"),
        Line("TSM, online", None, "tsm_online"),
        Line(whole, paper.TABLE_A[whole], "sofnet_tsm"),
        Line("SoF-Net with TSM", paper.TABLE_A["SoF-Net with TSM"], "sofnet_tsm", early=True),
        Line("SoF-Net with offline TSM, without early termination", None, "sofnet_tsm_offline"),
        Line("for comparison: TSN", Published(73.7, per_video=40.3), "tsn"),
        Line("for comparison: SoF-Net, without early termination", paper.TABLE_5[168][0], "sofnet"),
    ]
    comparisons = [
        *(comparison.ON_TSM, comparison.ON_TSM_OFFLINE, comparison.SHIFT, comparison.SHIFT_ALONE),
        Comparison("TSM, online − TSN", TSM_ONLINE, TSN),
        Comparison("TSM, online − TSM", TSM_ONLINE, TSM),
    ]
    return _create_part(
        *("tableA", "Table A: SoF-Net with TSM", collection, lines, (PER_VIDEO, USAGE)),
        comparisons,
        lead=(
            "TSM shifts offline, from the previous and the next frame. SoF-Net shifts online, from "
            "the last kept frame only, because a stopped frame's features are not computed; the "
            "paper does not say which shift it used. SoF-Net with an offline shift can be "
            "evaluated, but it saves no computation.",
        ),
    )


def create_table_d(collection: Collection) -> Part:
    """The weights of the loss."""
    weighted = ("alpha1_beta0", "alpha1_beta05", "alpha1_beta1", "beta05")
    methods = ("alpha1_unguided", "unguided", *weighted)  # as in the paper's rows
    lines = []
    for ((alpha, beta), published), method in zip(paper.TABLE_D.items(), methods, strict=True):
        used = {run.config["loss.alpha"] for run in collection.find(method)} - {alpha}
        ours = f" (ours: α = {'/'.join(map(str, sorted(used)))})" if used else ""
        label = f"α = {alpha}, {'without L_pg' if beta is None else f'β = {beta}'}{ours}"
        lines.append(Line(label, published, method))
    lines.append(Line("as in Table 4 (α = β = 0.9 in the paper)", paper.TABLE_5[168][0], "sofnet"))
    comparisons = [comparison.COST, comparison.CLASSIFIERS, comparison.SELF]
    title = "Table D: loss weights"
    return _create_part("tableD", title, collection, lines, (PER_VIDEO, USAGE), comparisons)


def _create_part(
    name: str,
    title: str,
    collection: Collection,
    lines: Sequence[Line],
    measures: Sequence[Measure],
    comparisons: Sequence[Comparison] = (),
    *,
    of: str = paper.ACTIVITYNET,
    tsn_gflops: float = paper.TSN_GFLOPS,
    lead: tuple[str, ...] = (),
) -> Part:
    """A part of a table of methods and one of comparisons; `of` is the paper's data set."""
    theirs: Metric = "top1" if of in paper.TOP1_DATASETS else "map"
    metric = collection.choose_metric(theirs)
    measures = [*_create_shared(metric, theirs, collection, tsn_gflops), *measures]
    caption = f"Paper: {paper.DATASETS[of]}. Ours: {collection.title}."
    table, line_data = create_line_table(caption, lines, measures, collection)
    outcomes = [compare(each, metric, collection) for each in comparisons]
    differences, difference_data = create_comparison_table(outcomes)
    methods = list(dict.fromkeys(line.method for line in lines if line.method))
    notes = [f"Ours: {collection.describe(methods)}. Mean ± standard deviation over seeds."]
    if outcomes:
        notes.append("Intervals: paired bootstrap over the videos, 1,000 resamples.")
    if missing := [method for method in methods if not collection.find(method)]:
        titles = "; ".join(METHODS[method].title for method in missing)
        how = f"python -m sofnet_jax.sweep --methods={','.join(missing)} …"
        notes.append(f"Not run: {titles}. To train them: {how}")
    return Part(
        name,
        title,
        lead=(*lead, *warn(collection, of)),
        tables=(table, differences) if outcomes else (table,),
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
        lambda p: None if p.per_video is None else 100 * p.per_video / tsn_gflops,
    )
    return [accuracy, share]


def warn(collection: Collection, of: str) -> list[str]:
    """A caution if our data set is not the paper's, `of`."""
    if collection.dataset == of:
        return []
    return [
        f"The paper's numbers are for {paper.DATASETS[of]}, ours for {collection.title}: compare "
        "the effect of a change, not the numbers."
    ]
