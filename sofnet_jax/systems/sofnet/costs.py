"""Analytic cost of a frame, in the field's GFLOPs: 10⁹ multiply–adds.

There are two counts. `paper` is that of the published tables: convolutions and linear layers, two
per BatchNorm element, the global average pools and W_x, but neither LSTMs nor W_q. `full` adds
everything else that runs at inference: LSTMs, W_q, ReLUs, the max-pool, residual sums.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from sofnet_jax.backbones.costs import compute_pool_cost, compute_stage_costs
from sofnet_jax.systems.sofnet.architecture import Architecture

PAPER_GFLOPS = 2.52  # f(L) of ResNet-50 at 168×168


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cumulative GFLOPs of a frame.

    Attributes:
        gates: f(l_n), the cost of a frame that gate n stops.
        whole: f(L), the cost of a kept frame.
    """

    gates: tuple[float, ...]
    whole: float

    @property
    def by_stop(self) -> Float[np.ndarray, "n"]:
        """Cost of a frame by the index of the gate that stopped it; the last is a kept frame's."""
        return np.array([*self.gates, self.whole])

    def per_video(
        self, stop: Int[np.ndarray, "v t"], observed: Int[np.ndarray, "v"] | None = None
    ) -> Float[np.ndarray, "v"]:
        """GFLOPs of each video, given where its frames stopped and how many were observed."""
        frames = np.arange(stop.shape[1])
        cost = self.by_stop[stop]
        return cost.sum(1) if observed is None else (cost * (frames < observed[:, None])).sum(1)


def compute_costs(a: Architecture, size: int) -> tuple[Cost, Cost]:
    """The `paper` and the `full` cost of a frame of `size`×`size` pixels."""
    return _accumulate(a, size, full=False), _accumulate(a, size, full=True)


def compute_lookup(cost: Cost, reference: float = 0.0) -> tuple[float, ...]:
    """f_lookup(n) = f(L) − f(l_n) (Eq. 10).

    Args:
        cost: the `paper` cost.
        reference: GFLOPs to scale f(L) to, which keeps the loss's weight for backbones much smaller
            than the paper's; 0 leaves real GFLOPs.
    """
    scale = reference / cost.whole if reference else 1.0
    return tuple((cost.whole - gate) * scale for gate in cost.gates)


def _accumulate(a: Architecture, size: int, full: bool) -> Cost:
    channels = a.backbone.channels
    stages = compute_stage_costs(a.backbone, size, full=full)
    total, gates = 0, []
    for i, stage in enumerate(stages):
        total += stage.operations
        if i + 1 in a.gates:
            total += compute_pool_cost(stage.size, channels[i]) + _policy(a, channels[i], full)
            gates.append(total / 1e9)
    if not full or 5 not in a.gates:  # the tables count the classifier's pool beside the gate's own
        total += compute_pool_cost(stages[4].size, channels[4])
    total += channels[4] * a.num_classes
    return Cost(tuple(gates), total / 1e9)


def _policy(a: Architecture, channels: int, full: bool) -> int:
    """Operations of W_x; with `full` also of the LSTM cell (or its replacement) and W_q."""
    macs = channels**2
    if full and a.temporal:
        macs += 4 * a.hidden * (channels + a.hidden) + 3 * a.hidden  # gates; f·c, i·g, o·tanh(c)
    elif full:
        macs += channels * a.hidden
    return macs + (2 * a.hidden if full else 0)
