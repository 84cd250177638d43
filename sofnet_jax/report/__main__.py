"""Reproduce the paper's tables and figures from trained runs.

usage: python -m sofnet_jax.report NAME --workdir=FOLDER [FLAGS]
example: python -m sofnet_jax.report all --workdir=runs/paper

NAME is table1 … table5, tableA … tableD, figure3 or figure4; or, beyond the paper, claims, gates
(what the kept frames show) or curves (accuracy against computation); or all, which also writes a
page. FOLDER is that of sofnet_jax.sweep or sofnet_jax.compare. Each part shows the paper's numbers,
ours and the difference. Files go to FOLDER/report, or to --out.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
from absl import flags

from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import DATASET, WORKDIR, make_printable
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_whole
from sofnet_jax.host.git import read_commit
from sofnet_jax.report import paper, tables
from sofnet_jax.report.claims import create_claims
from sofnet_jax.report.collection import Collection, choose_collection, load_collections
from sofnet_jax.report.curves import create_curves, create_table_c
from sofnet_jax.report.figures import create_figure3, create_figure4
from sofnet_jax.report.gates import create_gates
from sofnet_jax.report.page import create_page, write_part
from sofnet_jax.report.part import Part
from sofnet_jax.report.table3 import create_table3
from sofnet_jax.report.text import format_part

OUT = flags.DEFINE_string("out", "", "Folder to write to; default: WORKDIR/report.")
ALL = "all"
flags.declare_key_flag("workdir")
flags.declare_key_flag("dataset")


@dataclass(frozen=True)
class Request:
    """What to report: the runs by data set, and the data set asked for or ""."""

    collections: Mapping[str, Collection]
    dataset: str
    workdir: Path

    def choose(self, otherwise: str = "") -> Collection:
        """The runs for a part. Raises UserError if there are several data sets to choose from."""
        return choose_collection(self.collections, self.dataset, otherwise)

    def choose_several(self) -> list[Collection]:
        """The runs on the data sets of Table 1 if there are any, else as `choose`."""
        names = (paper.ACTIVITYNET, paper.KINETICS)
        both = [self.collections[name] for name in names if name in self.collections]
        return both if both and not self.dataset else [self.choose()]


PARTS: dict[str, Callable[[Request], Part]] = {
    "claims": lambda r: create_claims(r.choose()),
    "table1": lambda r: tables.create_table1(r.choose_several()),
    "table2": lambda r: tables.create_table2(r.choose(paper.THUMOS)),
    "table3": lambda r: create_table3(r.choose(), r.workdir),
    "table4": lambda r: tables.create_table4(r.choose()),
    "table5": lambda r: tables.create_table5(r.choose()),
    "figure3": lambda r: create_figure3(r.choose()),
    "figure4": lambda r: create_figure4(r.choose()),
    "tableA": lambda r: tables.create_table_a(r.choose()),
    "tableB": lambda r: tables.create_table_b(r.choose(paper.SPORTS)),
    "tableC": lambda r: create_table_c(r.choose()),
    "tableD": lambda r: tables.create_table_d(r.choose()),
    "gates": lambda r: create_gates(r.choose()),
    "curves": lambda r: create_curves(r.choose()),
}


def main(argv: list[str]) -> None:
    """Create, write and print the parts asked for; exit with 1 if one failed."""
    if len(argv) != 2 or argv[1] not in {*PARTS, ALL}:
        known = f"{', '.join(PARTS)} or {ALL}"
        raise UserError(f"choose one part to report: {known}; not '{' '.join(argv[1:])}'")
    workdir = Path(WORKDIR.value or "").expanduser()
    out = Path(OUT.value).expanduser() if OUT.value else workdir / "report"
    jax.config.update("jax_platforms", "cpu")  # nothing here needs an accelerator
    request = Request(load_collections(workdir), DATASET.value, workdir)
    notes = list(dict.fromkeys(n for c in request.collections.values() for n in c.notes))
    parts, failures = create_parts(request, list(PARTS) if argv[1] == ALL else [argv[1]])
    reasons = [
        f"{', '.join(name for name, why in failures.items() if why == reason)}: {reason}"
        for reason in dict.fromkeys(failures.values())
    ]
    try:
        for part in parts:
            write_part(out, part)
        if argv[1] == ALL:
            page = create_page("SoF-Net: report", _create_lead(request, reasons, notes), parts)
            with write_whole(out / "index.html") as partial:
                partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}") from error
    with command_line.printing():
        for part in parts:
            print(format_part(part) + "\n", flush=True)
        if argv[1] == ALL:
            print(f"wrote {out / 'index.html'}", flush=True)
    for note in notes:
        print(f"note: {make_printable(note)}", file=sys.stderr)
    if failures:
        raise UserError("; ".join(reasons))


def create_parts(request: Request, names: list[str]) -> tuple[list[Part], dict[str, str]]:
    """The parts, and by name why others could not be created."""
    parts, failures = [], {}
    for name in names:
        try:
            parts.append(PARTS[name](request))
        except UserError as error:
            failures[name] = str(error)
    return parts, failures


def _create_lead(request: Request, reasons: list[str], notes: list[str]) -> list[str]:
    titles = ", ".join(collection.title for collection in request.collections.values())
    runs = [run for c in request.collections.values() for own in c.runs.values() for run in own]
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
