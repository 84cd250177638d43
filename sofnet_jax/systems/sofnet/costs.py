"""Analytic cost of a frame in SoF-Net, in the field's GFLOPs: 10⁹ multiply–adds.

There are two counts. `paper` is that of the published tables: convolutions and linear layers, two
per BatchNorm element, the global average pools and W_x, but neither LSTMs nor W_q. `full` adds
everything else that runs at inference: LSTMs, W_q, ReLUs, the max-pool, residual sums.
"""

import numpy as np
from jaxtyping import Float

from sofnet_jax.backbones.costs import compute_pool_cost, compute_stage_costs
from sofnet_jax.systems.base import Prices
from sofnet_jax.systems.sofnet.architecture import Architecture

PAPER_GFLOPS = 2.52  # f(L) of ResNet-50 at 168×168


def compute_prices(a: Architecture, size: int) -> Prices:
    """GFLOPs of a frame of `size`×`size` pixels: f(l_n) if gate n stops it, then f(L) if kept."""
    return Prices(_accumulate(a, size, full=False), _accumulate(a, size, full=True))


def compute_lookup(paper: Float[np.ndarray, "a"], reference: float = 0.0) -> tuple[float, ...]:
    """f_lookup(n) = f(L) − f(l_n) (Eq. 10).

    Args:
        paper: the `paper` prices.
        reference: GFLOPs to scale f(L) to, which keeps the loss's weight for backbones much smaller
            than the paper's; 0 leaves real GFLOPs.
    """
    *gates, whole = paper.tolist()
    scale = reference / whole if reference else 1.0
    return tuple((whole - gate) * scale for gate in gates)


def _accumulate(a: Architecture, size: int, full: bool) -> Float[np.ndarray, "a"]:
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
    return np.array([*gates, total / 1e9])


def _policy(a: Architecture, channels: int, full: bool) -> int:
    """Operations of W_x; with `full` also of the LSTM cell (or its replacement) and W_q."""
    macs = channels**2
    if full and a.temporal:
        macs += 4 * a.hidden * (channels + a.hidden) + 3 * a.hidden  # gates; f·c, i·g, o·tanh(c)
    elif full:
        macs += channels * a.hidden
    return macs + (2 * a.hidden if full else 0)
