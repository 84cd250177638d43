"""The finished runs of a sweep or comparison, by data set, method and seed."""

import functools
import math
import os
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sofnet_jax.data.synthetic.dataset import is_synthetic
from sofnet_jax.evaluation.metrics import compute_answer, compute_fates
from sofnet_jax.host.errors import UserError, explain_unreadable
from sofnet_jax.host.paths import expand
from sofnet_jax.report.ablations import METHODS, PAPER_SIZE, find_contradiction, scale_size
from sofnet_jax.report.bootstrap import Metric, Scored
from sofnet_jax.report.paper import DATASETS, TOP1_DATASETS
from sofnet_jax.run.config import create_default, read_fields
from sofnet_jax.run.fields import FIELDS, INDIFFERENT, list_foreign
from sofnet_jax.run.predictions import Predictions, read_predictions
from sofnet_jax.run.result import read_result
from sofnet_jax.systems.base import Architecture, Prices
from sofnet_jax.systems.registry import create_system

# METHOD/seed_N by sofnet_jax.sweep, METHOD_seedN by sofnet_jax.compare.
_FOLDER = re.compile(r"(?:^|/)(\w+?)(?:/seed_|_seed)(\d+)$")
# Fields that define a method: its runs must agree in them.
_CHANGED = {field for method in METHODS.values() for field in method.changes}
_DEFINING = {"data.size"} | {f.name for f in FIELDS if f.name in _CHANGED and f.role != "outcome"}


@dataclass(frozen=True)
class Run:
    """A finished training of a method of `METHODS`; `config` has dotted names."""

    method: str
    seed: int
    folder: Path
    config: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def dataset(self) -> str:
        """Name of its data set."""
        source = self.config["data.source"]
        return "synthetic" if source == "synthetic" else str(self.config["data.name"])

    @property
    def commit(self) -> str:
        """The commit that trained it."""
        return str(self.result.get("commit", "unknown"))

    @property
    def stopping(self) -> tuple[str, ...]:
        """The actions after which a frame does not count; for SoF-Net `("res1", …)`."""
        names = (name for name in self.result["eval"] if name.startswith("stop/"))
        return tuple(name.removeprefix("stop/") for name in names)

    def metrics(self, early: bool) -> Mapping[str, float]:
        """Metrics with or without early exit."""
        return self.result["eval_early" if early else "eval"]

    def shares(self, early: bool) -> dict[str, float]:
        """Percentages of all frames: those stopped at each gate, "exit" and "used"."""
        metrics = self.metrics(early)
        stops = {name: 100 * metrics[f"stop/{name}"] for name in self.stopping}
        return {**stops, "exit": 100 * metrics["exit"], "used": 100 * metrics["usage"]}

    @functools.cached_property
    def predictions(self) -> Predictions:
        """The stored predictions. Raises UserError."""
        path = self.folder / "predictions.npz"
        predictions = read_predictions(path)
        if predictions.actions != self.describe(predictions.labels.shape[1]).actions:
            raise UserError(f"{path} and config.json disagree on the gates; evaluate the run again")
        return predictions

    @property
    def rule(self) -> dict[str, Any]:
        """`threshold` and `min_frames` of early exit."""
        return {name: self.config[f"eval.{name}"] for name in ("threshold", "min_frames")}

    def restore_config(self) -> ConfigDict:
        """Its configuration; embedded videos that are missing are drawn in the cache instead."""
        config = create_default()
        config.update_from_flattened_dict(dict(self.config))
        if not is_synthetic(Path(expand(config.data.synthetic.root))):
            config.data.synthetic.root = ""
        return config

    @functools.cached_property
    def tsn_gflops(self) -> float:
        """GFLOPs per video of the plain backbone."""
        price = self._architecture.plain(self.config["data.size"])
        return price.paper * self.config["data.num_frames"]

    def describe(self, num_classes: int) -> Architecture:
        """What was trained."""
        return create_system(self.config, num_classes=num_classes).architecture

    @functools.cached_property
    def _architecture(self) -> Architecture:
        return self.describe(self.predictions.labels.shape[1])

    @property
    def prices(self) -> Prices:
        """GFLOPs of a step by its action."""
        return self._architecture.prices(self.config["data.size"])

    @functools.cache  # noqa: B019 (a report ends before memory matters)
    def score(self, early: bool) -> Scored:
        """The consensus on every video. Raises UserError."""
        p = self.predictions
        fates = compute_fates(p, **self.rule if early else {})
        return Scored(p.ids, p.labels, compute_answer(p, fates))

    def __hash__(self) -> int:
        return hash(self.folder)


@dataclass(frozen=True)
class Value:
    """A number over runs that differ only in their seeds; a single run has no deviation."""

    mean: float
    deviation: float | None
    count: int

    def format(self, spec: str) -> str:
        """Mean and deviation with the same number of decimals, such as `91.4 ± 0.3`."""
        if spec.endswith("g"):  # significant digits of the mean
            exponent = math.floor(math.log10(abs(self.mean))) if self.mean else 0
            spec = f".{max(int(spec[1:-1]) - 1 - exponent, 0)}f"
        text = format(self.mean, spec)
        return text if self.deviation is None else f"{text} ± {format(self.deviation, spec)}"


@dataclass(frozen=True)
class Collection:
    """The runs on one data set, by method and seed; `notes` names every irregularity."""

    folder: Path
    dataset: str
    runs: Mapping[str, tuple[Run, ...]]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The data set's name as shown."""
        return DATASETS.get(self.dataset, self.dataset)

    def find(self, method: str) -> tuple[Run, ...]:
        """The runs of a method; empty if it was not trained."""
        return self.runs.get(method, ())

    def choose_metric(self, otherwise: Metric = "map") -> Metric:
        """The paper's accuracy for this data set, or `otherwise` if the paper does not use it."""
        if self.dataset in TOP1_DATASETS:
            return "top1"
        return "map" if self.dataset in ("activitynet", "thumos14") else otherwise

    def caution(self, of: str) -> tuple[str, ...]:
        """A caution if our data set is not the paper's, `of`."""
        if self.dataset == of:
            return ()
        return (
            f"The paper's numbers are for {DATASETS[of]}, ours for {self.title}: compare "
            "the effect of a change, not the numbers.",
        )

    def describe(self, methods: Sequence[str]) -> str:
        """Data set, seeds and commits of the runs of some methods."""
        runs = [run for method in methods for run in self.find(method)]
        if not runs:
            return f"{self.title}: no runs"
        seeds = sorted({run.seed for run in runs})
        commits = ", ".join(sorted({run.commit for run in runs}))
        plural = "s" if len(seeds) > 1 else ""
        return f"{self.title}: seed{plural} {', '.join(map(str, seeds))}; commit {commits}"


def measure(numbers: Iterable[float | None]) -> Value | None:
    """Mean and standard deviation of a number over the runs that have it; None if none has."""
    known = [number for number in numbers if number is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Value(statistics.mean(known), deviation, len(known))


@explain_unreadable()
def load_collections(workdir: Path) -> dict[str, Collection]:
    """All finished runs below a folder, by data set.

    Raises:
        UserError: there are none.
    """
    if not workdir.is_dir():
        raise UserError(f"{workdir}: no such folder; give the --workdir of a sweep or comparison")
    notes: list[str] = []
    found: dict[str, dict[tuple[str, int], Run]] = defaultdict(dict)
    for path in _find_configs(workdir, notes):
        match = _FOLDER.search(path.parent.relative_to(workdir).as_posix())
        if match is None or match[1] not in METHODS:
            continue
        try:
            run = _load_run(path.parent, match[1], int(match[2]))
        except UserError as error:
            notes.append(str(error))
            continue
        first = found[run.dataset].setdefault((run.method, run.seed), run)
        if first is not run:
            notes.append(f"{run.folder}: skipped, {first.folder} has the same method and seed")
    if not found:
        raise UserError(
            f"{workdir} holds no finished runs ({'; '.join(notes) or 'none begun'}); train some: "
            f"python -m sofnet_jax.sweep --config configs/synthetic.py --workdir {workdir}"
        )
    return {
        name: _create(workdir, name, list(runs.values()), notes) for name, runs in found.items()
    }


def _find_configs(workdir: Path, notes: list[str]) -> list[Path]:
    """The config.json of every run below a folder; folders that cannot be read are noted."""
    unreadable: list[OSError] = []
    walk = list(os.walk(workdir, onerror=unreadable.append))
    notes += [f"{error.filename}: skipped ({error.strerror})" for error in unreadable]
    return sorted(Path(folder, "config.json") for folder, _, f in walk if "config.json" in f)


def choose_collection(
    collections: Mapping[str, Collection], dataset: str = "", otherwise: str = ""
) -> Collection:
    """The runs on a data set; if it is "", those on the only one or on `otherwise`.

    Raises:
        UserError: there are no runs on it, or several data sets to choose from.
    """
    names = ", ".join(collections)
    if dataset and dataset not in collections:
        raise UserError(f"--dataset: no runs on '{dataset}', only on {names}")
    name = dataset or (names if len(collections) == 1 else otherwise)
    if name not in collections:
        raise UserError(f"the runs are on {names}; a table cannot mix them, choose with --dataset")
    return collections[name]


def _load_run(folder: Path, method: str, seed: int) -> Run:
    if not (folder / "result.json").exists():
        raise UserError(f"{folder}: not finished")
    config = read_fields(folder / "config.json")
    result = read_result(folder / "result.json")
    if why := find_contradiction(config, METHODS[method]):
        raise UserError(f"{folder}: skipped, {why}")
    if config["seed"] != seed:
        raise UserError(f"{folder}: skipped, its seed is {config['seed']}, not that of its name")
    run = Run(method, seed, folder, config, result)
    try:
        actions = run.describe(num_classes=2).actions
    except UserError as error:
        raise UserError(f"{folder}: skipped, {error}") from error
    stops = {f"stop/{action.name}" for action in actions if not action.uses}
    missing = stops - result["eval"].keys() or (len(actions) > 1 and {"eval_early"} - result.keys())
    if missing:
        raise UserError(f"{folder}: skipped, its result.json lacks {min(missing)}")
    return run


def _create(folder: Path, dataset: str, found: Sequence[Run], notes: Sequence[str]) -> Collection:
    """Leave out runs that contradict the first one, which is SoF-Net's if it was trained."""
    methods = list(dict.fromkeys(run.method for run in found))
    order = sorted(found, key=lambda r: (r.method != "sofnet", methods.index(r.method), r.seed))
    first, odd = order[0], []
    runs: dict[str, tuple[Run, ...]] = {}
    for run in order:
        differences = _compare(run, first)
        wrong = [text for field, text in differences.items() if field in _DEFINING]
        if wrong:
            odd.append(f"{run.folder}: skipped, {', '.join(wrong)}")
            continue
        if differences:
            odd.append(f"{run.folder}: {', '.join(differences.values())} as in {first.folder}")
        runs[run.method] = (*runs.get(run.method, ()), run)
    return Collection(folder, dataset, runs, (*notes, *odd))


def _compare(run: Run, first: Run) -> dict[str, str]:
    """The fields in which two runs differ and should not."""
    methods = METHODS[run.method], METHODS[first.method]
    own = INDIFFERENT | {"seed"} | methods[0].changes.keys() | methods[1].changes.keys()
    own |= {name for each in (run, first) for name in list_foreign(each.config["model.system"])}
    expected = dict(first.config)
    if methods[0].size != methods[1].size:
        if methods[1].size == PAPER_SIZE:
            expected["data.size"] = scale_size(first.config["data.size"], methods[0].size)
        else:
            own |= {"data.size"}
    return {
        name: f"{name} is {run.config[name]}, not {expected.get(name)}"
        for name in sorted(run.config.keys() - own)
        if run.config[name] != expected.get(name)
    }
