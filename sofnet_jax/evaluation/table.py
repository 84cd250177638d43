"""Metrics as a table of text."""

from collections.abc import Mapping, Sequence
from typing import Any

GAP = "  "  # between columns
_STOP = "stop/"  # how the names of shares of stopped frames begin


def format_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """One line per row of metrics; GFLOPs in the paper's count, then in the full count."""
    stops = dict.fromkeys(key for m in rows.values() for key in m if key.startswith(_STOP))
    columns = [
        ("top-1 %", "top1", 100, ".1f"),
        ("top-5 %", "top5", 100, ".1f"),
        ("mAP %", "map", 100, ".1f"),
        ("GFLOPs/V", "gflops_per_video", 1, ".4g"),
        ("full", "gflops_per_video_full", 1, ".4g"),
        ("GFLOPs/f", "gflops_per_frame", 1, ".4g"),
        ("used %", "usage", 100, ".1f"),
        *((key.removeprefix(_STOP), key, 100, ".1f") for key in stops),
        ("exit", "exit", 100, ".1f"),
        ("in span %", "kept_relevant", 100, ".1f"),
    ]
    columns = [column for column in columns if any(column[1] in m for m in rows.values())]
    cells = [["", *(title for title, *_ in columns)]]
    for name, metrics in rows.items():
        row = [
            format(scale * metrics[key], spec) if key in metrics else "-"
            for _, key, scale, spec in columns
        ]
        cells.append([name, *row])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_text = [True, *[False] * len(columns)]
    return "\n".join(align_columns(cells, is_text, widths))


def align_columns(
    cells: Sequence[Sequence[str]], is_text: Sequence[bool], widths: Sequence[int]
) -> list[str]:
    """Lines of aligned cells, text at the left, with a rule below the first, the headings."""
    lines = [
        GAP.join(
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(row, widths, is_text, strict=True)
        ).rstrip()
        for row in cells
    ]
    rule = "-" * (sum(widths) + len(GAP) * (len(widths) - 1))
    return [lines[0], rule, *lines[1:]]


def format_result(name: str, result: Mapping[str, Any]) -> str:
    """The table of one run, and the videos missing from it."""
    rows = {name: result["eval"]}
    if "eval_early" in result:
        rows[f"{name}, early exit"] = result["eval_early"]
    metrics = result["eval"]
    text = [format_table(rows)]
    if stops := [key.removeprefix(_STOP) for key in metrics if key.startswith(_STOP)]:
        names = "res#" if all(name.startswith("res") for name in stops) else ", ".join(stops)
        text.append(f"{names}: share of the frames stopped there, in %; exit: share never seen")
    if "relevant" in metrics:
        text.append(
            f"in span: share of the kept frames inside the annotated action "
            f"({100 * metrics['relevant']:.1f} % of all frames)"
        )
    text.append(f"evaluated {metrics['evaluated']} / {metrics['total']} videos")
    text += [f"  not evaluated: {reason}" for reason in result["unreadable"].values()]
    if result.get("left_out"):
        count = len(result["left_out"])
        text.append(f"left out of training: {count} video{'s' if count > 1 else ''}")
        text += [f"  {reason}" for reason in result["left_out"].values()]
    return "\n".join(text)
