"""Reproduce the paper's tables and figures from trained runs.

usage: python -m sofnet_jax.report NAME --workdir=FOLDER [FLAGS]
example: python -m sofnet_jax.report all --workdir=runs/paper

NAME is table1 … table5, tableA … tableD, figure3 or figure4; or, beyond the paper, claims, gates
(what the kept frames show) or curves (accuracy against computation); or all, which also writes a
page. FOLDER is that of sofnet_jax.sweep or sofnet_jax.compare. Each section shows the paper's
numbers, ours and the difference. Files go to FOLDER/report, or to --out.
"""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
from absl import flags

from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import DATASET, WORKDIR, make_printable
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_whole
from sofnet_jax.host.git import read_commit
from sofnet_jax.host.paths import expand
from sofnet_jax.report import paper
from sofnet_jax.report.collection import Collection, choose_collection, load_collections
from sofnet_jax.report.comparisons import create_claims
from sofnet_jax.report.curves import create_curves, create_table_c
from sofnet_jax.report.figures import create_figure3, create_figure4
from sofnet_jax.report.gates import create_gates
from sofnet_jax.report.page import create_page, write_section
from sofnet_jax.report.runtime import create_table3
from sofnet_jax.report.section import Section
from sofnet_jax.report.tables import create_table, create_table1
from sofnet_jax.report.text import format_section

OUT = flags.DEFINE_string("out", "", "Folder to write to; default: WORKDIR/report.")
ALL = "all"
flags.declare_key_flag("workdir")
flags.declare_key_flag("dataset")


SECTIONS: dict[str, Callable[[Collection], Section]] = {
    "claims": create_claims,
    "table1": lambda collection: create_table1([collection]),
    "table2": functools.partial(create_table, "table2"),
    "table3": create_table3,
    "table4": functools.partial(create_table, "table4"),
    "table5": functools.partial(create_table, "table5"),
    "figure3": create_figure3,
    "figure4": create_figure4,
    "tableA": functools.partial(create_table, "tableA"),
    "tableB": functools.partial(create_table, "tableB"),
    "tableC": create_table_c,
    "tableD": functools.partial(create_table, "tableD"),
    "gates": create_gates,
    "curves": create_curves,
}
DATASETS = {"table2": paper.THUMOS, "tableB": paper.SPORTS}  # if there are several to choose from


def main(argv: list[str]) -> None:
    """Create, write and print the sections asked for; exit with 1 if one failed."""
    if len(argv) != 2 or argv[1] not in {*SECTIONS, ALL}:
        known = f"{', '.join(SECTIONS)} or {ALL}"
        raise UserError(f"choose one section to report: {known}; not '{' '.join(argv[1:])}'")
    workdir = Path(expand(WORKDIR.value or ""))
    out = Path(expand(OUT.value)) if OUT.value else workdir / "report"
    jax.config.update("jax_platforms", "cpu")  # nothing here needs an accelerator
    collections = load_collections(workdir)
    notes = list(dict.fromkeys(n for c in collections.values() for n in c.notes))
    names = list(SECTIONS) if argv[1] == ALL else [argv[1]]
    sections, failures = create_sections(collections, DATASET.value, names)
    reasons = [
        f"{', '.join(name for name, why in failures.items() if why == reason)}: {reason}"
        for reason in dict.fromkeys(failures.values())
    ]
    try:
        for section in sections:
            write_section(out, section)
        if argv[1] == ALL:
            page = create_page(
                "SoF-Net: report", _create_lead(collections, reasons, notes), sections
            )
            with write_whole(out / "index.html") as partial:
                partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}") from error
    with command_line.printing():
        for section in sections:
            print(format_section(section) + "\n", flush=True)
        if argv[1] == ALL:
            print(f"wrote {out / 'index.html'}", flush=True)
    for note in notes:
        print(f"note: {make_printable(note)}", file=sys.stderr)
    if failures:
        raise UserError("; ".join(reasons))


def create_sections(
    collections: Mapping[str, Collection], dataset: str, names: Sequence[str]
) -> tuple[list[Section], dict[str, str]]:
    """The sections, and by name why others could not be created.

    They are on the named data set; if it is "", on the only one, or on that of the paper's table.
    """
    sections, failures = [], {}
    both = [collections[n] for n in (paper.ACTIVITYNET, paper.KINETICS) if n in collections]
    for name in names:
        try:
            if name == "table1" and both and not dataset:
                sections.append(create_table1(both))
            else:
                chosen = choose_collection(collections, dataset, DATASETS.get(name, ""))
                sections.append(SECTIONS[name](chosen))
        except UserError as error:
            failures[name] = str(error)
    return sections, failures


def _create_lead(
    collections: Mapping[str, Collection], reasons: list[str], notes: list[str]
) -> list[str]:
    titles = ", ".join(collection.title for collection in collections.values())
    runs = [run for c in collections.values() for own in c.runs.values() for run in own]
    commits = ", ".join(sorted({run.commit for run in runs}))
    return [
        f"{len(runs)} runs on {titles}, trained by commit {commits}. Page created by commit "
        f"{read_commit()}.",
        "Numbers under 'ours' were measured in these runs; rows without runs say so. Numbers under "
        "'paper' are from Seon et al., WACV 2023.",
        *(f"Could not be created: {line}." for line in reasons),
        *notes,
    ]


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    command_line.run(main)
