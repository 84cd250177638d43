"""The training loss, Eqs. 8–15.

Each term is computed per video, so its mean does not depend on how a batch is split over devices
or accumulated.
"""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sofnet_jax.models.sofnet import Outputs


@flax.struct.dataclass
class Losses:
    """The terms of the loss, averaged over videos; `total` is what is minimised (Eq. 8)."""

    total: Float[Array, ""]
    classification: Float[Array, ""]
    efficiency: Float[Array, ""]
    inner: Float[Array, ""]
    self: Float[Array, ""]


def compute_losses(
    outputs: Outputs,
    labels: Float[Array, "b n"],
    *,
    lookup: tuple[float, ...],
    alpha: float,
    beta: float,
) -> Losses:
    """α L_cls + (1−α) L_eff + β L_inner + (1−β) L_self (Eqs. 8, 12).

    Args:
        outputs: of the model in training mode.
        labels: multi-hot.
        lookup: f_lookup(n) of every gate in GFLOPs (Eq. 10).
        alpha: weight of accuracy against cost.
        beta: weight of the inner classifiers against the policies' self-supervision.
    """
    targets = labels / labels.sum(-1, keepdims=True)
    classification = compute_classification_loss(outputs.video_logits, targets).mean()
    zero = jnp.zeros(())
    if not outputs.inner_logits.shape[2]:
        return Losses(classification, classification, zero, zero, zero)
    gates = outputs.decision.gates
    efficiency = compute_efficiency_loss(gates, jnp.array(lookup)).mean()
    inner = compute_inner_loss(outputs.inner_logits, gates, targets).mean()
    self_ = compute_self_loss(outputs.decision.logits, outputs.inner_logits, targets).mean()
    total = alpha * classification + (1 - alpha) * efficiency + beta * inner + (1 - beta) * self_
    return Losses(total, classification, efficiency, inner, self_)


def compute_classification_loss(
    logits: Float[Array, "*b n"], targets: Float[Array, "*#b n"]
) -> Float[Array, "*b"]:
    """Cross-entropy with the label distribution y (Eq. 9); several labels share it equally."""
    return optax.softmax_cross_entropy(logits, targets)


def compute_efficiency_loss(
    gates: Float[Array, "b t k"], lookup: Float[Array, "k"]
) -> Float[Array, "b"]:
    """Expected GFLOPs (Eq. 11), over the effective gates r_n: 1/(TN) Σ f_lookup(n) r_n."""
    return (gates * lookup).mean((1, 2))


def compute_inner_loss(
    inner_logits: Float[Array, "b t k n"],
    gates: Float[Array, "b t k"],
    targets: Float[Array, "b n"],
) -> Float[Array, "b"]:
    """Mean cross-entropy of the inner classifiers whose gate forwarded (Eq. 13).

    Weighted by the effective gates r_n; their gradient is part of the equation and flows. Zero for
    a video in which no gate forwarded anything, which the rule for the last frame excludes.
    """
    losses = compute_classification_loss(inner_logits, targets[:, None, None])
    count = gates.sum((1, 2))
    return (gates * losses).sum((1, 2)) / jnp.where(count > 0, count, 1)


def compute_self_loss(
    gate_logits: Float[Array, "b t k 2"],
    inner_logits: Float[Array, "b t k n"],
    targets: Float[Array, "b n"],
) -> Float[Array, "b"]:
    """Binary cross-entropy of the gates 1…N−1 with their pseudo-labels (Eqs. 14–15).

    Gate n should forward if inner classifier n + 1 scores the label above inner classifier n. The
    scores carry no gradient. The gate's probability is the noise-free softmax(q_n), whose logit is
    q_n[forward] − q_n[stop]. Zero with a single gate, which has no next classifier.
    """
    if inner_logits.shape[2] < 2:
        return jnp.zeros(inner_logits.shape[0])
    scores = jax.nn.softmax(jax.lax.stop_gradient(inner_logits))
    score = jnp.einsum("btkn,bn->btk", scores, (targets > 0).astype(scores.dtype))
    pseudo_label = (score[..., 1:] > score[..., :-1]).astype(score.dtype)
    logits = (gate_logits[..., 1] - gate_logits[..., 0])[..., :-1]
    return optax.sigmoid_binary_cross_entropy(logits, pseudo_label).mean((1, 2))
