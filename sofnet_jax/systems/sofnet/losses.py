"""The training loss, Eqs. 8–15.

Each term is computed per video, so its mean does not depend on how a batch is split.
"""

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sofnet_jax.systems.losses import compute_classification_loss, spread_labels
from sofnet_jax.systems.sofnet.network import Outputs
from sofnet_jax.systems.sofnet.released import PAPER, Released


@flax.struct.dataclass
class Losses:
    """The terms of the loss, averaged over videos; `total` is minimised (Eq. 8)."""

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
    guidance: bool = True,
    released: Released = PAPER,
) -> Losses:
    """α L_cls + (1−α) L_eff + L_pg, where L_pg = β L_inner + (1−β) L_self (Eqs. 8, 12).

    Args:
        outputs: of the model in training mode.
        labels: multi-hot.
        lookup: f_lookup(n) of every gate in GFLOPs (Eq. 10).
        alpha: weight of accuracy against cost.
        beta: weight of the inner classifiers against the policies' self-supervision.
        guidance: False leaves L_pg out of the total; its terms are still reported.
        released: follows the authors' code in `efficiency`, `inner` and `self_supervision`.
    """
    targets = spread_labels(labels)
    classification = compute_classification_loss(outputs.video_logits, targets).mean()
    zero = jnp.zeros(())
    if not outputs.inner_logits.shape[2]:
        return Losses(classification, classification, zero, zero, zero)
    decision, inner_logits = outputs.decision, outputs.inner_logits
    if released.efficiency:
        efficiency = compute_released_efficiency_loss(decision.gates, jnp.array(lookup)).mean()
    else:
        efficiency = compute_efficiency_loss(decision.gates, jnp.array(lookup)).mean()
    weights = jnp.ones_like(decision.gates) if released.inner else decision.gates
    inner = compute_inner_loss(inner_logits, weights, targets).mean()
    if released.self_supervision:
        layers = jnp.concatenate([inner_logits, outputs.frame_logits[:, :, None]], axis=2)
        self_ = compute_released_self_loss(decision.samples, layers, targets).mean()
    else:
        self_ = compute_self_loss(decision.logits, inner_logits, targets).mean()
    total = alpha * classification + (1 - alpha) * efficiency
    if guidance:
        total = total + beta * inner + (1 - beta) * self_
    return Losses(total, classification, efficiency, inner, self_)


def compute_efficiency_loss(
    gates: Float[Array, "b t k"], lookup: Float[Array, "k"]
) -> Float[Array, "b"]:
    """Expected GFLOPs (Eq. 11), over the effective gates r_n: 1/(TN) Σ f_lookup(n) r_n."""
    return (gates * lookup).mean((1, 2))


def compute_released_efficiency_loss(
    gates: Float[Array, "b t k"], lookup: Float[Array, "k"]
) -> Float[Array, "b"]:
    """`Released.efficiency`: f_lookup(1) + 1/T Σ f_lookup(n+1) r_n, with 1e-5 for f_lookup(N+1)."""
    return lookup[0] + (gates * jnp.append(lookup[1:], 1e-5)).sum(-1).mean(-1)


def compute_inner_loss(
    inner_logits: Float[Array, "b t k n"],
    gates: Float[Array, "b t k"],
    targets: Float[Array, "b n"],
) -> Float[Array, "b"]:
    """Mean cross-entropy of the inner classifiers whose gate forwarded (Eq. 13).

    The weights are the effective gates r_n, through which gradients flow. Zero for a video without
    a forwarding gate, which only `Released.empty` allows. Gates of one give the plain mean
    (`Released.inner`).
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

    Gate n should forward if inner classifier n + 1 scores the label higher than inner classifier n.
    The scores carry no gradient. The gate's probability is the noise-free softmax(q_n), whose logit
    is q_n[forward] − q_n[stop]. Zero with a single gate, which has no next classifier.
    """
    if inner_logits.shape[2] < 2:
        return jnp.zeros(inner_logits.shape[0])
    logits = (gate_logits[..., 1] - gate_logits[..., 0])[..., :-1]
    pseudo_labels = _create_pseudo_labels(inner_logits, targets)
    return optax.sigmoid_binary_cross_entropy(logits, pseudo_labels).mean((1, 2))


def compute_released_self_loss(
    samples: Float[Array, "b t k"],
    layer_logits: Float[Array, "b t k+1 n"],
    targets: Float[Array, "b n"],
) -> Float[Array, "b"]:
    """`Released.self_supervision`: cross-entropy with the one-hot samples (1 − g_n, g_n) as logits.

    It covers all N gates; `layer_logits` come from the inner classifiers and the final one.
    """
    pseudo_labels = _create_pseudo_labels(layer_logits, targets)
    logits = 2 * samples - 1  # g_n − (1 − g_n)
    return optax.sigmoid_binary_cross_entropy(logits, pseudo_labels).mean((1, 2))


def _create_pseudo_labels(
    layer_logits: Float[Array, "b t m n"], targets: Float[Array, "b n"]
) -> Float[Array, "b t m-1"]:
    """ĝ_n of Eq. 14: 1 where classifier n + 1 scores the labels higher than classifier n."""
    scores = jax.nn.softmax(jax.lax.stop_gradient(layer_logits))
    score = jnp.einsum("btmn,bn->btm", scores, (targets > 0).astype(scores.dtype))
    return (score[..., 1:] > score[..., :-1]).astype(score.dtype)
