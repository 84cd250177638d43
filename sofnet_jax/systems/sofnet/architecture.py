"""The description of a SoF-Net, which module, folded form and price list read."""

import dataclasses

from sofnet_jax.backbones.spec import BACKBONES, Block, ResNetSpec, Shift
from sofnet_jax.host.errors import UserError


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A ResNet of five stages res1…res5 with policy modules after some of them.

    The fields are flat because checkpoints store them; `backbone` composes those of the ResNet.

    Attributes:
        num_classes: size of the final classifier and every inner one.
        block, depths, width, stem_kernel: as in `ResNetSpec`.
        gates: stages (1…5, ascending) followed by a policy module; () is plain TSN.
        hidden: units of each policy's LSTM.
        temporal: False replaces the LSTM by a fully connected layer (Table 4).
        shift: the temporal shift of TSM, see `backbones/shift.py`; "" is none.
        forward_bias: initial bias of W_q for "forward".
        dropout: rate before the final classifier.
    """

    num_classes: int
    block: Block = "bottleneck"
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    stem_kernel: int = 7
    gates: tuple[int, ...] = (1, 2, 3, 4, 5)
    hidden: int = 512
    temporal: bool = True
    shift: Shift = ""
    forward_bias: float = 0.0
    dropout: float = 0.5

    @property
    def backbone(self) -> ResNetSpec:
        """The ResNet, without gates and classifier."""
        return ResNetSpec(
            self.block, self.depths, self.width, self.stem_kernel, shifts=bool(self.shift)
        )

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The stages followed by a gate: `("res1", …)`."""
        return tuple(f"res{stage}" for stage in self.gates)


def create_architecture(
    backbone: str, *, num_classes: int, width: int = 0, gates: tuple[int, ...], **fields
) -> Architecture:
    """The architecture of a named backbone.

    Args:
        backbone: a key of `BACKBONES`.
        num_classes: number of classes.
        width: channels of the stem; 0 takes the backbone's own.
        gates: stages followed by a policy module.
        **fields: further fields of `Architecture`.

    Raises:
        UserError: an unknown backbone, gates that are not ascending stages, or a single class.
    """
    if backbone not in BACKBONES:
        raise UserError(f"model.backbone is '{backbone}'; choose one of {', '.join(BACKBONES)}")
    if list(gates) != sorted(set(gates)) or not set(gates) <= {1, 2, 3, 4, 5}:
        raise UserError(f"model.gates is {gates}; give ascending stages among 1, 2, 3, 4, 5")
    if num_classes < 2:
        raise UserError(f"the data has {num_classes} class; at least two are needed")
    spec = BACKBONES[backbone]
    return Architecture(
        num_classes=num_classes,
        block=spec.block,
        depths=spec.depths,
        width=width or spec.width,
        stem_kernel=spec.stem_kernel,
        gates=tuple(gates),
        **fields,
    )
