"""Weights made ready for inference."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import traverse_util

from sofnet_jax.models.resnet import BatchNorm

Tree = Mapping[str, Any]


def fold_batchnorm(variables: Tree) -> Tree:
    """The same network for inference, with BatchNorm's scaling inside the convolutions.

    y = (w∗x − μ)·γ/√(σ² + ε) + β is (w·γ/√(σ² + ε))∗x + (β − μ·γ/√(σ² + ε)). What is left of each
    BatchNorm adds a bias; its statistics are those of which it changes nothing else.

    Args:
        variables: `params` and `batch_stats` of `SoFNet`.
    """
    params = traverse_util.flatten_dict(variables["params"])
    stats = traverse_util.flatten_dict(variables["batch_stats"])
    for path in [path for path in params if path[-1] == "scale"]:
        *block, norm, _ = path
        conv = (*block, norm.replace("bn", "conv"), "kernel")
        bias, mean, var = ((*block, norm, leaf) for leaf in ("bias", "mean", "var"))
        inverse = params[path] / jnp.sqrt(stats[var] + BatchNorm.epsilon)
        params[conv] = params[conv] * inverse
        params[bias] = params[bias] - stats[mean] * inverse
        params[path] = jnp.ones_like(inverse)
        stats[mean] = jnp.zeros_like(inverse)
        stats[var] = jnp.full_like(inverse, 1 - BatchNorm.epsilon)
    return {
        "params": traverse_util.unflatten_dict(params),
        "batch_stats": traverse_util.unflatten_dict(stats),
    }
