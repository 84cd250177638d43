"""Where the authors' released PyTorch code trains otherwise than the paper says."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Released:
    """A field that is set follows the released code in one point; unset, the default, the paper.

    `docs/fidelity.md` tells what both do. N is the number of gates.

    Attributes:
        init: W_x, W_q and the inner classifiers begin at N(0, 0.001) with zero biases, not as
            PyTorch's layers do by themselves.
        state: h and c are those of the last frame that gates 1…N−1 forwarded, whatever gate N said.
        gradient: of an effective gate r_n reaches only the gate that decided it, n or the one that
            stopped the frame before, not all of the product's factors.
        empty: a video of which no frame is kept scores zero, instead of its last frame being
            forwarded.
        efficiency: L_eff weighs r_n by f_lookup(n + 1), r_N by 1e-5, adds f_lookup(1), and is not
            divided by N.
        inner: L_inner averages over all frames and gates, also those that were stopped.
        self_supervision: L_self is the cross-entropy that takes the gates' hard samples for logits,
            over all N gates, the last one guided by the final classifier.
        groups: parameter groups: linear layers learn 5 times as fast as the rest, their biases 10
            times and those of the LSTMs twice; weight decay is for weights, not for biases and
            BatchNorm.
        restart: the joint training begins without the warm-up's momentum, as a run of its own.
        crops: are resized to 224×224 whatever the size of the network's input, of which the nearest
            pixels are taken then.
        clip_norm: largest norm of the gradient; a longer one is scaled to it. 0 does not clip.
    """

    init: bool = False
    state: bool = False
    gradient: bool = False
    empty: bool = False
    efficiency: bool = False
    inner: bool = False
    self_supervision: bool = False
    groups: bool = False
    restart: bool = False
    crops: bool = False
    clip_norm: float = 0.0


PAPER = Released()
RELEASED_SIDE = 224  # pixels, of `Released.crops`
