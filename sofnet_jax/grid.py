"""A grid of trainings, methods × seeds, and what of it is done. Its folders are METHOD/seed_N."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs.default import create_default
from sofnet_jax.checkpoint import Checkpoints, DamagedError, has_checkpoint, require_same
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import read_json
from sofnet_jax.host.lock import claim
from sofnet_jax.method import Method, create_config
from sofnet_jax.result import read_result
from sofnet_jax.values import check_fields

Progress = Literal["done", "begun", "to do"]
# Where and how fast a run is computed, which changes nothing of what comes out.
INDIFFERENT = {
    "data.keep",
    "data.num_workers",
    "data.synthetic.root",
    "eval.batch_size",
    "parallel.coordinator",
    "parallel.num_processes",
    "parallel.process_id",
    "train.log_every",
    "train.remat",
}


@dataclass(frozen=True)
class Cell:
    """One training of a grid.

    Attributes:
        index: in the grid, from 0.
        config: the resolved configuration.
        folder: the --workdir of the training.
    """

    index: int
    method: Method
    seed: int
    config: ConfigDict
    folder: Path

    def find_progress(self) -> Progress:
        """How far the training has come, as its folder tells.

        Raises:
            UserError: the folder is that of another configuration.
        """
        if not (self.folder / "config.json").exists():
            return "to do"
        has_result = (self.folder / "result.json").exists()
        resumes = has_checkpoint(self.folder / "checkpoints")
        if not has_result and not resumes:
            return "to do"
        saved = read_fields(self.folder / "config.json")
        asked = flatten_fields(self.config.to_dict())
        compared = asked.keys() - INDIFFERENT
        require_same(
            {name: saved.get(name) for name in compared},
            {name: asked[name] for name in compared},
            self.folder,
        )
        # Checkpoints may have been deleted to save space; `main` writes the result after the last.
        return "done" if has_result and (not resumes or self._is_complete()) else "begun"

    def _is_complete(self) -> bool:
        """Whether the result is that of the whole training; `--mode evaluate` writes others."""
        c = self.config
        checkpoints = Checkpoints(self.folder / "checkpoints", metric=c.eval.metric, read_only=True)
        try:
            last, chosen = checkpoints.find("last"), checkpoints.find(c.eval.checkpoint)
            if last is None:
                return False
            videos = checkpoints.read_record(last)["schedule"]["number of training videos"]
        except DamagedError:
            return False  # training goes on from the one before
        finally:
            checkpoints.close()
        epochs = c.train.warmup_epochs + c.train.joint_epochs
        whole = last == epochs * (videos // c.train.batch_size)
        return whole and self.read_result().get("step") == chosen

    def read_result(self) -> dict[str, Any]:
        """The result of the training. Raises UserError."""
        return read_result(self.folder / "result.json")

    def is_claimed(self) -> bool:
        """Whether some process trains it at this moment; creates the folder.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            with claim(self.folder, "training"):
                return False
        except UserError as error:
            if isinstance(error.__cause__, BlockingIOError):
                return True
            raise


def create_grid(
    base: ConfigDict, workdir: Path, methods: Sequence[Method], seeds: Sequence[int]
) -> list[Cell]:
    """Seed by seed, so that a sweep cut short has whole comparisons."""
    pairs = [(seed, method) for seed in seeds for method in methods]
    return [
        Cell(
            index=index,
            method=method,
            seed=seed,
            config=create_config(base, method, seed),
            folder=workdir / method.name / f"seed_{seed}",
        )
        for index, (seed, method) in enumerate(pairs)
    ]


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of a config.json by dotted names; of older ones that lack some, the defaults.

    Raises:
        UserError: there is none, or it is damaged.
    """
    defaults = flatten_fields(create_default().to_dict())
    given = read_given_fields(path)
    return defaults | {name: value for name, value in given.items() if name in defaults}


def read_given_fields(path: Path) -> dict[str, Any]:
    """All that stands in a config.json, by dotted names, with values that fields can have.

    Raises:
        UserError: there is none, or it is damaged.
    """
    content = read_json(path)
    try:
        given = flatten_fields(content)
        check_fields(given)
    except (RecursionError, UserError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return given


def flatten_fields(config: dict[str, Any]) -> dict[str, Any]:
    """The values of a configuration by their dotted names."""
    return flatten_dict(config, sep=".")
