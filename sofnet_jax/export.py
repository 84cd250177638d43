"""Write a trained network as one program, for ONNX or for JAX alone.

usage: python -m sofnet_jax.export RUN TARGET [FLAGS]
example: python -m sofnet_jax.export runs/mine mine.onnx

RUN is the folder of a run, a weight file, or hub:owner/name. A TARGET that ends in .onnx becomes an
ONNX model of the whole recognition of a video, with its gates and its early exit (docs/onnx.md);
with --parts, TARGET is a folder, and each span of layers becomes a model of its own. Any other
TARGET becomes a program that JAX alone runs (docs/inference.md).
"""

import os
from pathlib import Path
from typing import Any

from absl import flags

from sofnet_jax.host import command_line
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand
from sofnet_jax.inference.load import load
from sofnet_jax.run.fields import LARGEST_SIZE, MOST_FRAMES

WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint of a run.")
PARTS = flags.DEFINE_bool("parts", False, "Write an ONNX model per span to the folder TARGET.")
SIZE = flags.DEFINE_integer(
    "size", None, "Side of the frames in pixels; default: the run's.", 1, LARGEST_SIZE
)
NUM_FRAMES = flags.DEFINE_integer(
    "num_frames", None, "Frames per video; default: the run's.", 1, MOST_FRAMES
)
VARIANT = flags.DEFINE_string(
    "variant", "", "Configuration variant for a bare weight file, e.g. release."
)
PLATFORMS = flags.DEFINE_list(
    "platforms", [], "Where a program for JAX runs: cpu, cuda, rocm, tpu; default: here."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace TARGET if it exists.")


def main(argv: list[str]) -> None:
    """Load the network and write it."""
    if len(argv) != 3:
        raise UserError("give two names: python -m sofnet_jax.export RUN TARGET")
    source, target = argv[1], Path(expand(argv[2]))
    if os.path.lexists(target) and not OVERWRITE.value:
        raise UserError(f"{target} exists; give another name, or --overwrite")
    if target.is_dir() != PARTS.value and os.path.lexists(target):
        raise UserError(f"{target} is {'a folder' if target.is_dir() else 'a file'}")
    options: dict[str, Any] = {flag.name: flag.value for flag in (WHICH, SIZE, NUM_FRAMES, VARIANT)}
    model = load(source, dtype="float32", **options)
    model.export(target, platforms=PLATFORMS.value, parts=PARTS.value)
    files = sorted(target.iterdir()) if target.is_dir() else [target]
    size = sum(file.stat().st_size for file in files) / 1e6
    frames = f"{model.num_frames} frames of {model.size}×{model.size}"
    print(f"wrote {size:.1f} MB to {target}: {len(model.classes)} classes, {frames}", flush=True)


if __name__ == "__main__":
    command_line.run(main)
