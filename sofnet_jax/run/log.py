"""Logs: scalars in TensorBoard and `metrics.jsonl`, images in TensorBoard.

The only file that knows TensorBoard.
"""

import contextlib
import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sofnet_jax.host.absence import pretend_absence
from sofnet_jax.host.files import format_json, write_whole

with pretend_absence("torch"):  # tensorboardX would import it, which takes seconds
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import image as draw
    from tensorboardX.summary import scalar

_EVALUATION = re.compile(r"(time/)?eval")  # the names of what an evaluation logs


class Writer:
    """Appends scalars and images by step, in the first process; elsewhere it does nothing.

    When a run resumes, everything logged after the checkpoint is removed first, and a line cut
    short by a killed process, so that every step is logged once. Unless `first_step` was
    `evaluated`, its evaluation is removed, too, since it will be repeated.
    """

    def __init__(
        self, workdir: Path, *, first_step: int, evaluated: bool = True, enabled: bool = True
    ):
        self._enabled = enabled
        if not enabled:
            return
        path, folder = workdir / "metrics.jsonl", workdir / "tensorboard"
        kept = _truncate(path, first_step, evaluated) if path.exists() else []
        self._file = path.open("a", encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        # Not tensorboardX's own writer: on a full disk its thread ends, and training waits for it.
        self._events = EventsWriter(str(folder / "events"))
        start = SessionLog(status=SessionLog.START)  # hides what earlier files hold from here on
        self._events.write_event(Event(step=first_step + evaluated, session_log=start))
        for row in kept if not evaluated else []:  # of this step, what is hidden though it is kept
            if row["step"] == first_step:
                self._add_scalars(**row)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars, whose names are paths such as `train/loss`, for an optimizer step."""
        if not self._enabled:
            return
        self._file.write(format_json({"step": step, **scalars}) + "\n")
        self._file.flush()
        self._add_scalars(step, **scalars)
        self._events.flush()

    def write_image(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes an image for an optimizer step."""
        if self._enabled:
            self._add(step, draw(name, image, dataformats="HWC"))

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._enabled:
            with contextlib.closing(self._events):
                self._file.close()

    def _add_scalars(self, step: int, **scalars: float | None) -> None:
        for name, value in scalars.items():
            self._add(step, scalar(name, math.nan if value is None else value))

    def _add(self, step: int, summary: Summary) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, summary=summary))


def _truncate(path: Path, first_step: int, evaluated: bool) -> list[dict[str, Any]]:
    """Keeps the whole lines of steps up to `first_step`, and returns them as rows."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            step = row["step"]
        except (ValueError, KeyError, TypeError):
            continue
        repeated = step == first_step and not evaluated and any(map(_EVALUATION.match, row))
        if step <= first_step and not repeated:
            kept.append(row)
    with write_whole(path) as partial:
        text = "".join(format_json(row) + "\n" for row in kept)
        partial.write_text(text, encoding="utf-8")
    return kept
