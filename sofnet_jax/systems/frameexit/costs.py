"""Analytic cost of FrameExit's steps, in the field's GFLOPs: 10⁹ multiply–adds.

There are two counts. `paper` is that of the published tables: convolutions and linear layers, two
per BatchNorm element, the global average pool. `full` adds everything else that runs at inference:
ReLUs, max-pool, residual sums, the running maximum, softmax and sigmoid of the decisions.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sofnet_jax.backbones.costs import compute_pool_cost, compute_stage_costs
from sofnet_jax.systems.base import Action, Prices
from sofnet_jax.systems.frameexit.architecture import Architecture

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


def compute_prices(a: Architecture, size: int) -> Prices:
    """GFLOPs of steps on frames of `size`×`size` pixels."""
    return Prices(*(count_parts(a, size, full=full).by_action for full in (False, True)))


def count_parts(a: Architecture, size: int, *, full: bool) -> Parts:
    """GFLOPs of what steps consist of, in the `paper` or in the `full` count."""
    stages, channels = compute_stage_costs(a.backbone, size, full=full), a.backbone.channels[-1]
    frame = sum(stage.operations for stage in stages) + compute_pool_cost(stages[-1].size, channels)
    frame += _count_layer(channels, a.features, full)
    inner, outer = a.gate_features
    gate = 2 * (_count_layer(a.features, inner, full) + _count_layer(inner, outer, full))
    gate += 2 * outer
    classifier = a.features * a.num_classes
    if full:
        frame += a.features  # running maximum
        gate += 1  # sigmoid
        classifier += a.num_classes  # softmax
    return Parts(frame / 1e9, gate / 1e9, classifier / 1e9)


def _count_layer(inputs: int, features: int, full: bool) -> int:
    """A linear layer and its BatchNorm; with `full` also its ReLU."""
    return (inputs + 2 + full) * features
