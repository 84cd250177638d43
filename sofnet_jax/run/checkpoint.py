"""Checkpoints of training: the two latest and the best. The only file that knows Orbax."""

import contextlib
import errno
import functools
import json
import logging
import math
import os
import re
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from sofnet_jax.host.errors import DamagedError, UserError, first_line, shorten
from sofnet_jax.host.files import check_size, is_number, read_json, write_json
from sofnet_jax.parallel import devices
from sofnet_jax.run.fields import CRITERIA

Which = Literal["last", "best"]
_DIGESTS = "crc32"  # the field of a stored record that holds the checksums
_ORBAX = re.compile(r"/orbax/checkpoint/|tensorstore|in OCDBT database")
# Warnings of Orbax about what a reader asks for, and about what it then raises.
_ROUTINE = re.compile(r"read[_ ]only|^Metadata file does not exist")
# Orbax takes a path for a pattern when it writes, and some paths for addresses; TensorStore takes
# a backslash for a slash.
_MISREAD = r"\\|[\ud800-\udfff]|^/(gs|s3|az|hf)(?=/)|(gs|s3|az|hf):(?=/)"
_MISREAD_IN_WRITING = re.compile(rf"[*?[]|{_MISREAD}")
_MISREAD_IN_READING = re.compile(_MISREAD)
# Coroutines of Orbax; the warning names no file.
_ABANDONED = (
    r"coroutine '(\S+\.)?_(background_serialize|coro_with_registration|create_paths|open_and_write|"
    r"save_fn|serialize\w*|write_metadata_\w+)' was never awaited"
)
_CLOSED = "Event loop is closed"
# What Orbax and TensorStore raise for wrong content. JAX raises RuntimeError for a missing device.
_WRONG = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


class Checkpoints:
    """The checkpoints in a folder: the two latest, and the best of those that were evaluated.

    A checkpoint is one pytree of arrays and a JSON `record` of everything else that training needs
    to resume. It is written to a temporary folder and renamed, so that a process killed at any
    moment leaves a whole checkpoint or none. Checksums of both detect what a disk corrupts; then
    the previous checkpoint is used. `metrics.json` holds the metrics of each checkpoint; they
    follow later, since a state left unsaved during an evaluation could be lost.
    """

    def __init__(self, directory: Path, *, metric: str, read_only: bool = False):
        """Opens or creates the folder.

        Raises UserError if it cannot be read, if metrics.json is damaged, or if Orbax would misread
        the folder's path.

        The largest `metric` makes a checkpoint the best. With `read_only`, nothing is changed, not
        even what another process has half written.
        """
        self._metric = metric
        self.read_only = read_only
        self.directory = directory.absolute()
        self._is_proven = read_only
        _require_readable_path(self.directory, read_only)
        self._path = directory / "metrics.json"
        self._metrics = _read_metrics(self._path) if self._path.exists() else {}
        devices.require_devices()  # Orbax asks JAX for the number of this process
        _silence_orbax()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else self,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
            # Restoring must not depend on what the directory held when it was opened.
            save_root_metadata=False,
        )
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise UserError(f"cannot open {directory}: {error.strerror or error}") from error
        except _WRONG as error:
            raise UserError(
                f"{directory} holds a checkpoint with a damaged _CHECKPOINT_METADATA "
                f"({first_line(error)}); move that checkpoint to another folder"
            ) from error

    def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
        """Writes a checkpoint in the background, unless this step has one.

        Errors in the background are raised by the next `save`, `rate`, `wait` or `close`.
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
        """Stores the metrics of a checkpoint, which makes it a candidate for the best.

        Raises UserError if the first one cannot be read back.
        """
        self.wait()  # a process killed now must not leave metrics without their checkpoint
        self._prove(step)
        steps = self._manager.all_steps()
        kept = {s: rated for s, rated in self._metrics.items() if s in steps}
        self._metrics = kept | {step: {name: float(metrics[name]) for name in CRITERIA}}
        if jax.process_index() == 0:
            write_json(self._path, self._metrics)

    def _prove(self, step: int) -> None:
        """Reads back the first checkpoint, since later ones are written in the same way."""
        if step not in self._manager.all_steps():  # a training of no steps writes none
            return
        if not self._is_proven and jax.process_index() == 0:
            try:
                self._read_state(step, None)
            except DamagedError as error:
                raise UserError(f"{error}, though it was just written; check the disk") from error
        self._is_proven = True

    def is_rated(self, step: int) -> bool:
        """True if a checkpoint has metrics."""
        return step in self._metrics

    def find(self, which: Which) -> int | None:
        """The step of the latest or the best checkpoint; None without any."""
        steps = self._manager.all_steps()
        return self._find_best(steps) if which == "best" else max(steps, default=None)

    def _find_best(self, steps: Sequence[int]) -> int | None:
        """The later of equals; the latest of all if none was evaluated."""

        def rank(step: int) -> tuple[float, int]:
            return self._metrics.get(step, {}).get(self._metric, -math.inf), step

        return max(steps, key=rank, default=None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Orbax's preservation policy, called after each save."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-2:], self._find_best(steps)}
        return [step in kept for step in steps]

    def restore_latest(self, restore: Callable[[int], object]) -> list[str]:
        """Restores the latest whole checkpoint, the same in all processes, if there are any.

        `restore(step)` raises DamagedError for a damaged one. Newer damaged ones are renamed, and
        returned as a line each; so is the best one, which the end of a training needs. With
        `read_only`, a damaged latest one is an error. Raises UserError if none is whole or one
        cannot be read; then all are left in place.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            found = {}
            try:
                restore(step)
            except DamagedError as error:
                if self.read_only:
                    raise
                found = {"why": str(error)}
            if not (found := devices.gather_dict(found)):
                damaged |= {} if self.read_only else self._examine_best(damaged, step)
                return self._set_aside(damaged, step) if damaged else []
            damaged[step] = found["why"]
        if damaged:
            raise UserError(
                f"no checkpoint in {self.directory} is whole; copy one back, or give another "
                f"--workdir; the newest: {damaged[max(damaged)]}"
            )
        return []

    def _examine_best(self, damaged: Collection[int], whole: int) -> dict[int, str]:
        """Why the best of the checkpoints that are not known as damaged or whole is damaged."""
        best = self._find_best([s for s in self._manager.all_steps() if s not in damaged])
        found = {}
        if best is not None and best != whole:
            try:
                self._read_state(best, None)
            except DamagedError as error:
                found = {"why": str(error)}
        found = devices.gather_dict(found)
        return {best: found["why"]} if best is not None and found else {}

    def _set_aside(self, damaged: Mapping[int, str], whole: int) -> list[str]:
        """Renames damaged checkpoints, given with the reasons, and describes each in a line."""
        self._metrics = {s: rated for s, rated in self._metrics.items() if s not in damaged}
        if jax.process_index() == 0:
            write_json(self._path, self._metrics)
            for step in damaged:
                aside = self.directory / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                if aside.is_file():
                    aside.unlink()
                (self.directory / str(step)).rename(aside)
        devices.gather_dict({})  # the other processes wait for the renaming
        self._manager.reload()
        return [
            f"{why}; set aside as {step}.damaged, resuming from step {whole}"
            for step, why in damaged.items()
        ]

    def read_record(self, step: int) -> dict[str, Any]:
        """The JSON record of a checkpoint. Raises UserError; if it is damaged, DamagedError."""
        return self._read_record(step)[0]

    def restore(self, step: int, like: Any) -> Any:
        """The arrays of a checkpoint in host memory, in the structure of `like`.

        Raises UserError; if it is damaged, DamagedError.
        """
        return self._read_state(step, jax.tree.map(lambda x: np.empty(np.shape(x), x.dtype), like))

    def read_variables(self, step: int) -> dict[str, Any]:
        """Parameters and running statistics of a checkpoint of any model.

        Raises UserError; if it is damaged, DamagedError.
        """
        state = self._read_state(step, None)
        return {name: state[name] for name in ("params", "batch_stats")}

    def _read_record(self, step: int) -> tuple[dict[str, Any], int]:
        """The record, and the checksum of the arrays."""
        with self._reading(step) as path:
            handler = ocp.JsonCheckpointHandler()
            record = dict(handler.restore(path / "record", args=ocp.args.JsonRestore()))
            digests = record.pop(_DIGESTS, None)
            if digests is None:
                raise ValueError("without checksums, as versions before 0.1.0 wrote it")
            if digests["record"] != _digest_record(record):
                raise ValueError("its record is not what was written")
            return record, digests["arrays"]

    def _read_state(self, step: int, target: Any) -> Any:
        """All arrays, verified, in the structure of `target`; None means dictionaries."""
        _, digest = self._read_record(step)
        with self._reading(step) as path:
            # Not through the manager: its processes wait for each other, even for one that fails.
            handler = ocp.StandardCheckpointHandler()
            _check_sizes(handler, path / "state")
            state = handler.restore(path / "state", args=ocp.args.StandardRestore(target))
            if digest != _digest_arrays(state):
                raise ValueError("its arrays are not what was written")
            return state

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[Path]:
        """Gives the folder of a checkpoint; turns the errors of reading it into UserError.

        Only missing files and wrong content are damage.
        """
        path = self.directory / str(step)
        try:
            yield path
        except (OSError, *_WRONG) as error:
            if code := _find_refusal(error):
                raise UserError(
                    f"cannot read the checkpoint {path}: {os.strerror(code)}; it may be whole, so "
                    "nothing was changed; run the same command again once it can be read"
                ) from error
            advice = "; take another copy of it, or resume training from the one before"
            raise DamagedError(
                f"the checkpoint {path} is damaged or not whole ({first_line(error)})"
                f"{advice if self.read_only else ''}"  # training resumes from it by itself
            ) from error

    def wait(self) -> None:
        """Waits until everything is on the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases the manager."""
        self._manager.wait_until_finished()
        self._manager.close()


def _read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """The metrics of each checkpoint. Raises UserError."""
    with contextlib.suppress(DamagedError, ValueError, TypeError, KeyError):
        metrics = {int(step): rated for step, rated in read_json(path).items()}
        if all(is_number(rated[name]) for rated in metrics.values() for name in CRITERIA):
            return metrics
    raise UserError(
        f"{path} is damaged; delete it, and the best checkpoint is chosen from later ones"
    )


def _find_refusal(error: Exception) -> int | None:
    """The system's error number if it refused to read a file that is there.

    TensorStore raises ValueError with the number in its message.
    """
    found = re.search(r"os_error_code='(\d+)'", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None)
    return None if code in _MISSING else code


def has_checkpoint(directory: Path) -> bool:
    """True if a folder holds a checkpoint; does not open it. Raises UserError."""
    try:
        return any(name.isdigit() for name in os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"cannot open {directory}: {error.strerror or error}") from error


def require_same(saved: Mapping[str, Any], asked: Mapping[str, Any], where: Path) -> None:
    """Refuses a checkpoint of another model, or of a training with other settings.

    Args:
        saved: the fields stored with the checkpoint.
        asked: the fields of the configuration.
        where: the checkpoints' folder.

    Raises:
        UserError: naming the first field that differs.
    """
    saved, asked = json.loads(json.dumps([saved, asked]))  # tuples are lists in a saved record
    for name in sorted(asked.keys() | saved.keys()):
        if saved.get(name) != asked.get(name):
            there, here = (shorten(repr(fields.get(name)), 80) for fields in (saved, asked))
            field = "data.num_frames" if name == "model.num_frames" else name  # what is configured
            raise UserError(
                f"{where} holds a checkpoint of another run: {field} is {there} there and {here} "
                "in the configuration; give the fields it was trained with, or another --workdir"
            )


def _digest_record(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _digest_arrays(state: Any) -> int:
    """CRC-32 of all arrays with their names, types and shapes; containers do not matter."""
    lines = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        array = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        content = zlib.crc32(array.reshape(-1).view(np.uint8).data)
        lines.append(f"{name} {array.dtype} {np.shape(leaf)} {content}")
    return zlib.crc32("\n".join(sorted(lines)).encode())


def _check_sizes(handler: ocp.StandardCheckpointHandler, folder: Path) -> None:
    """Refuses arrays too large for their files: allocating them would end the process.

    Raises ValueError.
    """
    arrays = jax.tree.leaves(handler.metadata(folder))
    unpacked = sum(  # a chunk is read as a whole, however small the array
        max(math.prod(x.shape), math.prod(x.storage.chunk_shape)) * np.dtype(x.dtype).itemsize
        for x in arrays
    )
    check_size(unpacked, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))


def _require_readable_path(directory: Path, read_only: bool) -> None:
    """Raises UserError if Orbax or TensorStore would take the path for another one."""
    misread = _MISREAD_IN_READING if read_only else _MISREAD_IN_WRITING
    if found := misread.search(str(directory)):
        raise UserError(
            f"{directory}: checkpoints cannot be {'read from' if read_only else 'written to'} a "
            f"path with {found[0]!a} in it; rename the folder, or give a link to it"
        )


def _silence_orbax() -> None:
    """Drop for good what Orbax and TensorStore report next to what they raise, and nothing else.

    Tasks that they abandon after a failure report later, from any thread, when they are collected.
    """
    warnings.filterwarnings("ignore", _ABANDONED, RuntimeWarning)
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_of_others)
    if getattr(sys.unraisablehook, "func", None) is not _report:
        sys.unraisablehook = functools.partial(_report, sys.unraisablehook)


def _is_of_others(record: logging.LogRecord) -> bool:
    """True for records to show: warnings, unless routine, and what is not about Orbax's tasks."""
    if record.name == "absl" and record.levelno == logging.WARNING:
        return not (_ORBAX.search(record.pathname) and _ROUTINE.search(record.getMessage()))
    error = record.exc_info[1] if record.exc_info else None
    return not _ORBAX.search(
        record.pathname if record.name == "absl" else f"{record.getMessage()} {error}"
    )


def _report(hook: Callable[[Any], object], odd: Any) -> None:
    """Pass on what could not be raised, except in TensorStore's threads, which name no object."""
    closed = isinstance(odd.exc_value, RuntimeError) and str(odd.exc_value) == _CLOSED
    if odd.object is not None or not closed:
        hook(odd)
