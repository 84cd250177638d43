"""Layers that backbones share: convolution, BatchNorm, pooling, and pixel normalisation."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8

from sofnet_jax.backbones.spec import ConvSpec

# A convolution with at most this many output pixels, or values in a patch, is one matrix product.
FEW_PIXELS, FEW_TAPS = 16, 32

kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
    """`convolve` with a learned kernel."""

    spec: ConvSpec
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        spec = self.spec
        shape = (spec.kernel, spec.kernel, spec.in_channels, spec.channels)
        kernel = self.param("kernel", kaiming_normal, shape)
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), spec.stride)


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c c2"],
    stride: int,
    few_pixels: int = FEW_PIXELS,
) -> Float[Array, "b h2 w2 c2"]:
    """Convolution without bias, padded as in torchvision; XLA's "SAME" differs at stride 2.

    1×1 kernels, outputs of few pixels and patches of few values are computed as a matrix product
    over unfolded patches: XLA's convolution of these is slow on a CPU, above all backwards.
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
    """XLA's own convolution, in the layout that is fast on its CPU backend."""
    arguments = {"window_strides": (stride, stride), "padding": [(kernel.shape[0] // 2,) * 2] * 2}
    return jax.lax.conv_general_dilated(
        x, kernel, **(arguments | options), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# `_convolve` with gradients in that layout too. XLA converts convolutions by itself, but not inside
# loops: a training step that scans the backbone took more than three times as long.
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
    """Batch normalisation as torch.nn.BatchNorm2d computes it, with an unbiased running variance.

    Statistics and parameters are float32 for any input; the result has the input's type.

    Attributes:
        axis_name: pmap axis over which batch statistics are synchronised; None: per replica.
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
        """Mean and biased variance over all axes but the last, and the number of values."""
        x = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        mean = x.mean(axes)
        if self.axis_name is None:
            return mean, jnp.square(x - mean).mean(axes), count
        mean = jax.lax.pmean(mean, self.axis_name)
        var = jax.lax.pmean(jnp.square(x - mean).mean(axes), self.axis_name)
        return mean, var, count * jax.lax.axis_size(self.axis_name)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """3×3 max-pool of stride 2, padded by 1, as a maximum of shifted slices.

    Its gradient is elementwise; a reduce-window's is a scatter, 3 times slower on a CPU. Equal
    positive maxima share the gradient; PyTorch gives it to the first.
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


# ImageNet's statistics for pixels in 0…1, which published backbones were trained with.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def normalise(frames: UInt8[Array, "*b 3"], dtype: DTypeLike) -> Float[Array, "*b 3"]:
    """Scales uint8 pixels to zero mean and unit variance under ImageNet's statistics."""
    scale = 1 / (255 * jnp.array(PIXEL_STD))
    shift = jnp.array(PIXEL_MEAN) / jnp.array(PIXEL_STD)
    return (frames.astype(jnp.float32) * scale - shift).astype(dtype)


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Global average pooling (Eq. 1), summed in float32."""
    return x.mean((1, 2), dtype=jnp.float32)


# A context for full float32 products; the default is TF32 on a GPU and bfloat16 on a TPU.
full_precision = partial(jax.default_matmul_precision, "highest")
