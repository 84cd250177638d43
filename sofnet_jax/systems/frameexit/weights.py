"""FrameExit's weights in PyTorch. Positions and layers are numbered as its containers do.

- `mlp.0`, `mlp.1`: linear, BatchNorm
- `classifiers.{t}`: the classifier of position t = 0…T−1
- `gates.{t}.layers.0`, `.1`, `.3`, `.4`: two times linear, BatchNorm (2 and 5 are ReLUs) of the
  gate of position t + 1
- `gates.{t}.exit`: its last linear layer
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sofnet_jax.systems.naming import BACKBONE, LEAVES, Naming, Part, Path, find_numbers, read_shape

_MODULES = {
    "mlp.dense": "mlp.0",
    "mlp.bn": "mlp.1",
    "gates.dense1": "gates.{}.layers.0",
    "gates.bn1": "gates.{}.layers.1",
    "gates.dense2": "gates.{}.layers.3",
    "gates.bn2": "gates.{}.layers.4",
    "gates.exit": "gates.{}.exit",
    "classifiers": "classifiers.{}",
}


def flip_polarity(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn gates that exit below a sigmoid of 0.5 into ours, which exit above, or back.

    The authors' released gates exit below. A sigmoid is symmetric, so only the signs of each gate's
    last layer change.
    """
    last = re.compile(r"gates\.\d+\.exit\.")
    return {name: -value if last.match(name) else value for name, value in tensors.items()}


def _name(path: Path, shape: tuple[int, ...]) -> str | list[str]:
    """Variables of classifiers and gates have a leading axis of positions."""
    *modules, leaf = path[1:]
    name = f"{_MODULES['.'.join(modules)]}.{LEAVES[leaf]}"
    return name if modules[0] == "mlp" else [name.format(t) for t in range(shape[0])]


def _infer(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """All but the order of the frames."""
    found: dict[str, Any] = {
        "num_frames": len(find_numbers(tensors, r"classifiers\.(\d+)\.weight$")),
        "features": read_shape(tensors, "classifiers.0.weight", 2)[1],
    }
    if find_numbers(tensors, r"gates\.(\d+)\."):
        layers = ("gates.0.layers.0.weight", "gates.0.layers.3.weight")
        found["gate_features"] = tuple(read_shape(tensors, name, 2)[0] for name in layers)
    return found


NAMING = Naming(
    _name,
    parts=(Part("classifiers", r"classifiers\.", classes=True),),
    whole=(*BACKBONE, "classifiers.", "gates."),
    classifier="classifiers.0",
    mark=r"classifiers\.\d+\.",
    infer=_infer,
)
