"""Weights made ready for inference."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.typing import DTypeLike

from sofnet_jax.architecture import Architecture
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.network import (
    FEW_PIXELS,
    Block,
    Convolution,
    Gate,
    Head,
    Network,
    ResidualStage,
    Span,
    Stem,
)
from sofnet_jax.inference.winograd import WinogradConvolution, transform_kernel
from sofnet_jax.models.resnet import BatchNorm
from sofnet_jax.released import PAPER, Released

Tree = Mapping[str, Any]

# On a GPU a convolution of one image takes less time as a product, however large the image.
_ANY_PIXELS = 2**31 - 1


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


def deploy(
    architecture: Architecture,
    variables: Tree,
    *,
    dtype: DTypeLike | None = None,
    released: Released = PAPER,
    winograd: bool | None = None,
) -> Network:
    """The network of some variables as inference runs it, on the default device.

    Args:
        architecture: of the variables.
        variables: `params` and `batch_stats` of `SoFNet`.
        dtype: of the stages' computation and weights; by default float32 on a CPU, else bfloat16.
        released: points in which the authors' code is followed.
        winograd: whether 3×3 convolutions of stride 1 are `WinogradConvolution`s; by default on a
            CPU in float32.

    Raises:
        UserError: the network shifts from frames that are still to come.
    """
    if architecture.shift == "offline":
        raise UserError(
            "a network with the offline shift needs the frame after each, so that none can be "
            "skipped: evaluate it with sofnet_jax.main --mode=evaluate, or train one with "
            "--config.model.shift=online"
        )
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    dtype = dtype or (jnp.float32 if on_cpu else jnp.bfloat16)
    if winograd is None:
        winograd = on_cpu and dtype == jnp.float32
    params = fold_batchnorm(variables)["params"]
    create = functools.partial(
        _create_convolution,
        dtype=dtype,
        winograd=winograd,
        few_pixels=FEW_PIXELS if on_cpu else _ANY_PIXELS,
    )
    every = architecture.shift_every
    stages = [_create_stage(i, params["backbone"][f"res{i}"], create, every) for i in range(1, 6)]
    bounds = (0, *architecture.gates, 5)
    spans = [Span(tuple(stages[a:b])) for a, b in zip(bounds, bounds[1:], strict=False)]
    network = Network(
        spans=tuple(spans),
        gates=tuple(_create_gate(params[f"policy_{name}"]) for name in architecture.gate_names),
        head=Head(jnp.asarray(params["head"]["kernel"]), jnp.asarray(params["head"]["bias"])),
        architecture=architecture,
        released=released,
    )
    return jax.device_put(network, device)


_Create = Callable[..., Any]


def _create_convolution(
    weights: Tree,
    conv: str,
    norm: str,
    stride: int,
    *,
    dtype: DTypeLike,
    winograd: bool,
    few_pixels: int,
) -> Convolution | WinogradConvolution:
    kernel = jnp.asarray(weights[conv]["kernel"], dtype)
    bias = jnp.asarray(weights[norm]["bias"], dtype)
    if winograd and stride == 1 and kernel.shape[:2] == (3, 3):
        return WinogradConvolution(transform_kernel(kernel), bias)
    return Convolution(kernel, bias, few_pixels)


def _create_stage(
    number: int, weights: Tree, create: _Create, shift_every: int
) -> Stem | ResidualStage:
    if number == 1:
        return Stem(create(weights, "conv1", "bn1", 2))
    strides = [2 if i == 0 and number > 2 else 1 for i in range(len(weights))]
    blocks = [
        _create_block(weights[f"block{i}"], s, create, bool(shift_every) and i % shift_every == 0)
        for i, s in enumerate(strides)
    ]
    return ResidualStage(tuple(blocks))


def _create_block(weights: Tree, stride: int, create: _Create, shifts: bool) -> Block:
    count = sum(name.startswith("conv") for name in weights)
    strided = 2 if count == 3 else 1  # the number of the convolution that strides
    convolutions = tuple(
        create(weights, f"conv{i}", f"bn{i}", stride if i == strided else 1)
        for i in range(1, count + 1)
    )
    shortcut = None
    if "downsample_conv" in weights:
        shortcut = create(weights, "downsample_conv", "downsample_bn", stride)
    return Block(convolutions, shortcut, stride, shifts)


def _create_gate(weights: Tree) -> Gate:
    """W_ih (W_x x̄ + b_x) + b_ih + W_hh h + b_hh as one product; computed in float64, for once."""
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), dict(weights))
    if "w_ih" in w:
        after, bias, w_hh = w["w_ih"], w["b_ih"] + w["b_hh"], w["w_hh"]
    else:
        after, bias = w["fc"]["kernel"], w["fc"]["bias"]
        w_hh = np.zeros((0, after.shape[1]))
    kernel = np.concatenate([w["embed"]["kernel"] @ after, w_hh])
    arrays = kernel, w["embed"]["bias"] @ after + bias, w["w_q"], w["b_q"]
    return Gate(*(jnp.asarray(x, jnp.float32) for x in arrays))
