"""ResNet of the torchvision family, returning the features of each of its five stages."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sofnet_jax.backbones.layers import (
    BatchNorm,
    Conv,
    _convolve_backward,
    _convolve_forward,
    convolve_on_cpu,
    max_pool,
)
from sofnet_jax.backbones.shift import Shift
from sofnet_jax.backbones.spec import BOTTLENECK_EXPANSION
from sofnet_jax.systems.sofnet.architecture import Architecture

Stages = dict[str, Float[Array, "b _ _ _"]]  # each with its own resolution and channels


convolve_on_cpu.defvjp(_convolve_forward, _convolve_backward)


class Block(nn.Module):
    """Basic or bottleneck residual block; the bottleneck strides in its 3×3 (torchvision v1.5).

    `shifted` is what its convolutions are given where that is not its input (`shift`).
    """

    channels: int
    stride: int
    bottleneck: bool
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        train: bool,
        shifted: Float[Array, "b h w c"] | None = None,
    ) -> Float[Array, "b h2 w2 c2"]:
        kernels = (1, 3, 1) if self.bottleneck else (3, 3)
        strides = (1, self.stride, 1) if self.bottleneck else (self.stride, 1)
        channels = [self.channels] * len(kernels)
        if self.bottleneck:
            channels[-1] *= BOTTLENECK_EXPANSION
        y = x if shifted is None else shifted
        for i, (c, kernel, stride) in enumerate(zip(channels, kernels, strides, strict=True), 1):
            last = i == len(kernels)
            y = self.conv(c, kernel, stride, name=f"conv{i}")(y)
            y = self.norm(name=f"bn{i}")(y, train)
            y = y if last else nn.relu(y)
        if x.shape[-1] != channels[-1] or self.stride != 1:
            x = self.conv(channels[-1], 1, self.stride, name="downsample_conv")(x)
            x = self.norm(name="downsample_bn")(x, train)
        return nn.relu(x + y)


class Stem(nn.Module):
    """res1: convolution, BatchNorm, ReLU and max-pool."""

    channels: int
    kernel: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], train: bool) -> Float[Array, "b h4 w4 c"]:
        x = self.conv(self.channels, self.kernel, 2, name="conv1")(x)
        x = nn.relu(self.norm(name="bn1")(x, train))
        return max_pool(x)


class ResidualStage(nn.Module):
    """res2…res5: blocks of equal width, the first of which may stride."""

    channels: int
    depth: int
    stride: int
    bottleneck: bool
    conv: Callable
    norm: Callable
    remat: bool = False
    shift_every: int = 0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool, shift: Shift | None = None
    ) -> Float[Array, "b h2 w2 c2"]:
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            shifts = self.shift_every and i % self.shift_every == 0
            x = block(
                self.channels,
                stride,
                self.bottleneck,
                self.conv,
                self.norm,
                name=f"block{i}",
            )(x, train, shift(x) if shifts and shift else None)
        return x


class ResNet(nn.Module):
    """ResNet without its classifier: normalised images to the features of res1…res5.

    Attributes:
        dtype: type of the computation; parameters and statistics are float32.
        bn_axis: pmap axis of synchronised BatchNorm, or None.
        remat: recompute each block in the backward pass instead of storing its activations.
        updates: of the running statistics in a step, which then move by so much less each time.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None
    remat: bool = False
    updates: int = 1

    def setup(self):
        """Creates the stages, named res1…res5."""
        a = self.architecture
        conv = partial(Conv, dtype=self.dtype)
        momentum = BatchNorm.momentum / self.updates
        norm = partial(BatchNorm, axis_name=self.bn_axis, momentum=momentum)
        self.res1 = Stem(a.width, a.stem_kernel, conv, norm)
        for i, depth in enumerate(a.depths):
            stage = ResidualStage(
                channels=a.width * 2**i,
                depth=depth,
                stride=1 if i == 0 else 2,
                bottleneck=a.block == "bottleneck",
                conv=conv,
                norm=norm,
                remat=self.remat,
                shift_every=a.shift_every,
            )
            setattr(self, f"res{i + 2}", stage)

    def __call__(
        self, images: Float[Array, "b h w 3"], train: bool, shift: Shift | None = None
    ) -> Stages:
        """Features of every stage, by name; `shift` is asked where a block is to shift."""
        x = self.res1(images.astype(self.dtype), train)
        features = {"res1": x}
        for name in ("res2", "res3", "res4", "res5"):
            x = features[name] = getattr(self, name)(x, train, shift)
        return features
