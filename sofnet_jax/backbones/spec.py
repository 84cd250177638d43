"""Descriptions of backbones: the Flax module, the folded form and the price list iterate over them.

A `ResNetSpec` yields its blocks once. Another family of networks gets its own specification here.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Block = Literal["basic", "bottleneck"]
Shift = Literal["", "offline", "online"]

SHIFTS: tuple[Shift, ...] = get_args(Shift)
BOTTLENECK_EXPANSION = 4
DEEP = 23  # blocks in res4 from which on TSM shifts in every second block only


@dataclass(frozen=True)
class ConvSpec:
    """A square convolution without bias, followed by BatchNorm."""

    in_channels: int
    channels: int
    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class BlockSpec:
    """A residual block. A ReLU follows every convolution; the last one follows the sum.

    Attributes:
        convolutions: in order.
        shortcut: the convolution of the block's input; None if the input is added unchanged.
        shifts: whether the first convolution reads a temporally shifted input, see `shift.py`.
    """

    convolutions: tuple[ConvSpec, ...]
    shortcut: ConvSpec | None
    shifts: bool


@dataclass(frozen=True)
class ResNetSpec:
    """A ResNet of five stages res1…res5, without its classifier.

    Attributes:
        block: residual block of res2…res5.
        depths: number of blocks in res2…res5.
        width: channels of res1; stage s ≥ 2 has `width·2^(s-2)`, ×4 with bottlenecks.
        stem_kernel: side of res1's convolution.
        shifts: whether blocks shift in time (TSM).
    """

    block: Block
    depths: tuple[int, int, int, int]
    width: int
    stem_kernel: int
    shifts: bool = False

    @property
    def stem(self) -> ConvSpec:
        """The convolution of res1; a max-pool of stride 2 follows it."""
        return ConvSpec(3, self.width, self.stem_kernel, 2)

    @property
    def channels(self) -> tuple[int, int, int, int, int]:
        """Channels of the features after res1…res5."""
        expansion = BOTTLENECK_EXPANSION if self.block == "bottleneck" else 1
        res2, res3, res4, res5 = (self.width * 2**i * expansion for i in range(4))
        return self.width, res2, res3, res4, res5

    @property
    def stages(self) -> tuple[tuple[BlockSpec, ...], ...]:
        """The blocks of res2…res5."""
        return tuple(
            tuple(self._create_block(stage, i) for i in range(depth))
            for stage, depth in enumerate(self.depths)
        )

    def _create_block(self, stage: int, i: int) -> BlockSpec:
        """The bottleneck strides in its 3×3 (torchvision v1.5), the basic block in its first."""
        width, (before, out) = self.width * 2**stage, self.channels[stage : stage + 2]
        before = out if i else before
        stride = 2 if stage and not i else 1
        if self.block == "bottleneck":
            reduce, expand = ConvSpec(before, width, 1), ConvSpec(width, out, 1)
            convolutions = [reduce, ConvSpec(width, width, 3, stride), expand]
        else:
            convolutions = [ConvSpec(before, out, 3, stride), ConvSpec(out, out, 3)]
        projects = before != out or stride != 1
        shortcut = ConvSpec(before, out, 1, stride) if projects else None
        every = 2 if self.depths[2] >= DEEP else 1
        return BlockSpec(tuple(convolutions), shortcut, self.shifts and i % every == 0)


BACKBONES = {
    "resnet18": ResNetSpec("basic", (2, 2, 2, 2), 64, 7),
    "resnet34": ResNetSpec("basic", (3, 4, 6, 3), 64, 7),
    "resnet50": ResNetSpec("bottleneck", (3, 4, 6, 3), 64, 7),
    "resnet101": ResNetSpec("bottleneck", (3, 4, 23, 3), 64, 7),
    # For tests and the demo. A 7×7 stem would be 40 % of so small a network's cost.
    "tiny": ResNetSpec("basic", (1, 1, 1, 1), 16, 3),
}
