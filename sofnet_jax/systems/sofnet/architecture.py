"""The description of a SoF-Net: its weights, what it does with frames, and what that costs.

There are two counts of GFLOPs, 10⁹ multiply–adds. `paper` is that of the published tables:
convolutions and linear layers, two per BatchNorm element, the global average pools and W_x, but
neither LSTMs nor W_q. `full` adds everything else that runs at inference: LSTMs, W_q, ReLUs, the
max-pool, residual sums.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from sofnet_jax.backbones.costs import compute_pool_cost, compute_stage_costs
from sofnet_jax.host.errors import UserError
from sofnet_jax.systems import tsn
from sofnet_jax.systems.base import Action, Prices


@dataclasses.dataclass(frozen=True)
class Architecture(tsn.Architecture):
    """A ResNet of five stages res1…res5 with policy modules after some of them.

    Attributes:
        gates: stages (1…5, ascending) followed by a policy module.
        hidden: units of each policy's LSTM.
        temporal: False replaces the LSTM by a fully connected layer (Table 4).
        forward_bias: initial bias of W_q for "forward".
    """

    gates: tuple[int, ...] = (1, 2, 3, 4, 5)
    hidden: int = 512
    temporal: bool = True
    forward_bias: float = 0.0

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The stages followed by a gate: `("res1", …)`."""
        return tuple(f"res{stage}" for stage in self.gates)

    @property
    def additions(self) -> str:
        """What there is besides the ResNet, in words."""
        kind = "LSTMs" if self.temporal else "layers"
        return f"with gates ({kind} of {self.hidden} units) after {' '.join(self.gate_names)}"

    @property
    def actions(self) -> tuple[Action, ...]:
        """A frame is stopped after a stage, or kept."""
        stopped = (Action(name, uses=False, answers=False) for name in self.gate_names)
        return (*stopped, tsn.KEPT)

    def prices(self, size: int) -> Prices:
        """GFLOPs of a frame: f(l_n) if gate n stops it, then f(L) if it is kept."""
        return Prices(self._accumulate(size, full=False), self._accumulate(size, full=True))

    def _accumulate(self, size: int, full: bool) -> Float[np.ndarray, "a"]:
        channels = self.backbone.channels
        stages = compute_stage_costs(self.backbone, size, full=full)
        total, gates = 0, []
        for i, stage in enumerate(stages):
            total += stage.operations
            if i + 1 in self.gates:
                total += compute_pool_cost(stage.size, channels[i])
                total += self._count_policy(channels[i], full)
                gates.append(total / 1e9)
        # The tables count the classifier's pool beside the gate's own.
        if not full or 5 not in self.gates:
            total += compute_pool_cost(stages[4].size, channels[4])
        total += channels[4] * self.num_classes
        return np.array([*gates, total / 1e9])

    def _count_policy(self, channels: int, full: bool) -> int:
        """Operations of W_x; with `full` also of the LSTM cell (or its replacement) and W_q."""
        macs = channels**2
        if full and self.temporal:  # the cell's products are f·c, i·g and o·tanh(c)
            macs += 4 * self.hidden * (channels + self.hidden) + 3 * self.hidden
        elif full:
            macs += channels * self.hidden
        return macs + (2 * self.hidden if full else 0)


def create_architecture(
    backbone: str, *, num_classes: int, width: int = 0, gates: tuple[int, ...], **fields
) -> Architecture:
    """The architecture of a named backbone.

    Args:
        backbone: as for `tsn.choose_backbone`.
        num_classes: number of classes.
        width: as for `tsn.choose_backbone`.
        gates: stages followed by a policy module.
        **fields: further fields of `Architecture`.

    Raises:
        UserError: an unknown backbone, gates that are not ascending stages, or a single class.
    """
    chosen = tsn.choose_backbone(backbone, num_classes=num_classes, width=width)
    if not gates:
        raise UserError("model.gates is empty; without gates take model.system=tsn")
    if list(gates) != sorted(set(gates)) or not set(gates) <= {1, 2, 3, 4, 5}:
        raise UserError(f"model.gates is {gates}; give ascending stages among 1, 2, 3, 4, 5")
    return Architecture(**chosen, gates=tuple(gates), **fields)
