"""The losses of FrameExit's two phases (CVPR 2021).

The authors have not published their training code. Each term is computed per video, so its mean
does not depend on how a batch is split.
"""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sofnet_jax.systems.frameexit.network import Outputs


@flax.struct.dataclass
class Losses:
    """The terms of the loss, averaged over videos; `total` is minimised.

    Attributes:
        total: `classification` in the first phase, `gates` in the second.
        classification: L_cls.
        gates: L_gate; 0 in the first phase.
        exits: share of the gates' labels that say exit; 0 in the first phase. Training losses
            become small, so it tends to 1, where gates learn nothing.
    """

    total: Float[Array, ""]
    classification: Float[Array, ""]
    gates: Float[Array, ""]
    exits: Float[Array, ""]


def compute_losses(
    outputs: Outputs, labels: Float[Array, "b n"], *, gated: bool, beta: float
) -> Losses:
    """The loss of the phase.

    The paper adds both losses. As the gates pass no gradient on, training one part after the other
    minimises the same sum.

    Args:
        outputs: of the model in training mode.
        labels: multi-hot.
        gated: whether this is the second phase, in which the gates learn.
        beta: β, trades accuracy for cost: the larger, the sooner the gates exit.
    """
    losses = compute_step_losses(outputs.step_logits, labels)
    classification = losses.mean(1).mean()
    if not gated:
        zero = jnp.zeros(())
        return Losses(classification, classification, zero, zero)
    exits = create_exit_labels(losses, beta)
    gates = compute_gate_loss(outputs.gate_logits, exits).mean()
    return Losses(gates, classification, gates, exits.mean(1).mean())


def compute_step_losses(
    step_logits: Float[Array, "b t n"], labels: Float[Array, "b n"]
) -> Float[Array, "b t"]:
    """Cross-entropy ℓ(f_t(z_t), y) at every position; L_cls is its mean over them.

    Several labels share the distribution y equally.
    """
    targets = labels / labels.sum(-1, keepdims=True)
    return optax.softmax_cross_entropy(step_logits, targets[:, None])


def compute_tolerances(num_frames: int, beta: float) -> Float[Array, "t"]:
    """ε_t = β·exp(t/2) for t = 1…T: up to which loss a video may exit at each position."""
    return beta * jnp.exp(jnp.arange(1, num_frames + 1) / 2)


def create_exit_labels(losses: Float[Array, "b t"], beta: float) -> Float[Array, "b t-1"]:
    """What the gates of positions 2…T should say: exit, 1, if ℓ(f_t(z_t), y) ≤ ε_t, else 0."""
    exits = losses <= compute_tolerances(losses.shape[1], beta)
    return jax.lax.stop_gradient(exits[:, 1:].astype(jnp.float32))


def compute_gate_loss(
    gate_logits: Float[Array, "b m"], exits: Float[Array, "b m"]
) -> Float[Array, "b"]:
    """L_gate: mean over the m gates of the binary cross-entropy with their labels, unweighted."""
    return optax.sigmoid_binary_cross_entropy(gate_logits, exits).mean(1)
