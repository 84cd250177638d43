"""The paper's tables and figures from finished runs: the paper's numbers, ours, the difference.

python -m sofnet_jax.report NAME --workdir D [--dataset …] [--out …]

NAME: table1 … table5, tableA … tableD, figure3, figure4; beyond the paper claims, gates (what the
kept frames are), curves (accuracy against computation); or all, as one page. D is the folder of
`python -m sofnet_jax.sweep` or `.compare`. What is shown is written to D/report, or to --out.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
from absl import flags

from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import DATASET, WORKDIR, make_printable
from sofnet_jax.host.commit import read_commit
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_whole
from sofnet_jax.report import paper
from sofnet_jax.report import tables as table
from sofnet_jax.report.claims import create_claims
from sofnet_jax.report.collection import (
    Collection,
    choose_collection,
    load_collections,
)
from sofnet_jax.report.curves import create_curves
from sofnet_jax.report.figures import create_figure3, create_figure4
from sofnet_jax.report.file import write_part
from sofnet_jax.report.gates import create_gates
from sofnet_jax.report.page import create_page
from sofnet_jax.report.part import Part
from sofnet_jax.report.table3 import create_table3
from sofnet_jax.report.text import format_part
from sofnet_jax.report.threshold import create_table_c

OUT = flags.DEFINE_string("out", "", "Folder to write to; default: WORKDIR/report.")
ALL = "all"
flags.declare_key_flag("workdir")
flags.declare_key_flag("dataset")


@dataclass(frozen=True)
class Request:
    """What a report is made of.

    Attributes:
        collections: the runs by data set.
        dataset: the one that is asked for, or "".
        workdir: where the runs are.
    """

    collections: Mapping[str, Collection]
    dataset: str
    workdir: Path

    def choose(self, otherwise: str = "") -> Collection:
        """The runs of a part. Raises UserError if there are several data sets to choose from."""
        return choose_collection(self.collections, self.dataset, otherwise)

    def choose_several(self) -> list[Collection]:
        """Those on the two data sets of Table 1 if there are any, else as `choose`."""
        names = (paper.ACTIVITYNET, paper.KINETICS)
        both = [self.collections[name] for name in names if name in self.collections]
        return both if both and not self.dataset else [self.choose()]


PARTS: dict[str, Callable[[Request], Part]] = {
    "claims": lambda r: create_claims(r.choose()),
    "table1": lambda r: table.create_table1(r.choose_several()),
    "table2": lambda r: table.create_table2(r.choose(paper.THUMOS)),
    "table3": lambda r: create_table3(r.choose(), r.workdir),
    "table4": lambda r: table.create_table4(r.choose()),
    "table5": lambda r: table.create_table5(r.choose()),
    "figure3": lambda r: create_figure3(r.choose()),
    "figure4": lambda r: create_figure4(r.choose()),
    "tableA": lambda r: table.create_table_a(r.choose()),
    "tableB": lambda r: table.create_table_b(r.choose(paper.SPORTS)),
    "tableC": lambda r: create_table_c(r.choose()),
    "tableD": lambda r: table.create_table_d(r.choose()),
    "gates": lambda r: create_gates(r.choose()),
    "curves": lambda r: create_curves(r.choose()),
}


def main(argv: list[str]) -> None:
    """Makes the parts that are asked for; exits with 1 if one could not be made."""
    match argv[1:]:
        case [name] if name in PARTS or name == ALL:
            names = list(PARTS) if name == ALL else [name]
        case []:
            raise UserError(f"say what to report: {', '.join(PARTS)} or {ALL}")
        case [name]:
            raise UserError(f"'{name}' is no part of a report; choose {', '.join(PARTS)} or {ALL}")
        case _:
            raise UserError(f"one part at a time, or {ALL}; not {' '.join(argv[1:])}")
    workdir = Path(WORKDIR.value or "").expanduser()
    jax.config.update("jax_platforms", "cpu")  # nothing of it is for an accelerator
    collections = load_collections(workdir)
    request = Request(collections, DATASET.value, workdir)
    out = Path(OUT.value).expanduser() if OUT.value else workdir / "report"
    parts, failures = create_parts(request, names)
    try:
        for part in parts:
            write_part(out, part)
        if name == ALL:
            _write_page(out / "index.html", request, parts, failures)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror or error}") from error
    try:
        for part in parts:
            print(format_part(part) + "\n", flush=True)
        if name == ALL:
            print(f"wrote {out / 'index.html'}", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # then whoever reads it has seen enough
            raise UserError(f"cannot write to standard output: {error.strerror}") from error
    for note in dict.fromkeys(n for c in collections.values() for n in c.notes):
        print(f"note: {make_printable(note)}", file=sys.stderr)
    if failures:
        raise UserError("; ".join(summarise_failures(failures)))


def summarise_failures(failures: Mapping[str, str]) -> list[str]:
    """A line for each reason, with the parts that it hinders."""
    reasons = dict.fromkeys(failures.values())
    return [
        f"{', '.join(name for name, why in failures.items() if why == reason)}: {reason}"
        for reason in reasons
    ]


def create_parts(request: Request, names: list[str]) -> tuple[list[Part], dict[str, str]]:
    """The parts, and of those that cannot be made why not."""
    parts, failures = [], {}
    for name in names:
        try:
            parts.append(PARTS[name](request))
        except UserError as error:
            failures[name] = str(error)
    return parts, failures


def _write_page(
    path: Path, request: Request, parts: list[Part], failures: Mapping[str, str]
) -> None:
    titles = ", ".join(collection.title for collection in request.collections.values())
    commits = {
        run.commit
        for collection in request.collections.values()
        for runs in collection.runs.values()
        for run in runs
    }
    count = sum(
        len(runs)
        for collection in request.collections.values()
        for runs in collection.runs.values()
    )
    lead = [
        f"Runs on {titles}: {count}, trained by commit {', '.join(sorted(commits))}; this page by "
        f"{read_commit()}.",
        "Every number under 'ours' was measured in these runs; what was not run says so. Numbers "
        "under 'paper' are those of Seon et al., WACV 2023.",
        *(f"Could not be made: {line}." for line in summarise_failures(failures)),
        *dict.fromkeys(
            note for collection in request.collections.values() for note in collection.notes
        ),
    ]
    with write_whole(path) as partial:
        page = create_page("SoF-Net: report", lead, parts)
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    command_line.run(main)
