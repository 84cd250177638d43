"""The description of a ResNet that module, folded form and prices read."""

from typing import Literal, get_args

Block = Literal["basic", "bottleneck"]


Shift = Literal["", "offline", "online"]


SHIFTS: tuple[Shift, ...] = get_args(Shift)


BOTTLENECK_EXPANSION = 4


DEEP = 23  # blocks in res4 from which on TSM shifts in every second one


# name: (block, blocks in res2…res5, channels of the stem, kernel of the stem)
BACKBONES: dict[str, tuple[Block, tuple[int, int, int, int], int, int]] = {
    "resnet18": ("basic", (2, 2, 2, 2), 64, 7),
    "resnet34": ("basic", (3, 4, 6, 3), 64, 7),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 64, 7),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 64, 7),
    # For tests and the demo. A 7×7 stem would be 40 % of so small a network, too dear to stop at.
    "tiny": ("basic", (1, 1, 1, 1), 16, 3),
}
