"""Checkpoints of training: the latest and the best. The only file that knows Orbax."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from sofnet_jax.errors import UserError
from sofnet_jax.metrics import CRITERIA
from sofnet_jax.result import write_json

Which = Literal["last", "best"]


class Checkpoints:
    """The checkpoints in a folder: the latest, and of those that were evaluated the best.

    A checkpoint is one pytree of arrays, and a JSON `record` of everything else that training needs
    to go on. It is written beside its place and renamed into it, so that a process killed at any
    moment leaves either the whole of it or nothing. Its metrics come later, since an evaluation
    takes time in which a state not saved could be lost; they stand in `metrics.json`.
    """

    def __init__(self, directory: Path, *, metric: str, read_only: bool = False):
        """Opens or creates the folder.

        Args:
            directory: the folder.
            metric: whose largest value makes the best checkpoint.
            read_only: leave everything as it is, also what another process is writing.
        """
        self._metric = metric
        self._path = directory / "metrics.json"
        self._metrics = json.loads(self._path.read_text()) if self._path.exists() else {}
        with _quiet() if read_only else contextlib.nullcontext():
            options = ocp.CheckpointManagerOptions(
                preservation_policy=None if read_only else self,
                cleanup_tmp_directories=not read_only,
                read_only=read_only,
                create=not read_only,
                # Restoring must not depend on what the directory held when it was opened.
                save_root_metadata=False,
            )
            self._manager = ocp.CheckpointManager(directory.absolute(), options=options)

    def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
        """Writes a checkpoint in the background; does nothing if there is one of this step."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                record=ocp.args.JsonSave(dict(record)),
            ),
        )

    def rate(self, step: int, metrics: Mapping[str, float]) -> None:
        """Notes what the evaluation of a checkpoint gave: a candidate for the best."""
        self.wait()  # else a process killed now would leave the metrics of a checkpoint it has not
        kept = {
            str(s): self._metrics[str(s)] for s in self._manager.all_steps() if self.is_rated(s)
        }
        self._metrics = kept | {str(step): {name: float(metrics[name]) for name in CRITERIA}}
        if jax.process_index() == 0:
            write_json(self._path, self._metrics)

    def is_rated(self, step: int) -> bool:
        """Whether the metrics of a checkpoint are known."""
        return str(step) in self._metrics

    def find(self, which: Which) -> int | None:
        """Step of the latest or of the best checkpoint; None if there is none."""
        steps = self._manager.all_steps()
        return self._find_best(steps) if which == "best" else max(steps, default=None)

    def _find_best(self, steps: Sequence[int]) -> int | None:
        """The later one of equals; the latest of all if none was evaluated."""
        rated = [step for step in steps if self.is_rated(step)]
        if not rated:
            return max(steps, default=None)
        return max(rated, key=lambda step: (self._metrics[str(step)][self._metric], step))

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Orbax's question after each save: which ones to keep."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {max(steps, default=None), self._find_best(steps)}
        return [step in kept for step in steps]

    def read_record(self, step: int) -> dict[str, Any]:
        """The JSON record of a checkpoint."""
        return self._manager.restore(
            step, args=ocp.args.Composite(record=ocp.args.JsonRestore())
        ).record

    def restore(self, step: int, like: Any) -> Any:
        """The arrays of a checkpoint in this process's memory, in the structure of `like`."""

        def describe(x: Any) -> np.ndarray:
            return np.empty(np.shape(x), x.dtype)

        target = jax.tree.map(describe, like)
        return self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
        ).state

    def read_variables(self, step: int) -> dict[str, Any]:
        """Parameters and running statistics of a checkpoint of any model."""
        state = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore())
        ).state
        return {name: state[name] for name in ("params", "batch_stats")}

    def wait(self) -> None:
        """Returns when everything is on the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees what the manager holds."""
        self._manager.wait_until_finished()
        self._manager.close()


def has_checkpoint(directory: Path) -> bool:
    """Whether a folder holds a checkpoint, without opening it."""
    return any(path.name.isdigit() for path in directory.glob("*"))


def require_same(saved: Mapping[str, Any], asked: Mapping[str, Any], where: Path) -> None:
    """Refuses a checkpoint of another model, or of a training that cannot be continued.

    Args:
        saved: what identifies it.
        asked: the same of the configuration.
        where: the checkpoints' folder.

    Raises:
        UserError: they differ; the first difference is named.
    """
    saved, asked = json.loads(json.dumps([saved, asked]))  # tuples are lists in a saved record
    for name in sorted(asked.keys() | saved.keys()):
        if saved.get(name) != asked.get(name):
            raise UserError(
                f"{where} holds a checkpoint of another run: {name} is "
                f"{_shorten(saved.get(name))} there and {_shorten(asked.get(name))} in the "
                "configuration; give the fields it was trained with, or another --workdir"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: Orbax finds it odd that a directory is only read."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"
