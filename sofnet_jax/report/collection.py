"""The finished trainings below a folder, by method and seed, as `sofnet_jax.sweep` leaves them."""

import functools
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sofnet_jax.data.synthetic.dataset import is_synthetic
from sofnet_jax.host.errors import UserError
from sofnet_jax.report.ablations import METHODS, PAPER_SIZE, find_contradiction, scale_size
from sofnet_jax.report.bootstrap import Metric, Scored, create_scored
from sofnet_jax.report.paper import DATASETS, TOP1_DATASETS
from sofnet_jax.run.config import create_default, read_fields
from sofnet_jax.run.fields import INDIFFERENT
from sofnet_jax.run.predictions import Predictions, read_predictions
from sofnet_jax.run.result import read_result
from sofnet_jax.systems.sofnet.architecture import create_architecture
from sofnet_jax.systems.sofnet.costs import Cost, compute_costs

# Of sofnet_jax.sweep, METHOD/seed_N; of sofnet_jax.compare, METHOD_seedN.
_FOLDER = re.compile(r"(?:^|/)(\w+?)(?:/seed_|_seed)(\d+)$")
# Fields that make a method what it is, and in which runs of one must therefore agree.
_METHODICAL = {"data.size", *(field for method in METHODS.values() for field in method.changes)}


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        method: a key of `METHODS`.
        config: its fields by their dotted names.
        result: content of its result.json.
    """

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
        """Of the code that trained it."""
        return str(self.result.get("commit", "unknown"))

    @property
    def gate_names(self) -> tuple[str, ...]:
        """`("res1", …)`, the stages that a gate follows."""
        return tuple(f"res{stage}" for stage in self.config["model.gates"])

    def metrics(self, early: bool) -> Mapping[str, float]:
        """Of the evaluation with or without early termination."""
        return self.result["eval_early" if early else "eval"]

    @functools.cached_property
    def predictions(self) -> tuple[Predictions, tuple[str, ...]]:
        """What it said of each video, and the names of its gates. Raises UserError."""
        path = self.folder / "predictions.npz"
        predictions, gate_names = read_predictions(path)
        if gate_names != self.gate_names:
            raise UserError(f"{path} is of other gates than its config.json; evaluate it again")
        return predictions, gate_names

    @property
    def rule(self) -> dict[str, Any]:
        """Of the early termination: `threshold` and `min_frames`."""
        return {name: self.config[f"eval.{name}"] for name in ("threshold", "min_frames")}

    def restore_config(self) -> ConfigDict:
        """Its configuration as `experiment` takes it.

        A folder that it names is read, but not written to: embedded videos that are not there are
        drawn in the cache.
        """
        config = create_default()
        config.update_from_flattened_dict(dict(self.config))
        if not is_synthetic(Path(config.data.synthetic.root).expanduser()):
            config.data.synthetic.root = ""
        return config

    @functools.cached_property
    def tsn_gflops(self) -> float:
        """GFLOPs of a video, of the network without gates."""
        classes = self.predictions[0].labels.shape[1]
        cost, _ = replace(self, config={**self.config, "model.gates": ()}).compute_costs(classes)
        return cost.whole * self.config["data.num_frames"]

    def compute_costs(self, num_classes: int) -> tuple[Cost, Cost]:
        """The `paper` and the `full` cost of a frame."""
        prefix = "model."
        fields = {k.removeprefix(prefix): v for k, v in self.config.items() if k.startswith(prefix)}
        fields |= {"num_classes": num_classes, "gates": tuple(fields["gates"])}
        return compute_costs(create_architecture(**fields), self.config["data.size"])

    @functools.cache  # noqa: B019 (a report ends before memory matters)
    def score(self, early: bool) -> Scored:
        """Its predictions of whole videos. Raises UserError."""
        return create_scored(*self.predictions, **self.rule if early else {})

    def __hash__(self) -> int:
        return hash(self.folder)


@dataclass(frozen=True)
class Value:
    """A number of several runs that differ in their seeds alone."""

    mean: float
    deviation: float | None
    count: int

    def format(self, spec: str) -> str:
        """Such as `91.4 ± 0.3`, both to the same place; without a deviation of but one run."""
        if spec.endswith("g"):  # so many significant digits of the mean
            exponent = math.floor(math.log10(abs(self.mean))) if self.mean else 0
            spec = f".{max(int(spec[1:-1]) - 1 - exponent, 0)}f"
        text = format(self.mean, spec)
        return text if self.deviation is None else f"{text} ± {format(self.deviation, spec)}"


@dataclass(frozen=True)
class Collection:
    """The runs on one data set.

    Attributes:
        dataset: its name.
        runs: by method, in the order of their seeds.
        notes: what is odd about them, a sentence each.
    """

    dataset: str
    runs: Mapping[str, tuple[Run, ...]]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The data set's name for people."""
        return DATASETS.get(self.dataset, self.dataset)

    def find(self, method: str) -> tuple[Run, ...]:
        """The runs of a method; none if it was not trained."""
        return self.runs.get(method, ())

    def choose_metric(self, otherwise: Metric = "map") -> Metric:
        """The accuracy that the paper reports of the data set; of others that of a table."""
        if self.dataset in TOP1_DATASETS:
            return "top1"
        return "map" if self.dataset in ("activitynet", "thumos14") else otherwise

    def describe(self, methods: Sequence[str]) -> str:
        """What the runs of some methods are: seeds and commits."""
        runs = [run for method in methods for run in self.find(method)]
        if not runs:
            return f"{self.title}: no runs"
        seeds = sorted({run.seed for run in runs})
        commits = ", ".join(sorted({run.commit for run in runs}))
        plural = "s" if len(seeds) > 1 else ""
        return f"{self.title}: seed{plural} {', '.join(map(str, seeds))}; commit {commits}"


def measure(runs: Sequence[Run], read: Callable[[Run], float | None]) -> Value | None:
    """Mean and standard deviation over the runs that have such a number; None if none has."""
    known = [number for run in runs if (number := read(run)) is not None]
    if not known:
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Value(statistics.mean(known), deviation, len(known))


def load_collections(workdir: Path) -> dict[str, Collection]:
    """All finished runs below a folder, by data set.

    Raises:
        UserError: there is none.
    """
    notes: list[str] = []
    found: dict[str, dict[str, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
    if not workdir.is_dir():
        raise UserError(f"{workdir}: no such folder")
    for path in sorted(workdir.rglob("config.json")):
        match = _FOLDER.search(path.parent.relative_to(workdir).as_posix())
        if match is None or match[1] not in METHODS:
            continue
        try:
            run = _load_run(path.parent, match[1], int(match[2]))
        except UserError as error:
            notes.append(str(error))
            continue
        others = found[run.dataset][run.method]
        if other := others.get(run.seed):
            notes.append(
                f"{run.folder}: left out, for {other.folder} is of the same method and seed"
            )
        else:
            others[run.seed] = run
    if not found:
        raise UserError(
            f"{workdir} holds no finished runs ({'; '.join(notes) or 'none begun'}); train some: "
            f"python -m sofnet_jax.sweep --config configs/synthetic.py --workdir {workdir}"
        )
    return {name: _create(name, methods, notes) for name, methods in found.items()}


def choose_collection(
    collections: Mapping[str, Collection], dataset: str = "", otherwise: str = ""
) -> Collection:
    """The runs on the data set that is asked for, or on the only one there is.

    Args:
        collections: of `load_collections`.
        dataset: its name; "" leaves it open.
        otherwise: of several, the one to take if nothing is asked for.

    Raises:
        UserError: there are none of that one, or of several.
    """
    names = ", ".join(collections)
    if dataset:
        if dataset not in collections:
            raise UserError(f"no runs on '{dataset}' there, but on {names}; see --dataset")
        return collections[dataset]
    if len(collections) == 1:
        return next(iter(collections.values()))
    if otherwise in collections:
        return collections[otherwise]
    raise UserError(f"there are runs on {names}, which one table cannot mix; choose with --dataset")


def _load_run(folder: Path, method: str, seed: int) -> Run:
    if not (folder / "result.json").exists():
        raise UserError(f"{folder}: begun and not finished")
    config = read_fields(folder / "config.json")
    result = read_result(folder / "result.json")
    if why := find_contradiction(config, METHODS[method]):
        raise UserError(f"{folder}: left out, for {why}")
    if config["seed"] != seed:
        raise UserError(f"{folder}: left out, for it is not what its name says")
    run = Run(method, seed, folder, config, result)
    try:
        run.compute_costs(num_classes=2)
    except UserError as error:
        raise UserError(f"{folder}: left out, for {error}") from error
    gates = {f"stop/{name}" for name in run.gate_names}
    missing = gates - result["eval"].keys() or (gates and {"eval_early"} - result.keys())
    if missing:
        raise UserError(f"{folder}: left out, for its result.json lacks {min(missing)}")
    return run


def _create(
    dataset: str, methods: Mapping[str, Mapping[int, Run]], notes: Sequence[str]
) -> Collection:
    everything = [
        found[seed]
        for method, found in sorted(methods.items(), key=lambda item: item[0] != "sofnet")
        for seed in sorted(found)
    ]
    first, odd = everything[0], []
    runs: dict[str, tuple[Run, ...]] = {}
    for run in everything:
        differences = _compare(run, first)
        wrong = {field: text for field, text in differences.items() if field in _METHODICAL}
        if wrong:
            odd.append(f"{run.folder}: left out, for it has {', '.join(wrong.values())}")
            continue
        if differences:
            told = ", ".join(differences.values())
            odd.append(f"{run.folder}: trained with {told}, unlike {first.folder}")
        runs[run.method] = (*runs.get(run.method, ()), run)
    return Collection(dataset, runs, (*notes, *odd))


def _compare(run: Run, other: Run) -> dict[str, str]:
    """The fields in which two runs differ and should not."""
    methods = METHODS[run.method], METHODS[other.method]
    own = INDIFFERENT | {"seed"} | methods[0].changes.keys() | methods[1].changes.keys()
    expected = dict(other.config)
    if methods[0].size != methods[1].size:
        if methods[1].size == PAPER_SIZE:
            expected["data.size"] = scale_size(other.config["data.size"], methods[0].size)
        else:
            own |= {"data.size"}
    return {
        name: f"{name} {run.config[name]} (not {expected.get(name)})"
        for name in sorted(run.config.keys() - own)
        if run.config[name] != expected.get(name)
    }
