"""Logs: scalars in TensorBoard and `metrics.jsonl`, images in TensorBoard.

The only file that knows TensorBoard.
"""

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sofnet_jax.host.files import format_json, write_whole


@contextlib.contextmanager
def pretend_absence(name: str) -> Iterator[None]:
    """Makes imports of a package fail inside, unless it has been imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's sign for: not there
    try:
        yield
    finally:
        del sys.modules[name]


with pretend_absence("torch"):  # which tensorboardX imports where it is there, for some seconds
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import image as draw
    from tensorboardX.summary import scalar

_EVALUATION = re.compile(r"(time/)?eval")  # names of what is written of one


class Writer:
    """Appends scalars and images by step. Only the first process writes; elsewhere it does nothing.

    On resuming, what had been written after the checkpoint is removed first, so that no step
    stands twice; a line cut short by a killed process goes with it. So does an evaluation of
    `first_step` that is to be made again, for it was not `evaluated`.
    """

    def __init__(
        self, workdir: Path, *, first_step: int, evaluated: bool = True, enabled: bool = True
    ):
        self._tensorboard = None
        if not enabled:
            return
        path = workdir / "metrics.jsonl"
        if path.exists():
            _truncate(path, first_step, evaluated)
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = _EventFile(workdir / "tensorboard", first_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars, whose names are paths such as `train/loss`, for an optimizer step."""
        if self._tensorboard is None:
            return
        self._file.write(format_json({"step": step, **scalars}) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._tensorboard.add(step, scalar(name, value))
        self._tensorboard.flush()

    def write_image(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes an image for an optimizer step, in place of one written before a resumption."""
        if self._tensorboard is not None:
            self._tensorboard.add(step, draw(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._tensorboard is not None:
            with contextlib.closing(self._tensorboard):
                self._file.close()


class _EventFile:
    """Events of TensorBoard, written at once.

    A thread, as of its own writer, would end on a full disk, and leave the training waiting for it.
    """

    def __init__(self, folder: Path, purge_step: int):
        """Takes back what earlier files hold from `purge_step` on."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = EventsWriter(str(folder / "events"))
        self._file.write_event(
            Event(step=purge_step, session_log=SessionLog(status=SessionLog.START))
        )
        self.flush, self.close = self._file.flush, self._file.close

    def add(self, step: int, summary: Summary) -> None:
        """Appends what there is to show of a step."""
        self._file.write_event(Event(wall_time=time.time(), step=step, summary=summary))


def _truncate(path: Path, first_step: int, evaluated: bool) -> None:
    """Keeps the whole lines of steps up to `first_step`."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            step = row["step"]
        except (ValueError, KeyError, TypeError):
            continue
        again = step == first_step and not evaluated and any(map(_EVALUATION.match, row))
        if step <= first_step and not again:
            kept.append(line + "\n")
    with write_whole(path) as partial:
        partial.write_text("".join(kept), encoding="utf-8")
