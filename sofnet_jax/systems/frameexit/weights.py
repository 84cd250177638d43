"""FrameExit's weights as a PyTorch state dict, bit for bit, and back.

The backbone has torchvision's names, `conv1.weight` … `layer4.2.bn3.running_var`. Of the rest,
positions and layers are numbered as PyTorch's containers would number them:

- `mlp.0`, `mlp.1`: linear, BatchNorm
- `classifiers.{t}`: the classifier of position t = 0…T−1
- `gates.{t}.layers.0`, `.1`, `.3`, `.4`: two times linear, BatchNorm (2 and 5 are ReLUs) of the
  gate of position t + 1
- `gates.{t}.exit`: its last linear layer
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from sofnet_jax.host.errors import UserError

Tree = Mapping[str, Any]
Path = tuple[str, ...]

_STACKED = ("classifiers", "gates")  # their variables have a leading axis of positions
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_MODULES = {
    "downsample_conv": "downsample.0",
    "downsample_bn": "downsample.1",
    "mlp.dense": "mlp.0",
    "mlp.bn": "mlp.1",
    "gates.dense1": "gates.{}.layers.0",
    "gates.bn1": "gates.{}.layers.1",
    "gates.dense2": "gates.{}.layers.3",
    "gates.bn2": "gates.{}.layers.4",
    "gates.exit": "gates.{}.exit",
    "classifiers": "classifiers.{}",
}
# Axes by number of dimensions: HWIO to OIHW, (in, out) to (out, in), and back.
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_FROM_TORCH = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def to_state_dict(variables: Tree) -> dict[str, np.ndarray]:
    """Convert the `params` and `batch_stats` of `FrameExit` to a PyTorch state dict."""
    tensors = {}
    for path, leaf in _flatten(variables):
        values = np.asarray(leaf) if path[1] in _STACKED else np.asarray(leaf)[None]
        for name, value in zip(_list_names(path, leaf.shape), values, strict=True):
            tensors[name] = value.transpose(_TO_TORCH[value.ndim])
    return tensors


def from_state_dict(tensors: Mapping[str, np.ndarray], variables: Tree) -> Tree:
    """Replace the leaves of `variables` that have tensors; the inverse of `to_state_dict`.

    Raises UserError if tensors exist for some positions but not for others.
    """
    filled = {}
    for path, leaf in _flatten(variables):
        names = _list_names(path, leaf.shape)
        values = [tensors[name] for name in names if name in tensors]
        if values:
            if len(values) < len(names):
                missing = next(name for name in names if name not in tensors)
                raise UserError(f"the weights have no {missing}, but others of {len(names)}")
            stacked = np.stack([v.transpose(_FROM_TORCH[v.ndim]) for v in values])
            leaf = jnp.asarray(stacked if path[1] in _STACKED else stacked[0], leaf.dtype)
        filled[path] = leaf
    return traverse_util.unflatten_dict(filled)


def torch_shapes(variables: Tree) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of `to_state_dict`; `variables` may be shapes without values."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in _flatten(variables):
        shape = leaf.shape[1:] if path[1] in _STACKED else leaf.shape
        axes = _TO_TORCH[len(shape)]
        shapes |= dict.fromkeys(_list_names(path, leaf.shape), tuple(shape[i] for i in axes))
    return shapes


def flip_polarity(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn gates that exit below a sigmoid of 0.5 into ours, which exit above, or back.

    The authors' released gates exit below. A sigmoid is symmetric, so only the signs of each gate's
    last layer change.
    """
    last = re.compile(r"gates\.\d+\.exit\.")
    return {name: -value if last.match(name) else value for name, value in tensors.items()}


def _list_names(path: Path, shape: tuple[int, ...]) -> list[str]:
    """PyTorch's names of the tensors in a leaf, given its path from the collection down.

    >>> _list_names(("params", "gates", "bn1", "scale"), (2, 128))
    ['gates.0.layers.1.weight', 'gates.1.layers.1.weight']
    """
    _, *modules, leaf = path
    if modules[0] == "backbone":
        *block, module = modules[1:]
        prefix = "" if block == ["res1"] else f"layer{int(block[0][3:]) - 1}.{block[1][5:]}."
        return [f"{prefix}{_MODULES.get(module, module)}.{_LEAVES[leaf]}"]
    name = f"{_MODULES['.'.join(modules)]}.{_LEAVES[leaf]}"
    return [name.format(i) for i in range(shape[0])] if modules[0] in _STACKED else [name]


def _flatten(variables: Tree) -> list[tuple[Path, Any]]:
    collections = {name: variables[name] for name in ("params", "batch_stats")}
    return list(traverse_util.flatten_dict(collections).items())
