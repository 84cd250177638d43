"""Weights of PyTorch's ResNets, read as NumPy arrays."""

import os
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from sofnet_jax.errors import UserError

Tree = Mapping[str, Any]


def load_backbone(path: str, params: Tree, batch_stats: Tree) -> tuple[Tree, Tree]:
    """Reads a backbone from a .npz of torchvision's names and layouts.

    Args:
        path: of the file.
        params: parameters of `ResNet`, for their names and shapes.
        batch_stats: likewise its running statistics.

    Returns:
        Parameters and statistics in their places. The file's classifier is not used.

    Raises:
        UserError: no such file, or tensors that are missing or of another shape.
    """
    if not os.path.isfile(path):
        raise UserError(f"model.init_from: no file {path}; leave it out to start from random ones")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            tensors = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"model.init_from: cannot read {path}: {error}") from error
    wrong: list[str] = []
    filled = _fill(params, tensors, wrong), _fill(batch_stats, tensors, wrong)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"model.init_from: {path} does not fit: {'; '.join(wrong[:3])}{more}")
    return filled


def _fill(tree: Tree, tensors: Mapping[str, np.ndarray], wrong: list[str]) -> Tree:
    """The tree with its leaves replaced by tensors; notes in `wrong` those that do not fit."""
    filled = {}
    for path, leaf in traverse_util.flatten_dict(tree).items():
        name = torchvision_name(path)
        if name not in tensors:
            wrong.append(f"no tensor {name}")
            continue
        value = tensors[name]
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value  # OIHW to HWIO
        if value.shape != leaf.shape:
            wrong.append(f"{name} is {value.shape}, not {leaf.shape}")
            continue
        filled[path] = jax.numpy.asarray(value, leaf.dtype)
    return traverse_util.unflatten_dict(filled)


def torchvision_name(path: tuple[str, ...]) -> str:
    """("res2", "block0", "conv1", "kernel") is layer1.0.conv1.weight.

    >>> torchvision_name(("res2", "block0", "downsample_bn", "var"))
    'layer1.0.downsample.1.running_var'
    """
    leaves = {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
    modules = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}
    *stage, module, leaf = path
    prefix = "" if stage == ["res1"] else f"layer{int(stage[0][3:]) - 1}.{stage[1][5:]}."
    return f"{prefix}{modules.get(module, module)}.{leaves[leaf]}"
