"""Logs: scalars in TensorBoard and `metrics.jsonl`, images in TensorBoard.

The only file that knows TensorBoard.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter


class Writer:
    """Appends scalars and images by step. Only the first process writes; elsewhere it does nothing.

    On resuming, what had been written after the checkpoint is removed first, so that no step
    stands twice; a line cut short by a killed process goes with it.
    """

    def __init__(self, workdir: Path, *, first_step: int, enabled: bool = True):
        self._tensorboard = None
        if not enabled:
            return
        path = workdir / "metrics.jsonl"
        if path.exists():
            _truncate(path, first_step)
        self._file = path.open("a", encoding="utf-8")
        self._tensorboard = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes scalars, whose names are paths such as `train/loss`, for an optimizer step."""
        if self._tensorboard is None:
            return
        self._file.write(json.dumps({"step": step, **scalars}) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._tensorboard.add_scalar(name, value, step)

    def write_image(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes an image for an optimizer step, in place of one written before a resumption."""
        if self._tensorboard is not None:
            self._tensorboard.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes both files."""
        if self._tensorboard is not None:
            self._file.close()
            self._tensorboard.close()


def _truncate(path: Path, first_step: int) -> None:
    """Keeps the whole lines of steps up to `first_step`."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if step <= first_step:
            kept.append(line + "\n")
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, path)
