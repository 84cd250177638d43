"""The paper's tables of methods: 1, 2, 4, 5, A, B and D."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sofnet_jax.report import paper
from sofnet_jax.report.ablations import METHODS
from sofnet_jax.report.bootstrap import Metric
from sofnet_jax.report.collection import Collection
from sofnet_jax.report.comparison import (
    Comparison,
    Side,
    compare,
    create_comparison_data,
    create_comparison_table,
)
from sofnet_jax.report.line import (
    PER_FRAME,
    PER_VIDEO,
    USAGE,
    Line,
    Measure,
    create_accuracy,
    create_line_data,
    create_line_table,
    create_share,
    list_methods,
)
from sofnet_jax.report.paper import Published
from sofnet_jax.report.part import Part

INTERVALS = "of the choice of videos (paired bootstrap, 1,000 resamples)"
TSN, SOFNET, EARLY = Side("tsn"), Side("sofnet"), Side("sofnet", early=True)


def create_table1(collections: Sequence[Collection]) -> Part:
    """SoF-Net beside the systems that the paper compares it with, on one data set or two."""
    parts = [_create_table1(collection) for collection in collections]
    return replace(
        parts[0],
        lead=tuple(dict.fromkeys(sentence for part in parts for sentence in part.lead)),
        tables=tuple(table for part in parts for table in part.tables),
        notes=tuple(note for part in parts for note in part.notes),
        data={part.data["dataset"]: part.data for part in parts},
    )


def _create_table1(collection: Collection) -> Part:
    of = collection.dataset if collection.dataset == paper.KINETICS else paper.ACTIVITYNET
    systems = [
        Line(
            f"{s.name} ({s.kind}, {s.backbone}, {s.resolution}, T = {s.num_frames})",
            s.reported.get(of),
        )
        for s in paper.SYSTEMS
    ]
    ours = Line("SoF-Net (online)", paper.SOFNET_TABLE_1.reported[of], "sofnet", early=True)
    return _create_part(
        "table1",
        "Table 1: comparison with other systems",
        collection,
        [*systems, ours],
        (PER_FRAME, PER_VIDEO),
        of=of,
        lead="† marks what the authors of SoF-Net reproduced; the other systems' figures are as "
        "their paper quotes them. SoF-Net ends videos early.",
    )


def create_table2(collection: Collection) -> Part:
    """THUMOS'14."""
    title = "Table 2: THUMOS'14"
    measures = PER_FRAME, PER_VIDEO
    return _create_benchmark(
        "table2", title, collection, paper.TABLE_2, measures, of=paper.THUMOS, gain=1.2
    )


def create_table4(collection: Collection) -> Part:
    """The ablation of the components."""
    names = {
        (False, False, False, False): "tsn",
        (True, False, False, False): "fc_unguided",
        (True, True, False, False): "unguided",
        (True, False, True, False): "fc",
        (True, True, True, False): "sofnet",
        (True, True, True, True): "sofnet",
    }
    components = "policy", "temporal", "guidance", "early end"
    lines = [
        Line(
            " + ".join(c for c, on in zip(components, key, strict=True) if on) or "none (TSN)",
            published,
            names[key],
            early=key[-1],
        )
        for key, published in paper.TABLE_4.items()
    ]
    comparisons = [
        Comparison("all three − none", SOFNET, TSN, 1.9),
        Comparison("temporal, with guidance", SOFNET, Side("fc"), 0.9),
        Comparison("temporal, without guidance", Side("unguided"), Side("fc_unguided"), 0.7),
        Comparison("guidance, with temporal", SOFNET, Side("unguided"), 0.6),
        Comparison("guidance, without temporal", Side("fc"), Side("fc_unguided"), 0.4),
        Comparison("early end", EARLY, SOFNET, -0.3),
    ]
    return _create_part(
        "table4",
        "Table 4: the components",
        collection,
        lines,
        (PER_VIDEO,),
        comparisons,
    )


def create_table5(collection: Collection) -> Part:
    """Sizes of the frames, with and without early termination."""
    names = {168: "sofnet", 192: "sofnet_192", 224: "sofnet_224"}
    lines, comparisons = [], []
    for size, (whole, early) in paper.TABLE_5.items():
        method = names[size]
        sides = sorted({run.config["data.size"] for run in collection.find(method)})
        ours = f" (ours: {'/'.join(map(str, sides))})" if sides and sides != [size] else ""
        lines += [
            Line(f"{size}×{size}{ours}", whole, method),
            Line(f"{size}×{size}{ours}, early end", early, method, early=True),
        ]
        comparisons.append(
            Comparison(
                f"early end, {size}×{size}",
                Side(method, early=True),
                Side(method),
                round((early.accuracy or 0) - (whole.accuracy or 0), 1),
            )
        )
    comparisons += [
        Comparison("192×192 − 168×168", Side("sofnet_192"), SOFNET, 0.8),
        Comparison("224×224 − 168×168", Side("sofnet_224"), SOFNET, 1.5),
    ]
    return _create_part(
        "table5",
        "Table 5: the size of the frames",
        collection,
        lines,
        (PER_FRAME, PER_VIDEO),
        comparisons,
    )


def create_table_a(collection: Collection) -> Part:
    """SoF-Net on the temporal shift."""
    reported = paper.TABLE_A
    lines = [
        Line("TSM", reported["TSM"], "tsm"),
        Line("TSM, online", None, "tsm_online"),
        Line(
            "SoF-Net with TSM, without early end",
            reported["SoF-Net with TSM, without early end"],
            "sofnet_tsm",
        ),
        Line("SoF-Net with TSM", reported["SoF-Net with TSM"], "sofnet_tsm", early=True),
        Line("SoF-Net with offline TSM, without early end", None, "sofnet_tsm_offline"),
        Line("for comparison: TSN", Published(73.7, per_video=40.3), "tsn"),
        Line("for comparison: SoF-Net, without early end", paper.TABLE_5[168][0], "sofnet"),
    ]
    tsm = Side("sofnet_tsm")
    comparisons = [
        Comparison("SoF-Net with TSM − TSM, both online", tsm, Side("tsm_online"), 1.1),
        Comparison(
            "SoF-Net with TSM − TSM, both offline", Side("sofnet_tsm_offline"), Side("tsm"), 1.1
        ),
        Comparison("SoF-Net with TSM − SoF-Net", tsm, SOFNET, -1.5),
        Comparison("TSM − TSN", Side("tsm"), TSN, -0.7),
        Comparison("TSM, online − TSN", Side("tsm_online"), TSN),
        Comparison("TSM, online − TSM", Side("tsm_online"), Side("tsm")),
    ]
    return _create_part(
        "tableA",
        "Table A: SoF-Net with TSM",
        collection,
        lines,
        (PER_VIDEO, USAGE),
        comparisons,
        lead="TSM shifts offline, from the frames before and after. SoF-Net shifts online, from "
        "the last kept frame alone, since a stopped frame's features are not computed; the paper "
        "does not say what its own took. Offline it can be evaluated, but no GFLOPs be saved.",
    )


def create_table_b(collection: Collection) -> Part:
    """mini-Sports1M."""
    title = "Table B: mini-Sports1M"
    measures = PER_VIDEO, USAGE
    return _create_benchmark(
        "tableB", title, collection, paper.TABLE_B, measures, of=paper.SPORTS, gain=2.0
    )


def create_table_d(collection: Collection) -> Part:
    """The weights of the loss."""
    names = {
        (1.0, None): "alpha1_unguided",
        (0.9, None): "unguided",
        (1.0, 0.0): "alpha1_beta0",
        (1.0, 0.5): "alpha1_beta05",
        (1.0, 1.0): "alpha1_beta1",
        (0.9, 0.5): "beta05",
    }
    lines = []
    for (alpha, beta), published in paper.TABLE_D.items():
        method = names[alpha, beta]
        used = {run.config["loss.alpha"] for run in collection.find(method)} - {alpha}
        ours = f" (ours: α = {'/'.join(map(str, sorted(used)))})" if used else ""
        label = f"α = {alpha}, {'without L_pg' if beta is None else f'β = {beta}'}{ours}"
        lines.append(Line(label, published, method))
    lines.append(Line("as in Table 4 (α = β = 0.9 in the paper)", paper.TABLE_5[168][0], "sofnet"))
    comparisons = [
        Comparison(
            "the cost in the loss, without L_pg", Side("unguided"), Side("alpha1_unguided"), -0.5
        ),
        Comparison("β = 0.5 − β = 0, α = 1", Side("alpha1_beta05"), Side("alpha1_beta0"), 0.7),
        Comparison("β = 0.5 − β = 1, α = 1", Side("alpha1_beta05"), Side("alpha1_beta1"), 1.2),
    ]
    return _create_part(
        "tableD",
        "Table D: the weights of the loss",
        collection,
        lines,
        (PER_VIDEO, USAGE),
        comparisons,
    )


def _create_benchmark(
    name: str,
    title: str,
    collection: Collection,
    reported: Mapping[str, Published],
    measures: Sequence[Measure],
    *,
    of: str,
    gain: float,
) -> Part:
    """TSN, AR-Net and SoF-Net on a data set; `gain` is the paper's, in points."""
    lines = [
        Line("TSN", reported["TSN"], "tsn"),
        Line("AR-Net", reported["AR-Net"]),
        Line("SoF-Net", reported["SoF-Net"], "sofnet", early=True),
    ]
    comparison = Comparison("SoF-Net with early end − TSN", EARLY, TSN, gain)
    whole = reported["TSN"].per_video or paper.TSN_GFLOPS
    return _create_part(
        name, title, collection, lines, measures, [comparison], of=of, tsn_gflops=whole
    )


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
    lead: str = "",
) -> Part:
    theirs: Metric = "top1" if of in paper.TOP1_DATASETS else "map"
    metric = collection.choose_metric(theirs)
    accuracy = create_accuracy(metric, {"map": "mAP %", "top1": "top-1 %"}[theirs])
    share = create_share(collection, tsn_gflops)
    every = [accuracy, *([share] if share else []), *measures]
    outcomes = [compare(each, metric, collection) for each in comparisons]
    caption = f"Paper: {paper.DATASETS[of]}. Ours: {collection.title}."
    tables = [create_line_table(caption, lines, every, collection)]
    if outcomes:
        tables.append(create_comparison_table(outcomes))
    methods = list(list_methods(lines))
    return Part(
        name,
        title,
        lead=tuple(filter(None, [lead, warn(collection, of)])),
        tables=tuple(tables),
        notes=(
            f"Ours: {collection.describe(methods)}. Mean ± standard deviation over seeds"
            + (f"; the intervals are {INTERVALS}." if outcomes else "."),
            *_list_missing(methods, collection),
        ),
        data={
            "dataset": collection.dataset,
            "paper_dataset": of,
            "metric": metric,
            "lines": create_line_data(lines, every, collection),
            "comparisons": create_comparison_data(outcomes),
        },
    )


def _list_missing(methods: Sequence[str], collection: Collection) -> list[str]:
    missing = [method for method in methods if not collection.find(method)]
    if not missing:
        return []
    titles = "; ".join(METHODS[method].title for method in missing)
    how = f"python -m sofnet_jax.sweep --methods={','.join(missing)} …"
    return [f"Not run: {titles}. To train them: {how}"]


def warn(collection: Collection, of: str) -> str:
    """What to say where ours and the paper's are of different data; nothing if they are not."""
    if collection.dataset == of:
        return ""
    return (
        f"The paper's figures are of {paper.DATASETS[of]}, ours of {collection.title}: compare "
        "what a change does, not the figures themselves."
    )
