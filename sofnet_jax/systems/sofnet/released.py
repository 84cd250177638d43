"""Points in which the authors' released PyTorch code trains differently from the paper."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Released:
    """Each field that is set follows the released code in one point; the default is the paper.

    `docs/fidelity.md` compares both. N is the number of gates.

    Attributes:
        init: W_x, W_q and the inner classifiers start at N(0, 0.001) with zero biases instead of
            PyTorch's defaults.
        state: h and c are kept from the last frame that gates 1…N−1 forwarded, whatever gate N
            decided.
        gradient: the gradient of an effective gate r_n reaches only the gate that decided it (n, or
            the one that stopped the frame before) instead of every factor of the product.
        empty: a video without kept frames scores zero; its last frame is not forwarded.
        efficiency: L_eff weights r_n by f_lookup(n + 1), r_N by 1e-5, adds f_lookup(1), and is not
            divided by N.
        inner: L_inner averages over all frames and gates, including stopped ones.
        self_supervision: L_self is the cross-entropy with the gates' hard samples as logits, over
            all N gates; the final classifier guides the last one.
        groups: linear layers learn 5 times as fast as the rest, their biases 10 times and LSTM
            biases twice; weight decay skips biases and BatchNorm.
        restart: the joint training starts without the warm-up's momentum.
        crops: crops are resized to 224×224, then subsampled to the input size by nearest pixel.
        clip_norm: gradients are scaled down to this norm if theirs is larger; 0 does not clip.
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
RELEASED_SIDE = 224  # pixels, for `Released.crops`
