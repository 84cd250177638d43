"""Our variables as a PyTorch state dict, and back: names and memory layouts, to the last bit."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

Tree = Mapping[str, Any]
Path = tuple[str, ...]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_MODULES = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}
_GATE_LEAVES = {
    "w_ih": "lstm.weight_ih",
    "w_hh": "lstm.weight_hh",
    "b_ih": "lstm.bias_ih",
    "b_hh": "lstm.bias_hh",
    "w_q": "gate.weight",
    "b_q": "gate.bias",
}


def to_state_dict(variables: Tree) -> dict[str, np.ndarray]:
    """Parameters and running statistics by PyTorch's names, in PyTorch's layouts.

    Args:
        variables: `params` and `batch_stats` of `SoFNet`.
    """
    return {
        torch_name(path): _transpose(np.asarray(leaf), _TO_TORCH)
        for path, leaf in _flatten(variables)
    }


def from_state_dict(tensors: Mapping[str, np.ndarray], variables: Tree) -> Tree:
    """The variables with those leaves replaced for which there is a tensor.

    Args:
        tensors: by PyTorch's names, of the shapes that `torch_shapes` tells.
        variables: `params` and `batch_stats` of `SoFNet`.
    """
    filled = {}
    for path, leaf in _flatten(variables):
        value = tensors.get(torch_name(path))
        if value is not None:
            leaf = jnp.asarray(_transpose(value, _FROM_TORCH), leaf.dtype)
        filled[path] = leaf
    return traverse_util.unflatten_dict(filled)


def torch_shapes(variables: Tree) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of `to_state_dict`; the variables may be shapes alone."""
    return {
        torch_name(path): tuple(leaf.shape[axis] for axis in _TO_TORCH[len(leaf.shape)])
        for path, leaf in _flatten(variables)
    }


def torch_name(path: Path) -> str:
    """PyTorch's name of a variable, after its collection.

    torchvision's for the backbone and the classifier; `policy.{n}.…` for the gate after stage
    n + 1, with the names of `torch.nn.Linear` and `torch.nn.LSTMCell`.

    >>> torch_name(("batch_stats", "backbone", "res2", "block0", "downsample_bn", "var"))
    'layer1.0.downsample.1.running_var'
    """
    _, part, *inside = path
    if part == "backbone":
        return _backbone_name(inside)
    if part == "head":
        return f"fc.{_LEAVES[inside[0]]}"
    kind, stage = part.split("_res")
    prefix = f"policy.{int(stage) - 1}"
    if kind == "inner":
        return f"{prefix}.inner.{_LEAVES[inside[-1]]}"
    if len(inside) == 1:
        return f"{prefix}.{_GATE_LEAVES[inside[0]]}"
    return f"{prefix}.{inside[0]}.{_LEAVES[inside[1]]}"  # embed, or fc without an LSTM


def _backbone_name(inside: list[str]) -> str:
    *stage, module, leaf = inside
    prefix = "" if stage == ["res1"] else f"layer{int(stage[0][3:]) - 1}.{stage[1][5:]}."
    return f"{prefix}{_MODULES.get(module, module)}.{_LEAVES[leaf]}"


# Axes by number of dimensions: HWIO to OIHW, (in, out) to (out, in), and back.
_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_FROM_TORCH = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def _transpose(value: np.ndarray, axes: dict[int, tuple[int, ...]]) -> np.ndarray:
    return value.transpose(axes[value.ndim])


def _flatten(variables: Tree) -> list[tuple[Path, Any]]:
    collections = {name: variables[name] for name in ("params", "batch_stats")}
    return list(traverse_util.flatten_dict(collections).items())
