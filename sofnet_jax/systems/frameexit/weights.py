"""FrameExit's weights in PyTorch. Positions and layers are numbered as its containers do.

- `mlp.0`, `mlp.1`: linear, BatchNorm
- `classifiers.{t}`: the classifier of position t = 0…T−1
- `gates.{t}.layers.0`, `.1`, `.3`, `.4`: two times linear, BatchNorm (2 and 5 are ReLUs) of the
  gate of position t + 1
- `gates.{t}.exit`: its last linear layer
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from sofnet_jax.systems.naming import (
    BACKBONE,
    LEAVES,
    Layout,
    Naming,
    Part,
    Path,
    find_numbers,
    read_shape,
)

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


# The authors' released FrameExit. Its backbone is a list of torchvision's modules, without the
# classifier; the layers of its gates are 1×1 convolutions.
_RELEASED = {
    "backbone.0": "conv1",
    "backbone.1": "bn1",
    **{f"backbone.{n + 3}": f"layer{n}" for n in range(1, 5)},
    "mlp.layers": "mlp",
}
_GATE = {
    "conv1": "layers.0",
    "bn1": "layers.1",
    "conv2": "layers.3",
    "bn2": "layers.4",
    "linear": "exit",
}


def _rename_released(name: str, names: Collection[str]) -> str | None:
    if gate := re.fullmatch(r"exit_selector\.(\d+)\.(\w+)\.(\w+)", name):
        layer = _GATE.get(gate[2])
        return layer and f"gates.{gate[1]}.{layer}.{gate[3]}"
    if name.startswith("classifiers."):
        return name
    found = (theirs for theirs in _RELEASED if name.startswith(f"{theirs}."))
    return next((name.replace(theirs, _RELEASED[theirs], 1) for theirs in found), None)


def _change_released(name: str, tensor: np.ndarray) -> np.ndarray:
    """Linear layers of 1×1 convolutions, and our polarity.

    The released gates exit below a sigmoid of 0.5, ours above. A sigmoid is symmetric, so only the
    signs of each gate's last layer change.
    """
    if re.match(r"gates\.\d+\.exit\.", name):
        return -tensor
    flat = name.startswith("gates.") and tensor.shape[2:] == (1, 1)
    return tensor[:, :, 0, 0] if flat else tensor


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


RELEASED = Layout(
    "FrameExit as released by its authors",
    r"exit_selector\.",
    _rename_released,
    "it was trained on the first and the last frame and those between, with a short side of 224 "
    "pixels; here frames are the centres of equal parts",
    _change_released,
)
NAMING = Naming(
    _name,
    parts=(Part("classifiers", r"classifiers\.", classes=True),),
    whole=(*BACKBONE, "classifiers.", "gates."),
    classifier="classifiers.0",
    mark=r"classifiers\.\d+\.",
    infer=_infer,
    layouts=(RELEASED,),
)
