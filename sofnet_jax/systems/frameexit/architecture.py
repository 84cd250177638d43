"""The description of a FrameExit network: its weights, what it does with frames, what that costs.

There are two counts of GFLOPs, 10⁹ multiply–adds. `paper` is that of the published tables:
convolutions and linear layers, two per BatchNorm element, the global average pool. `full` adds
everything else that runs at inference: ReLUs, max-pool, residual sums, the running maximum, softmax
and sigmoid of the decisions.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from sofnet_jax.backbones.costs import compute_pool_cost, compute_stage_costs
from sofnet_jax.systems import tsn
from sofnet_jax.systems.base import Action, Pooling, Prices
from sofnet_jax.systems.frameexit.order import create_order

# What can be done with a frame. The first one is always classified, because its confidence decides
# whether it ends the video; the last one is classified without asking its gate.
ACTIONS = (
    Action("first", uses=True, answers=True),
    Action("next", uses=True, answers=False),
    Action("exit", uses=True, answers=True),
    Action("last", uses=True, answers=True),
)
FIRST, NEXT, EXIT, LAST = range(4)


class Parts(NamedTuple):
    """GFLOPs of backbone and MLP, of one gate, and of one classifier."""

    frame: float
    gate: float
    classifier: float

    @property
    def by_action(self) -> Float[np.ndarray, "4"]:
        """GFLOPs of a step by its action, in the order of `ACTIONS`."""
        gates, classifiers = np.array([0, 1, 1, 0]), np.array([1, 0, 1, 1])
        return self.frame + gates * self.gate + classifiers * self.classifier


@dataclasses.dataclass(frozen=True)
class Architecture(tsn.Architecture):
    """A ResNet, an MLP that all frames share, and a classifier and a gate for each position.

    A position is a place in the order in which frames are looked at.

    Attributes:
        num_classes: size of every classifier.
        shift: none; frames come out of order.
        dropout: rate before the classifiers while they train. The paper names none.
        num_frames: T, the number of positions: T classifiers, and T−1 gates.
        features: d, units of the MLP. The paper doubles the backbone's 2048.
        gate_features: units of the two layers of each gate.
        online: frames come in temporal order, see `create_order`.
    """

    dropout: float = 0.0
    num_frames: int = 10
    features: int = 4096
    gate_features: tuple[int, int] = (128, 64)
    online: bool = False
    pooling: ClassVar[Pooling] = "last"

    @property
    def additions(self) -> str:
        """What there is besides the ResNet, in words."""
        order = "as they come" if self.online else "coarse to fine"
        return (
            f"with {self.features} features, a classifier for each of {self.num_frames} frames "
            f"({order}) and gates of {' + '.join(map(str, self.gate_features))} units"
        )

    @property
    def actions(self) -> tuple[Action, ...]:
        """Go on or answer."""
        return ACTIONS

    def order(self, num_frames: int) -> Int[np.ndarray, "t"]:
        """The temporal index of the frame at each position; every video has as many."""
        return np.array(create_order(self.num_frames, self.online))

    def prices(self, size: int) -> Prices:
        """GFLOPs of a step by its action."""
        return Prices(*(self.count_parts(size, full=full).by_action for full in (False, True)))

    def count_parts(self, size: int, *, full: bool) -> Parts:
        """GFLOPs of what steps consist of, in the `paper` or in the `full` count."""
        stages, channels = (
            compute_stage_costs(self.backbone, size, full=full),
            self.backbone.channels[-1],
        )
        frame = sum(stage.operations for stage in stages) + compute_pool_cost(
            stages[-1].size, channels
        )
        frame += _count_layer(channels, self.features, full)
        inner, outer = self.gate_features
        gate = 2 * (_count_layer(self.features, inner, full) + _count_layer(inner, outer, full))
        gate += 2 * outer
        classifier = self.features * self.num_classes
        if full:
            frame += self.features  # running maximum
            gate += 1  # sigmoid
            classifier += self.num_classes  # softmax
        return Parts(frame / 1e9, gate / 1e9, classifier / 1e9)


def create_architecture(
    backbone: str, *, num_classes: int, num_frames: int, width: int = 0, **fields
) -> Architecture:
    """The architecture of a named backbone.

    Args:
        backbone: as for `tsn.choose_backbone`.
        num_classes: number of classes.
        num_frames: number of frames of every video.
        width: as for `tsn.choose_backbone`.
        **fields: further fields of `Architecture`.

    Raises:
        UserError: an unknown backbone, a single class, or fewer than two frames.
    """
    chosen = tsn.choose_backbone(backbone, num_classes=num_classes, width=width)
    create_order(num_frames, online=False)  # raises
    return Architecture(**chosen, num_frames=num_frames, **fields)


def _count_layer(inputs: int, features: int, full: bool) -> int:
    """A linear layer and its BatchNorm; with `full` also its ReLU."""
    return (inputs + 2 + full) * features
