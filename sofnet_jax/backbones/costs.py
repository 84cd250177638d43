"""Multiply–adds of every convolution of a backbone."""

import dataclasses
from collections.abc import Iterator

from sofnet_jax.backbones.spec import BOTTLENECK_EXPANSION
from sofnet_jax.systems.sofnet.architecture import Architecture


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution without bias, followed by BatchNorm; square inputs and kernels.

    Attributes:
        stage: 1…5.
        size, out_size: side of its input and of its output in pixels.
        relu: whether a ReLU follows.
        residual: whether its output is added to another tensor.
    """

    stage: int
    in_channels: int
    channels: int
    kernel: int
    stride: int
    size: int
    relu: bool = True
    residual: bool = False

    @property
    def out_size(self) -> int:
        return (self.size - 1) // self.stride + 1

    @property
    def elements(self) -> int:
        return self.out_size**2 * self.channels

    @property
    def macs(self) -> int:
        """Multiply–adds, those with padding included as is the custom."""
        return self.elements * self.kernel**2 * self.in_channels


def convolutions(a: Architecture, size: int) -> Iterator[Convolution]:
    """Every convolution of the network in order, for square inputs of `size` pixels."""
    stem = Convolution(1, 3, a.width, a.stem_kernel, 2, size)
    yield stem
    size = (stem.out_size - 1) // 2 + 1  # max-pool
    channels = a.width
    expansion = BOTTLENECK_EXPANSION if a.block == "bottleneck" else 1
    for i, depth in enumerate(a.depths):
        width = a.width * 2**i
        for block in range(depth):
            stride = 2 if i > 0 and block == 0 else 1
            yield from _block(i + 2, channels, width, stride, size, expansion)
            channels = width * expansion
            size = (size - 1) // stride + 1


def _block(
    stage: int, channels: int, width: int, stride: int, size: int, expansion: int
) -> Iterator[Convolution]:
    out = width * expansion
    out_size = (size - 1) // stride + 1
    if expansion > 1:
        yield Convolution(stage, channels, width, 1, 1, size)
        yield Convolution(stage, width, width, 3, stride, size)
        yield Convolution(stage, width, out, 1, 1, out_size, residual=True)
    else:
        yield Convolution(stage, channels, width, 3, stride, size)
        yield Convolution(stage, width, out, 3, 1, out_size, residual=True)
    if channels != out or stride != 1:
        yield Convolution(stage, channels, out, 1, stride, size, relu=False)


def _pool(size: int, channels: int) -> int:
    """Sum and division of a global average pool."""
    return (size**2 + 1) * channels
