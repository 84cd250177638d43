"""The price list of a backbone: multiply–adds and elementwise operations of every stage."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sofnet_jax.backbones.spec import ConvSpec, ResNetSpec


@dataclass(frozen=True)
class Convolution:
    """A convolution at its place in a network, for square inputs.

    Attributes:
        stage: 1…5.
        spec: channels, kernel and stride.
        size: side of its input in pixels.
        pointwise: operations that follow on each value of its output: ReLU, residual sum.
    """

    stage: int
    spec: ConvSpec
    size: int
    pointwise: int = 1

    @property
    def out_size(self) -> int:
        """Side of its output in pixels."""
        return (self.size - 1) // self.spec.stride + 1

    @property
    def elements(self) -> int:
        """Number of values in its output."""
        return self.out_size**2 * self.spec.channels

    @property
    def macs(self) -> int:
        """Multiply–adds, including those with padding, as is customary."""
        return self.elements * self.spec.kernel**2 * self.spec.in_channels


class StageCost(NamedTuple):
    """Operations of a stage, and the side of its output in pixels."""

    operations: int
    size: int


def list_convolutions(spec: ResNetSpec, size: int) -> Iterator[Convolution]:
    """Every convolution of a backbone in order, for square images of `size` pixels."""
    stem = Convolution(1, spec.stem, size)
    yield stem
    size = _pool_size(stem.out_size)
    for stage, blocks in enumerate(spec.stages, 2):
        for block in blocks:
            side = size
            for i, conv in enumerate(block.convolutions, 1):
                last = i == len(block.convolutions)
                placed = Convolution(stage, conv, side, pointwise=2 if last else 1)
                yield placed
                side = placed.out_size
            if block.shortcut is not None:
                yield Convolution(stage, block.shortcut, size, pointwise=0)
            size = side


def compute_stage_costs(spec: ResNetSpec, size: int, *, full: bool) -> list[StageCost]:
    """The cost of res1…res5 for an image of `size`×`size` pixels.

    Counts convolutions and two operations for each BatchNorm element; with `full` also ReLUs,
    residual sums and the max-pool.
    """
    operations, sizes = [0] * 5, [0] * 5
    for conv in list_convolutions(spec, size):
        each = 2 + (conv.pointwise if full else 0)
        operations[conv.stage - 1] += conv.macs + each * conv.elements
        sizes[conv.stage - 1] = conv.out_size
    sizes[0] = _pool_size(sizes[0])
    if full:
        operations[0] += 9 * sizes[0] ** 2 * spec.width  # max-pool
    return [StageCost(*stage) for stage in zip(operations, sizes, strict=True)]


def compute_pool_cost(size: int, channels: int) -> int:
    """Sum and division of a global average pool."""
    return (size**2 + 1) * channels


def _pool_size(size: int) -> int:
    """Side of the max-pool's output."""
    return (size - 1) // 2 + 1
