"""Analytic cost of every stage, in the field's GFLOPs: 10⁹ multiply–adds.

Two counts stand side by side. `paper` is that of the published tables: convolutions and linear
layers, two per BatchNorm element, the global average pools and W_x; neither LSTMs nor W_q. `full`
adds whatever else runs at inference: LSTMs, W_q, ReLUs, the max-pool, residual sums.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from sofnet_jax.backbones.costs import compute_pool_cost, compute_stage_costs
from sofnet_jax.systems.sofnet.architecture import Architecture

PAPER_GFLOPS = 2.52  # f(L) of ResNet-50 at 168×168


@dataclasses.dataclass(frozen=True)
class Cost:
    """GFLOPs a frame, cumulative.

    Attributes:
        gates: f(l_n): everything a frame costs that is stopped by gate n.
        whole: f(L): everything a kept frame costs.
    """

    gates: tuple[float, ...]
    whole: float

    @property
    def by_stop(self) -> Float[np.ndarray, "n"]:
        """Cost of a frame by the index of the gate that stopped it; last: of a kept one."""
        return np.array([*self.gates, self.whole])

    def per_video(
        self, stop: Int[np.ndarray, "v t"], observed: Int[np.ndarray, "v"] | None = None
    ) -> Float[np.ndarray, "v"]:
        """GFLOPs of each video, given where its frames stopped and how many were looked at."""
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
        reference: GFLOPs that f(L) is scaled to, so that the loss keeps its weight on backbones
            much smaller than the paper's; 0 leaves real GFLOPs.
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
    """W_x; with `full` the LSTM cell (or the layer in its place) and W_q."""
    macs = channels**2
    if full and a.temporal:
        macs += 4 * a.hidden * (channels + a.hidden) + 3 * a.hidden  # gates; f·c, i·g, o·tanh(c)
    elif full:
        macs += channels * a.hidden
    return macs + (2 * a.hidden if full else 0)
