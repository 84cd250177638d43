"""A backbone for inference: BatchNorm folded into the convolutions."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from flax import traverse_util
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from sofnet_jax.backbones.layers import BatchNorm, average_pool, convolve, max_pool, normalise
from sofnet_jax.backbones.shift import Memory, Shift
from sofnet_jax.backbones.winograd import WinogradConvolution, transform_kernel

# Pixels of an output up to which a product over patches is faster: res5's, above all.
FEW_PIXELS = 64


# Of each span, for each of its blocks that shift: what the last kept frame left (`models.shift`).
Past = tuple[tuple[Float[Array, "_ _ _ _"], ...], ...]


@flax.struct.dataclass
class Convolution:
    """A convolution with the BatchNorm that followed it folded in.

    Of one image it is a product over patches up to `few_pixels` of its output, of several up to
    `FEW_PIXELS`.
    """

    kernel: Float[Array, "k k c c2"]
    bias: Float[Array, "c2"]
    few_pixels: int = flax.struct.field(pytree_node=False, default=FEW_PIXELS)

    def __call__(self, x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b h2 w2 c2"]:
        """Without the ReLU."""
        few_pixels = self.few_pixels if len(x) == 1 else FEW_PIXELS
        return convolve(x, self.kernel, stride, few_pixels) + self.bias


@flax.struct.dataclass
class Stem:
    """res1, on uint8 pixels."""

    convolution: Convolution

    def __call__(self, x: Shaped[Array, "b h w 3"]) -> Float[Array, "b h4 w4 c"]:
        """Features of images."""
        x = normalise(x, self.convolution.kernel.dtype)
        return max_pool(nn.relu(self.convolution(x, 2)))


@flax.struct.dataclass
class Block:
    """A residual block; `shortcut` is None where its input is added as it is."""

    convolutions: tuple[Convolution | WinogradConvolution, ...]
    shortcut: Convolution | None
    stride: int = flax.struct.field(pytree_node=False)
    shifts: bool = flax.struct.field(pytree_node=False, default=False)

    def __call__(self, x: Float[Array, "b h w c"], shift: Shift) -> Float[Array, "b h2 w2 c2"]:
        """The bottleneck strides in its 3×3, the basic block in its first."""
        bottleneck = len(self.convolutions) == 3
        strides = (1, self.stride, 1) if bottleneck else (self.stride, 1)
        y = shift(x) if self.shifts else x
        for convolution, stride in zip(self.convolutions[:-1], strides, strict=False):
            y = nn.relu(convolution(y, stride))
        y = self.convolutions[-1](y, 1)
        return nn.relu(y + (x if self.shortcut is None else self.shortcut(x, self.stride)))


@flax.struct.dataclass
class ResidualStage:
    """One of res2…res5."""

    blocks: tuple[Block, ...]

    def __call__(self, x: Float[Array, "b h w c"], shift: Shift) -> Float[Array, "b h2 w2 c2"]:
        """Features from those of the stage before."""
        for block in self.blocks:
            x = block(x, shift)
        return x


@flax.struct.dataclass
class Span:
    """The stages between two gates."""

    stages: tuple[Stem | ResidualStage, ...]

    def __call__(
        self,
        x: Shaped[Array, "b h w c"],
        past: tuple[Float[Array, "b _ _ _"], ...] | None = None,
    ) -> tuple[Float[Array, "b h2 w2 c2"], Float[Array, "b c2"], tuple[Array, ...]]:
        """Features after the stages, their average (Eq. 1), and what is left for later frames.

        `past` is what the last kept frame left; None if there was none.
        """
        memory = Memory(past)
        for stage in self.stages:
            x = stage(x) if isinstance(stage, Stem) else stage(x, memory)
        return x, average_pool(x), tuple(memory.new)


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
