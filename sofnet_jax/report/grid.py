"""A grid of trainings, methods × seeds in folders METHOD/seed_N, and their progress."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict

from sofnet_jax.host.errors import DamagedError
from sofnet_jax.host.lock import InUseError, lock_folder
from sofnet_jax.report.ablations import Method, create_config
from sofnet_jax.run.checkpoint import Checkpoints, has_checkpoint, require_same
from sofnet_jax.run.config import flatten_fields, read_fields
from sofnet_jax.run.fields import INDIFFERENT, list_foreign
from sofnet_jax.run.result import read_result

Progress = Literal["done", "begun", "to do"]


@dataclass(frozen=True)
class Cell:
    """One training of a grid: its index from 0, resolved configuration and --workdir."""

    index: int
    method: Method
    seed: int
    config: ConfigDict
    folder: Path

    def find_progress(self) -> Progress:
        """How far the training has come.

        Raises:
            UserError: the folder holds a run of another configuration.
        """
        if not (self.folder / "config.json").exists():
            return "to do"
        has_result = (self.folder / "result.json").exists()
        resumes = has_checkpoint(self.folder / "checkpoints")
        if not has_result and not resumes:
            return "to do"
        saved = read_fields(self.folder / "config.json")
        asked = flatten_fields(self.config.to_dict())
        compared = asked.keys() - INDIFFERENT - list_foreign(self.config.model.system)
        require_same(
            {name: saved.get(name) for name in compared},
            {name: asked[name] for name in compared},
            self.folder,
        )
        # `main` writes the result after the last checkpoint, which may have been deleted since.
        return "done" if has_result and (not resumes or self._is_complete()) else "begun"

    def _is_complete(self) -> bool:
        """Whether the result belongs to the end of training; `--mode evaluate` writes others."""
        c = self.config
        checkpoints = Checkpoints(self.folder / "checkpoints", metric=c.eval.metric, read_only=True)
        try:
            last, chosen = checkpoints.find("last"), checkpoints.find(c.eval.checkpoint)
            if last is None:
                return False
            total_steps = checkpoints.read_record(last).get("total_steps")
        except DamagedError:
            return False  # training resumes from the one before
        finally:
            checkpoints.close()
        return last == total_steps and self.read_result().get("step") == chosen

    def read_result(self) -> dict[str, Any]:
        """The content of result.json. Raises UserError."""
        return read_result(self.folder / "result.json")

    def is_locked(self) -> bool:
        """Whether a process is training it now; creates the folder.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            with lock_folder(self.folder, "training"):
                return False
        except InUseError:
            return True


def create_grid(
    base: ConfigDict, workdir: Path, methods: Sequence[Method], seeds: Sequence[int]
) -> list[Cell]:
    """List the trainings seed by seed, so that a sweep cut short has complete comparisons."""
    pairs = [(seed, method) for seed in seeds for method in methods]
    return [
        Cell(i, method, seed, create_config(base, method, seed), folder)
        for i, (seed, method) in enumerate(pairs)
        for folder in [workdir / method.name / f"seed_{seed}"]
    ]
