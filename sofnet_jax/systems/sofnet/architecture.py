"""The description of a SoF-Net, which module, folded form and price list read."""

import dataclasses

from sofnet_jax.host.errors import UserError
from sofnet_jax.systems import tsn


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
