"""ResNet of the torchvision family, returning the features of each of its five stages."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sofnet_jax.backbones.layers import BatchNorm, Conv, max_pool
from sofnet_jax.backbones.shift import Channels, Past, Shift, shift_frame
from sofnet_jax.backbones.spec import BlockSpec, ConvSpec, ResNetSpec

Stages = dict[str, Float[Array, "b _ _ _"]]  # each with its own resolution and channels


class Block(nn.Module):
    """A residual block; its convolutions read `shifted` instead of `x` where that is given."""

    spec: BlockSpec
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        train: bool,
        shifted: Float[Array, "b h w c"] | None = None,
    ) -> Float[Array, "b h2 w2 c2"]:
        y = x if shifted is None else shifted
        for i, spec in enumerate(self.spec.convolutions, 1):
            y = self.conv(spec, name=f"conv{i}")(nn.relu(y) if i > 1 else y)
            y = self.norm(name=f"bn{i}")(y, train)
        if self.spec.shortcut is not None:
            x = self.conv(self.spec.shortcut, name="downsample_conv")(x)
            x = self.norm(name="downsample_bn")(x, train)
        return nn.relu(x + y)


class Stem(nn.Module):
    """res1: convolution, BatchNorm, ReLU and max-pool."""

    spec: ConvSpec
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"], train: bool) -> Float[Array, "b h4 w4 c"]:
        x = self.conv(self.spec, name="conv1")(x)
        return max_pool(nn.relu(self.norm(name="bn1")(x, train)))


class ResidualStage(nn.Module):
    """One of res2…res5."""

    blocks: tuple[BlockSpec, ...]
    conv: Callable
    norm: Callable
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        train: bool,
        shift: Shift = shift_frame,
        past: Channels | None = None,
    ) -> tuple[Float[Array, "b h2 w2 c2"], Channels]:
        create = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        left: Channels = ()
        for i, spec in enumerate(self.blocks):
            shifted = None
            if spec.shifts:
                shifted, own = shift(x, None if past is None else past[len(left)])
                left = (*left, own)
            x = create(spec, self.conv, self.norm, name=f"block{i}")(x, train, shifted)
        return x, left


class ResNet(nn.Module):
    """ResNet without its classifier: normalised images to the features of res1…res5.

    Attributes:
        dtype: type of the computation; parameters and statistics are float32.
        bn_axis: pmap axis of synchronised BatchNorm, or None.
        remat: recompute each block in the backward pass instead of storing its activations.
        updates: how many times a step updates the running statistics; divides their momentum.
    """

    spec: ResNetSpec
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None
    remat: bool = False
    updates: int = 1

    def setup(self):
        """Creates the stages, named res1…res5."""
        conv = partial(Conv, dtype=self.dtype)
        momentum = BatchNorm.momentum / self.updates
        norm = partial(BatchNorm, axis_name=self.bn_axis, momentum=momentum)
        self.res1 = Stem(self.spec.stem, conv, norm)
        for i, blocks in enumerate(self.spec.stages, 2):
            setattr(self, f"res{i}", ResidualStage(blocks, conv, norm, self.remat))

    def __call__(
        self,
        images: Float[Array, "b h w 3"],
        train: bool,
        shift: Shift = shift_frame,
        past: Past | None = None,
    ) -> tuple[Stages, Past]:
        """Features of every stage by name, and what its shifting blocks leave for later frames.

        `shift` is called for every shifting block, with its entry of `past`, stage by stage.
        """
        x = self.res1(images.astype(self.dtype), train)
        features, left = {"res1": x}, []
        for i in range(4):
            stage = getattr(self, f"res{i + 2}")
            x, own = stage(x, train, shift, None if past is None else past[i])
            features[f"res{i + 2}"] = x
            left.append(own)
        return features, tuple(left)
