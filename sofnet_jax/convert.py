"""Convert weights between file formats.

usage: python -m sofnet_jax.convert SOURCE TARGET [FLAGS]
example: python -m sofnet_jax.convert runs/mine mine.safetensors

SOURCE is the folder of a run, a file (.safetensors, .npz, or PyTorch's .pth, .pt and .bin), or
hub:owner/name. TARGET is a .safetensors, .pth or .npz file with torchvision's names for the
backbone and the classifier, and names of its own for each system (docs/weights.md). Both
--config.init_from and `load_state_dict` of a PyTorch model with these names read it.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import cast

import numpy as np
from absl import flags

from sofnet_jax.host import command_line
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand
from sofnet_jax.run.checkpoint import Which
from sofnet_jax.weights.files import require_writable, write_tensors
from sofnet_jax.weights.load import HALF, Weights, create_shapes, initialise, load_weights
from sofnet_jax.weights.names import COUNTER, describe, fold

WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint of a run.")
WIDEN = flags.DEFINE_bool("widen", False, "Convert half precision to float32.")
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace TARGET if it exists.")


def main(argv: list[str]) -> None:
    """Read and check all of the source, then write the target."""
    if len(argv) != 3:
        raise UserError("give two names: python -m sofnet_jax.convert SOURCE TARGET")
    source, target = argv[1], Path(expand(argv[2]))
    require_writable(target)
    if target.is_dir():
        raise UserError(f"{target} is a folder; give the name of a file")
    if os.path.lexists(target) and not OVERWRITE.value:
        raise UserError(f"{target} exists; give another name, or --overwrite")
    weights = load_weights(source, cast(Which, WHICH.value))
    if WIDEN.value:
        weights = widen(weights)
    print(convert(weights, target))


def widen(weights: Weights) -> Weights:
    """Convert half precision to float32, which changes no value."""
    half = {name: value for name, value in weights.tensors.items() if str(value.dtype) in HALF}
    wide = {name: value.astype(np.float32) for name, value in half.items()}
    return dataclasses.replace(weights, tensors=weights.tensors | wide)


def convert(weights: Weights, target: Path) -> str:
    """Write weights that make up a whole network.

    Returns:
        What was written and what was left out, in lines.

    Raises:
        UserError: weights are missing, or the target cannot be written.
    """
    system, architecture = weights.system, weights.architecture
    _, report = initialise(create_shapes(architecture, system), weights, system=system)
    tensors = {name: weights.tensors[name].astype(np.float32) for name in report.loaded}
    metadata = {"classes": json.dumps(weights.classes)} if weights.classes else {}
    if "system" in weights.told:
        network = {"system": system.name} | dataclasses.asdict(architecture)
        metadata["network"] = json.dumps(network)
    write_tensors(target, tensors, metadata)
    lines = [
        f"{weights.source} ({weights.layout}): {describe(architecture)}",
        f"wrote {len(tensors)} tensors, {target.stat().st_size / 1e6:.1f} MB, to {target}",
    ]
    if f"{system.naming.classifier}.weight" in tensors:
        lines[0] += f", {architecture.num_classes} classes"
    everything = [*report.loaded, *report.reinitialised, *report.left_out]
    if report.reinitialised:
        lines.append(f"without {', '.join(fold(report.reinitialised, everything))}")
    if left_out := [name for name in report.left_out if not name.endswith(COUNTER)]:
        lines.append(f"left out {len(left_out)}: {', '.join(fold(left_out, everything))}")
    lines += [f"note: {note}" for note in weights.notes]
    return "\n".join(lines)


if __name__ == "__main__":
    command_line.run(main)
