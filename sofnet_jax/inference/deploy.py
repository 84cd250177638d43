"""Weights made ready for inference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sofnet_jax.architecture import Architecture
from sofnet_jax.backbones.folded import (
    _ANY_PIXELS,
    FEW_PIXELS,
    Span,
    Tree,
    _create_convolution,
    _create_stage,
    fold_batchnorm,
)
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.network import Gate, Head, Network
from sofnet_jax.released import PAPER, Released


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
