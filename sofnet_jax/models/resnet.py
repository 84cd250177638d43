"""ResNet of the torchvision family, returning the features of each of its five stages."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sofnet_jax.architecture import BOTTLENECK_EXPANSION, Architecture
from sofnet_jax.models.shift import Shift

Stages = dict[str, Float[Array, "b _ _ _"]]  # each with its own resolution and channels

# Convolutions of at most so many output pixels or values in a patch are one matrix product.
FEW_PIXELS, FEW_TAPS = 16, 32

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """`convolve` with a kernel that is learned."""

    channels: int
    kernel: int
    stride: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.channels)
        kernel = self.param("kernel", kaiming_normal, shape)
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c c2"],
    stride: int,
    few_pixels: int = FEW_PIXELS,
) -> Float[Array, "b h2 w2 c2"]:
    """Convolution without bias, padded as in torchvision; XLA's "SAME" differs at stride 2.

    Computed as a matrix product over unfolded patches where XLA's convolution is slow on a CPU,
    above all backwards: for 1×1 kernels, outputs of a few pixels and patches of a few values.
    """
    k, s, pad = kernel.shape[0], stride, kernel.shape[0] // 2
    height, width = ((side - 1) // s + 1 for side in x.shape[1:3])
    if k > 1 and height * width > few_pixels and k * k * x.shape[-1] > FEW_TAPS:
        return (convolve_on_cpu if jax.default_backend() == "cpu" else _convolve)(x, kernel, s)
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    taps = [
        x[:, i : i + s * (height - 1) + 1 : s, j : j + s * (width - 1) + 1 : s]
        for i in range(k)
        for j in range(k)
    ]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def _convolve(x: Array, kernel: Array, stride: int, **options: Any) -> Array:
    """XLA's own convolution, in the layout of which its CPU backend has a fast one."""
    arguments = {"window_strides": (stride, stride), "padding": [(kernel.shape[0] // 2,) * 2] * 2}
    return jax.lax.conv_general_dilated(
        x, kernel, **(arguments | options), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# The same with gradients in that layout as well. XLA brings convolutions into it by itself, but not
# those inside loops: a training step that scans the backbone took more than three times as long.
convolve_on_cpu = jax.custom_vjp(_convolve, nondiff_argnums=(2,))


def _convolve_forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(
    stride: int, inputs: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, kernel = inputs
    k, before = kernel.shape[0], kernel.shape[0] // 2
    reach = [(side - 1) * stride + 1 for side in gradient.shape[1:3]]  # of the strided pixels
    sides = list(zip(x.shape[1:3], reach, strict=True))
    x_gradient = _convolve(
        gradient,
        kernel[::-1, ::-1].swapaxes(2, 3),
        1,
        padding=[(k - 1 - before, side - r + before) for side, r in sides],
        lhs_dilation=(stride, stride),
    )
    kernel_gradient = _convolve(
        x.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        1,
        padding=[(before, k - 1 + r - side - before) for side, r in sides],
        rhs_dilation=(stride, stride),
    )
    return x_gradient, kernel_gradient.transpose(1, 2, 0, 3)


convolve_on_cpu.defvjp(_convolve_forward, _convolve_backward)


class BatchNorm(nn.Module):
    """Batch normalisation as torch.nn.BatchNorm2d computes it.

    Unlike flax.linen.BatchNorm the running variance is the unbiased one. Statistics and parameters
    are float32 whatever the input; the result has the input's type.

    Attributes:
        axis_name: pmap axis over which the batch statistics are synchronised; None is per replica.
    """

    axis_name: str | None = None
    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"], train: bool) -> Float[Array, "*b c"]:
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (features,), jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        if train and not self.is_initializing():
            mean, var, count = self._compute_statistics(x)
            unbiased = var * (count / max(count - 1, 1))
            running_mean.value += self.momentum * (mean - running_mean.value)
            running_var.value += self.momentum * (unbiased - running_var.value)
        else:
            mean, var = running_mean.value, running_var.value
        inverse = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x.astype(jnp.float32) * inverse + (bias - mean * inverse)).astype(x.dtype)

    def _compute_statistics(self, x: Array) -> tuple[Array, Array, int]:
        """Mean and biased variance over all but the last axis, and the number of values."""
        x = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        mean = x.mean(axes)
        if self.axis_name is None:
            return mean, jnp.square(x - mean).mean(axes), count
        mean = jax.lax.pmean(mean, self.axis_name)
        var = jax.lax.pmean(jnp.square(x - mean).mean(axes), self.axis_name)
        return mean, var, count * jax.lax.axis_size(self.axis_name)


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


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3×3 max-pool of stride 2, padded by 1: as a maximum of shifted slices, first of rows.

    Its gradient is elementwise; that of a reduce-window is a scatter, 3 times slower on a CPU.
    Equal positive maxima share the gradient; PyTorch gives it to the first.
    """
    for axis in (1, 2):
        size = (x.shape[axis] - 1) // 2 + 1
        padding = [(1, 2) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(x, padding, constant_values=-jnp.inf)
        slices = [
            jax.lax.slice_in_dim(padded, i, i + 2 * size - 1, stride=2, axis=axis) for i in range(3)
        ]
        x = jnp.maximum(jnp.maximum(slices[0], slices[1]), slices[2])
    return x


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
