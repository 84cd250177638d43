"""The description of a FrameExit network, which module and price list read."""

import dataclasses

from sofnet_jax.backbones.spec import BACKBONES, Block, ResNetSpec
from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.frameexit.order import create_order


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A ResNet, an MLP that all frames share, and a classifier and a gate for each position.

    A position is a place in the order in which frames are looked at. The fields are flat because
    checkpoints store them; `backbone` composes those of the ResNet.

    Attributes:
        num_classes: size of every classifier.
        block, depths, width, stem_kernel: as in `ResNetSpec`.
        num_frames: T, the number of positions: T classifiers, and T−1 gates.
        features: d, units of the MLP. The paper doubles the backbone's 2048.
        gate_features: units of the two layers of each gate.
        dropout: rate before the classifiers while they train. The paper names none.
        online: frames come in temporal order, see `create_order`.
    """

    num_classes: int
    block: Block
    depths: tuple[int, int, int, int]
    width: int
    stem_kernel: int
    num_frames: int
    features: int = 4096
    gate_features: tuple[int, int] = (128, 64)
    dropout: float = 0.0
    online: bool = False

    @property
    def backbone(self) -> ResNetSpec:
        """The ResNet, without its classifier."""
        return ResNetSpec(self.block, self.depths, self.width, self.stem_kernel)

    @property
    def order(self) -> tuple[int, ...]:
        """The temporal index of the frame at each position."""
        return create_order(self.num_frames, self.online)

    @property
    def additions(self) -> str:
        """What there is besides the ResNet, in words."""
        order = "as they come" if self.online else "coarse to fine"
        return (
            f"with {self.features} features, a classifier for each of {self.num_frames} frames "
            f"({order}) and gates of {' + '.join(map(str, self.gate_features))} units"
        )


def create_architecture(
    backbone: str, *, num_classes: int, num_frames: int, width: int = 0, **fields
) -> Architecture:
    """The architecture of a named backbone.

    Args:
        backbone: a key of `BACKBONES`.
        num_classes: number of classes.
        num_frames: number of frames of every video.
        width: channels of the stem; 0 takes the backbone's own.
        **fields: further fields of `Architecture`.

    Raises:
        UserError: an unknown backbone, a single class, or fewer than two frames.
    """
    if backbone not in BACKBONES:
        raise UserError(f"model.backbone is '{backbone}'; choose one of {', '.join(BACKBONES)}")
    if num_classes < 2:
        raise UserError(f"the data has {num_classes} class; at least two are needed")
    spec = BACKBONES[backbone]
    architecture = Architecture(
        num_classes=num_classes,
        block=spec.block,
        depths=spec.depths,
        width=width or spec.width,
        stem_kernel=spec.stem_kernel,
        num_frames=num_frames,
        **fields,
    )
    _ = architecture.order  # raises
    return architecture
