"""Checkpoints of training: the latest two and the best. The only file that knows Orbax."""

import contextlib
import functools
import json
import logging
import math
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import check_size, is_number, read_json, write_json
from sofnet_jax.parallel import devices
from sofnet_jax.run.fields import CRITERIA

Which = Literal["last", "best"]
_DIGESTS = "crc32"  # their name in a stored record


class DamagedError(UserError):
    """A checkpoint is not, or not all, of what was written."""


class Checkpoints:
    """The checkpoints in a folder: the latest two, and of those that were evaluated the best.

    A checkpoint is one pytree of arrays, and a JSON `record` of everything else that training needs
    to go on. It is written beside its place and renamed into it, so that a process killed at any
    moment leaves either the whole of it or nothing. Digests of both tell whether a disk gives
    back what was written; where it does not, there is the checkpoint before. The metrics come
    later, since an evaluation takes time in which a state not saved could be lost; they stand in
    `metrics.json`.
    """

    def __init__(self, directory: Path, *, metric: str, read_only: bool = False):
        """Opens or creates the folder.

        Args:
            directory: the folder.
            metric: whose largest value makes the best checkpoint.
            read_only: leave everything as it is, also what another process is writing.

        Raises:
            UserError: its metrics.json is damaged.
        """
        _silence_orbax()
        self._metric = metric
        # What to do about damage; a training does it by itself.
        advice = "; take another copy of it, or train on from the one before"
        self._advice = advice if read_only else ""
        self._directory = directory.absolute()
        self._path = directory / "metrics.json"
        self._metrics = _read_metrics(self._path) if self._path.exists() else {}
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else self,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
            # Restoring must not depend on what the directory held when it was opened.
            save_root_metadata=False,
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
        """Writes a checkpoint in the background; does nothing if there is one of this step.

        Here, in `rate`, `wait` and `close` an error turns up of what was written before.
        """
        if step in self._manager.all_steps():
            return
        digests = {"arrays": _digest_arrays(state), "record": _digest_record(record)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                record=ocp.args.JsonSave({**record, _DIGESTS: digests}),
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
        kept = {*sorted(steps)[-2:], self._find_best(steps)}
        return [step in kept for step in steps]

    def take_up(self, restore: Callable[[int], None]) -> list[str]:
        """Restores the latest checkpoint that is whole, in all processes the same one.

        Damaged ones that are newer are set aside: renamed, so that they are none any more.

        Args:
            restore: restores that of a step. Raises DamagedError.

        Returns:
            What was set aside, in a line each.

        Raises:
            UserError: none is whole; all are left as they are.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restore(step)
                found = {}
            except DamagedError as error:
                found = {"why": str(error)}
            if not (found := devices.gather_dict(found)):
                return self._set_aside(damaged, step) if damaged else []
            damaged[step] = found["why"]
        if damaged:
            why = damaged[max(damaged)]
            raise UserError(
                f"no checkpoint in {self._directory} is whole; copy one back, or give another "
                f"--workdir; the newest: {why}"
            )
        return []

    def _set_aside(self, damaged: Mapping[int, str], whole: int) -> list[str]:
        """Renames checkpoints, with what is wrong with them, that are newer than a whole one."""
        self._metrics = {s: m for s, m in self._metrics.items() if int(s) not in damaged}
        if jax.process_index() == 0:
            write_json(self._path, self._metrics)
            for step in damaged:
                aside = self._directory / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (self._directory / str(step)).rename(aside)
        devices.gather_dict({})  # the others wait for it
        self._manager.reload()
        return [
            f"{why}; set aside as {step}.damaged, going on from step {whole}"
            for step, why in damaged.items()
        ]

    def read_record(self, step: int) -> dict[str, Any]:
        """The JSON record of a checkpoint. Raises DamagedError."""
        return self._read_record(step)[0]

    def restore(self, step: int, like: Any) -> Any:
        """The arrays of a checkpoint in this process's memory, in the structure of `like`.

        Raises DamagedError.
        """

        def describe(x: Any) -> np.ndarray:
            return np.empty(np.shape(x), x.dtype)

        return self._read_state(step, jax.tree.map(describe, like))

    def read_variables(self, step: int) -> dict[str, Any]:
        """Parameters and running statistics of a checkpoint of any model. Raises DamagedError."""
        state = self._read_state(step, None)
        return {name: state[name] for name in ("params", "batch_stats")}

    def _read_record(self, step: int) -> tuple[dict[str, Any], int | None]:
        """The record, and the digest of the arrays; None in checkpoints of before there was one."""
        with self._reading(step) as path:
            handler = ocp.JsonCheckpointHandler()
            record = dict(handler.restore(path / "record", args=ocp.args.JsonRestore()))
            digests = record.pop(_DIGESTS, {})
            if digests and digests["record"] != _digest_record(record):
                raise ValueError("its record is not what was written")
            return record, digests.get("arrays")

    def _read_state(self, step: int, target: Any) -> Any:
        """All arrays, of which the digest is checked; without a target in dictionaries."""
        _, digest = self._read_record(step)
        with self._reading(step) as path:
            # Not through the manager, whose processes wait for each other, also for one that fails.
            handler = ocp.StandardCheckpointHandler()
            _check_sizes(handler, path / "state")
            state = handler.restore(path / "state", args=ocp.args.StandardRestore(target))
            if digest not in (None, _digest_arrays(state)):
                raise ValueError("its arrays are not what was written")
            return state

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[Path]:
        """Gives the folder of a checkpoint, and turns what is raised at damage to DamagedError."""
        path = self._directory / str(step)
        try:
            yield path
        except MemoryError:
            raise
        except Exception as error:  # Orbax and TensorStore raise anything
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DamagedError(
                f"the checkpoint {path} is damaged or not whole ({_shorten(reason, 200)})"
                f"{self._advice}"
            ) from error

    def wait(self) -> None:
        """Returns when everything is on the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and frees what the manager holds."""
        self._manager.wait_until_finished()
        self._manager.close()


def _read_metrics(path: Path) -> dict[str, dict[str, float]]:
    """What is known of each checkpoint. Raises UserError."""
    try:
        metrics = read_json(path)
        whole = all(
            isinstance(rated, dict) and all(is_number(rated.get(name)) for name in CRITERIA)
            for rated in metrics.values()
        )
    except UserError:
        whole = False
    if not whole:
        raise UserError(
            f"{path} is damaged; delete it, and the best checkpoint is the best from there on"
        )
    return metrics


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
                f"{_shorten(repr(saved.get(name)))} there and {_shorten(repr(asked.get(name)))} "
                "in the configuration; give the fields it was trained with, or another --workdir"
            )


def _digest_record(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _digest_arrays(state: Any) -> int:
    """CRC-32 of all arrays with their names, types and shapes, whatever holds them."""
    lines = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        content = zlib.crc32(array.reshape(-1).view(np.uint8).data)
        lines.append(f"{name} {array.dtype} {np.shape(leaf)} {content}")
    return zlib.crc32("\n".join(sorted(lines)).encode())


def _check_sizes(handler: ocp.StandardCheckpointHandler, folder: Path) -> None:
    """Refuses arrays of sizes that their files cannot mean: TensorStore would end the process.

    Raises ValueError.
    """
    arrays = jax.tree.leaves(handler.metadata(folder))
    unpacked = sum(  # a piece is read as a whole, however small the array
        max(math.prod(x.shape), math.prod(x.storage.chunk_shape)) * np.dtype(x.dtype).itemsize
        for x in arrays
    )
    check_size(unpacked, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))


@functools.cache
def _silence_orbax() -> None:
    """Keeps Orbax from telling by other ways as well what it raises; we tell it in one line.

    It logs, and it leaves alone what it had begun beside what failed, of which asyncio and the
    threads of TensorStore complain that nobody waits for it.
    """
    package = f"/{ocp.__name__.replace('.', '/')}/"
    logging.getLogger("absl").addFilter(lambda record: package not in record.pathname)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine '.*' was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def pass_on(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            before(unraisable)

    sys.unraisablehook = pass_on


def _shorten(text: str, length: int = 80) -> str:
    return text if len(text) < length else text[: length - 3] + "…"
