"""Checkpoints of training: the latest and the best. The only file that knows Orbax."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from sofnet_jax.errors import UserError

Which = Literal["last", "best"]


class Checkpoints:
    """The checkpoints in a folder.

    A checkpoint is one pytree of arrays, and a JSON `record` of everything else that training needs
    to go on. It is written beside its place and renamed into it, so that a process killed at any
    moment leaves either the whole of it or nothing.
    """

    def __init__(self, directory: Path, *, metric: str):
        """Opens or creates the folder; the best checkpoint is that with the largest `metric`."""
        latest = checkpoint_managers.LatestN(n=1)
        best = checkpoint_managers.BestN(
            get_metric_fn=lambda metrics: metrics[metric],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        self._metric = metric
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy([latest, best]),
                cleanup_tmp_directories=True,
                # Restoring must not depend on what the directory held when it was opened.
                save_root_metadata=False,
            ),
        )

    def save(
        self,
        step: int,
        state: Any,
        record: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Writes a checkpoint in the background; `metrics` makes it a candidate for the best."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                record=ocp.args.JsonSave(dict(record)),
            ),
            metrics=None if metrics is None else {self._metric: float(metrics[self._metric])},
        )

    def find(self, which: Which) -> int | None:
        """Step of the latest or of the best checkpoint; None if there is none."""
        steps = self._manager.all_steps()
        if which == "last" or not steps:
            return max(steps, default=None)
        scores = {step: (self._manager.metrics(step) or {}).get(self._metric) for step in steps}
        rated = {step: score for step, score in scores.items() if score is not None}
        return max(rated, key=lambda step: (rated[step], step)) if rated else max(steps)

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

    def wait(self) -> None:
        """Returns when everything is on the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees what the manager holds."""
        self._manager.wait_until_finished()
        self._manager.close()


def require_same(saved: Mapping[str, Any], asked: Mapping[str, Any], where: Path) -> None:
    """Refuses a checkpoint of another model, or of a training that cannot be continued.

    Args:
        saved: what identifies it.
        asked: the same of the configuration.
        where: the checkpoints' folder.

    Raises:
        UserError: they differ; the first difference is named.
    """
    asked = json.loads(json.dumps(asked))  # tuples are lists in a saved record
    for name in sorted(asked.keys() | saved.keys()):
        if saved.get(name) != asked.get(name):
            raise UserError(
                f"{where} holds a checkpoint of another run: {name} is "
                f"{_shorten(saved.get(name))} there and {_shorten(asked.get(name))} in the "
                "configuration; use another --workdir or the same configuration"
            )


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"
