"""What network is built: the one description that the model and its FLOP table both read."""

import dataclasses

from sofnet_jax.backbones.spec import BACKBONES, BOTTLENECK_EXPANSION, DEEP, Block, Shift
from sofnet_jax.host.errors import UserError


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A ResNet of five stages res1…res5 with policy modules after some of them.

    Attributes:
        num_classes: size of the final and of every inner classifier.
        block: residual block of res2…res5.
        depths: number of blocks in res2…res5.
        width: channels of res1; stage s ≥ 2 has `width·2^(s-2)`, ×4 with bottlenecks.
        stem_kernel: side of res1's convolution (stride 2).
        gates: stages (1…5, ascending) followed by a policy module; none is plain TSN.
        hidden: units of each policy's LSTM.
        temporal: False replaces the LSTM by a fully connected layer (Table 4).
        shift: the temporal shift of TSM, see `models.shift`; "" is none.
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
    def channels(self) -> tuple[int, int, int, int, int]:
        """Channels of the features after res1…res5."""
        expansion = BOTTLENECK_EXPANSION if self.block == "bottleneck" else 1
        res2, res3, res4, res5 = (self.width * 2**i * expansion for i in range(4))
        return self.width, res2, res3, res4, res5

    @property
    def shift_every(self) -> int:
        """The first block of a stage shifts, and every so many after it; 0: none."""
        if not self.shift:
            return 0
        return 2 if self.depths[2] >= DEEP else 1

    @property
    def gate_names(self) -> tuple[str, ...]:
        """`("res1", …)`, the stages that a gate follows."""
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
        UserError: an unknown backbone, or gates that are not ascending stages.
    """
    if backbone not in BACKBONES:
        raise UserError(f"model.backbone is '{backbone}'; choose one of {', '.join(BACKBONES)}")
    if list(gates) != sorted(set(gates)) or not set(gates) <= {1, 2, 3, 4, 5}:
        raise UserError(f"model.gates is {gates}; give ascending stages among 1, 2, 3, 4, 5")
    if num_classes < 2:
        raise UserError(f"{num_classes} class to tell apart; at least two are needed")
    block, depths, own_width, stem_kernel = BACKBONES[backbone]
    return Architecture(
        num_classes=num_classes,
        block=block,
        depths=depths,
        width=width or own_width,
        stem_kernel=stem_kernel,
        gates=tuple(gates),
        **fields,
    )
