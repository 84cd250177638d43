"""Train several methods with several seeds, each run in its own process.

usage: python -m sofnet_jax.sweep --config=FILE --workdir=FOLDER [FLAGS]
example: python -m sofnet_jax.sweep --config=configs/synthetic.py --workdir=runs/paper --seeds=0,1,2
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import CONFIG, WORKDIR, make_printable
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand
from sofnet_jax.host.signals import Interruption
from sofnet_jax.report.ablations import METHODS, Method, find_contradiction
from sofnet_jax.report.grid import Cell, create_grid
from sofnet_jax.run.config import flatten_fields, require_fields
from sofnet_jax.run.fields import list_foreign

JOBS = flags.DEFINE_integer(
    "jobs", 1, "Number of parallel runs; they share this machine's CPU cores.", lower_bound=1
)
TASK = flags.DEFINE_integer(
    "task", None, "Train only this run of the grid, counted from 0; for array jobs.", lower_bound=0
)
LIST = flags.DEFINE_bool("list", False, "Print the grid and train nothing.")

for name in ("config", "workdir", "seeds", "methods"):
    flags.declare_key_flag(name)

TITLES = {"top1": "top-1", "top5": "top-5", "map": "mAP"}
OF_ALL = {"all", "claims", "curves", "gates"}  # sections of a report that show every method
POLL_SECONDS = 0.1

CreateCommand = Callable[[Cell], Sequence[str]]


def main(argv: list[str]) -> None:
    """Print the grid, or train its unfinished runs."""
    command_line.refuse_arguments(argv)
    jax.config.update("jax_platforms", "cpu")  # leaves the accelerator to the runs
    config = require_fields(CONFIG.value)
    if why := find_contradiction(flatten_fields(config.to_dict()), METHODS["sofnet"]):
        raise UserError(f"--config: {why}; leave that to --methods")
    workdir = Path(expand(WORKDIR.value or ""))
    seeds = command_line.read_seeds(config.seed)
    grid = create_grid(config, workdir, choose_methods(command_line.METHODS.value), seeds)
    task = TASK.value
    if task is not None and task >= len(grid):
        raise UserError(f"--task is {task}, but the grid's runs are 0 to {len(grid) - 1}")
    cells = grid if task is None else [grid[task]]
    progress = [cell.find_progress() for cell in cells]  # refuses a folder of another run
    if LIST.value:
        width = max(len(cell.method.name) for cell in cells)
        for cell, state in zip(cells, progress, strict=True):
            print(f"{cell.index:>3}  {cell.method.name:<{width}}  {cell.seed:>3}  {state}")
        return
    flag = flags.FLAGS["config"]
    command = functools.partial(
        create_command,
        source=config_flags.get_config_filename(flag),
        overrides=config_flags.get_override_values(flag),
    )
    sweep = Sweep(cells, len(grid), create_command=command, jobs=JOBS.value)
    with Interruption() as interruption:
        sweep.train(interruption)
    conclude(sweep, interruption.signum)


def choose_methods(names: Sequence[str]) -> list[Method]:
    """The methods with these names or in these tables, in their usual order; all for no names.

    Raises:
        UserError: a name is neither a method nor a table.
    """
    tables = {table for method in METHODS.values() for table in method.tables}
    for name in names:
        if name not in {*METHODS, *tables, *OF_ALL}:
            raise UserError(
                f"--methods: '{name}' is neither a method ({', '.join(METHODS)}) nor a table or "
                f"figure ({', '.join(sorted(tables))})"
            )
    if not names or OF_ALL.intersection(names):
        return list(METHODS.values())
    return [m for m in METHODS.values() if {m.name, *m.tables}.intersection(names)]


def conclude(sweep: "Sweep", signum: int) -> None:
    """Report how a sweep ended; `signum` is the signal that ended it, or 0.

    Raises:
        UserError: runs failed.
        SystemExit: with 128 + `signum`.
    """
    if signum:
        print(f"stopped; {sweep.summary}; the same command resumes", file=sys.stderr, flush=True)
        sys.exit(128 + signum)
    if sweep.failed:
        raise UserError(f"{sweep.summary}; the same command retries what failed")
    print(sweep.summary, flush=True)


def create_command(cell: Cell, source: str, overrides: Mapping[str, object]) -> list[str]:
    """The command line of a run.

    Args:
        cell: the run.
        source: the value of --config.
        overrides: fields given on the sweep's command line, by their dotted names.
    """
    changes = {**cell.method.changes, "data.size": cell.config.data.size, "seed": cell.seed}
    foreign = list_foreign(cell.config.model.system)
    given = {name: value for name, value in overrides.items() if name not in foreign}
    return [
        *(sys.executable, "-m", "sofnet_jax.main"),
        f"--config={source}",
        f"--workdir={cell.folder}",
        *(f"--config.{name}={value}" for name, value in {**given, **changes}.items()),
    ]


@dataclass(frozen=True)
class Job:
    """A run in its process on some cores; its output starts at the byte `log_start` of the log."""

    cell: Cell
    process: subprocess.Popen
    cores: list[int]
    log: Path
    log_start: int
    started: float

    def read_last_line(self) -> str:
        """The last line of its output; "" if there is none."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            lines = file.read().decode(errors="backslashreplace").split("\n")
        return make_printable(next((line.strip() for line in lines[::-1] if line.strip()), ""))


class Sweep:
    """Trains runs, `jobs` at a time, and prints a line whenever one ends."""

    def __init__(
        self, cells: Sequence[Cell], total: int, *, create_command: CreateCommand, jobs: int
    ):
        """Prepare to train `cells` of a grid of `total` runs.

        Raises:
            UserError: there are more jobs than CPU cores.
        """
        self.finished = self.failed = self.skipped = 0
        self._waiting, self._count, self._total = deque(cells), len(cells), total
        self._create_command = create_command
        self._free = split_cores(sorted(os.sched_getaffinity(0)), jobs)
        self._jobs: list[Job] = []

    @property
    def summary(self) -> str:
        """The numbers of finished, failed and skipped runs."""
        counts = {"failed": self.failed, "skipped": self.skipped}
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        return ", ".join([f"{self.finished} of {self._count} runs finished", *parts])

    def train(self, interruption: Interruption) -> None:
        """Train until every run has ended; a signal is passed on to the running ones."""
        passed_on = False
        try:
            while self._jobs or (self._waiting and not interruption.signum):
                if interruption.signum and not passed_on:
                    passed_on = True
                    for job in self._jobs:
                        job.process.send_signal(interruption.signum)
                elif not interruption.signum and self._waiting and self._free:
                    self._begin(self._waiting.popleft())
                    continue
                for job in [job for job in self._jobs if job.process.poll() is not None]:
                    self._jobs.remove(job)
                    self._free.append(job.cores)
                    self._end(job, interruption.signum)
                if self._jobs:
                    time.sleep(POLL_SECONDS)
        finally:  # after an error or a second signal, leave no process behind
            for job in self._jobs:
                job.process.terminate()
            for job in self._jobs:
                job.process.wait()

    def _begin(self, cell: Cell) -> None:
        """Start a run unless it is done or being trained, perhaps by another sweep."""
        try:
            if cell.find_progress() == "done":
                self._print_finished(cell, "done before")
            elif cell.is_locked():
                self._print_skipped(cell)
            else:
                self._start(cell)
        except UserError as error:
            self._fail(cell, str(error))

    def _start(self, cell: Cell) -> None:
        log = cell.folder / "log.txt"
        try:
            with log.open("ab") as file:
                start = file.tell()
                process = subprocess.Popen(
                    self._create_command(cell),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # otherwise Ctrl-C reaches it twice and it cannot save
                )
        except OSError as error:
            self._fail(cell, f"{log}: {error.strerror or error}")
            return
        cores = self._free.pop(0)
        with contextlib.suppress(ProcessLookupError):  # it has already ended
            os.sched_setaffinity(process.pid, cores)
        self._jobs.append(Job(cell, process, cores, log, start, time.monotonic()))

    def _end(self, job: Job, signum: int) -> None:
        """Count and report a run that ended."""
        cell, code = job.cell, job.process.returncode
        if code == 0:
            try:
                self._print_finished(cell, f"{time.monotonic() - job.started:.0f} s")
            except UserError as error:
                self._fail(cell, str(error))
        elif signum:
            saved = code == 128 + signum and job.read_last_line()
            self._print(cell, saved or "stopped")
        elif cell.is_locked():  # by another sweep, while this process was starting
            self._print_skipped(cell)
        else:
            end = f"code {code}" if code > 0 else signal.Signals(-code).name
            reason = job.read_last_line() or "it wrote nothing"
            self._fail(cell, f"({end}; {job.log}): {reason}")

    def _fail(self, cell: Cell, why: str) -> None:
        self.failed += 1
        self._print(cell, f"failed {why}")

    def _print_finished(self, cell: Cell, note: str) -> None:
        metric, m = cell.config.eval.metric, cell.read_result()["eval"]
        self.finished += 1
        accuracy = f"{TITLES[metric]} {100 * m[metric]:.1f} %"
        self._print(cell, f"{accuracy}  {m['gflops_per_video']:.4g} GFLOPs/V  {note}")

    def _print_skipped(self, cell: Cell) -> None:
        self.skipped += 1
        self._print(cell, f"skipped: another process trains in {cell.folder}")

    def _print(self, cell: Cell, text: str) -> None:
        number = f"{cell.index + 1}/{self._total}"
        print(f"{number}  {cell.method.name}  seed {cell.seed}  {text}", flush=True)


def split_cores(cores: Sequence[int], parts: int) -> list[list[int]]:
    """Split the cores into parts of neighbours, equal in size up to one core.

    Raises:
        UserError: there are too few cores.
    """
    if parts > len(cores):
        raise UserError(f"--jobs is {parts}, but this machine has {len(cores)} CPU core(s) for it")
    bounds = [len(cores) * i // parts for i in range(parts + 1)]
    return [list(cores[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main)
