"""The training loss, Eqs. 8–15.

Each term is computed per video, so its mean does not depend on how a batch is split.
"""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from sofnet_jax.systems.losses import compute_classification_loss, spread_labels
from sofnet_jax.systems.sofnet.network import Outputs


@flax.struct.dataclass
class Losses:
    """The terms of the loss, averaged over videos; `total` is minimised (Eq. 8)."""

    total: Float[Array, ""]
    classification: Float[Array, ""]
    efficiency: Float[Array, ""]
    inner: Float[Array, ""]
    self: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Objective:
    """α L_cls + (1−α) L_eff + L_pg, where L_pg = β L_inner + (1−β) L_self (Eqs. 8, 12).

    Attributes:
        lookup: f_lookup(n) of every gate in GFLOPs (Eq. 10).
        alpha: weight of accuracy against cost.
        beta: weight of the inner classifiers against the policies' self-supervision.
        guidance: False leaves L_pg out of the total; its terms are still reported.
        floor: the share of its largest value below which L_eff of a video pushes no further.
    """

    lookup: tuple[float, ...]
    alpha: float
    beta: float
    guidance: bool = True
    floor: float = 0.0

    def __call__(self, outputs: Outputs, labels: Float[Array, "b n"]) -> Losses:
        """The losses of a batch in training mode with multi-hot labels; L_cls in the warm-up."""
        targets = spread_labels(labels)
        classification = compute_classification_loss(outputs.video_logits, targets).mean()
        zero = jnp.zeros(())
        if not outputs.inner_logits.shape[2]:
            return Losses(classification, classification, zero, zero, zero)
        efficiency = self._limit(self.compute_efficiency(outputs)).mean()
        inner = self.compute_inner(outputs, targets).mean()
        self_ = self.compute_self(outputs, targets).mean()
        total = self.alpha * classification + (1 - self.alpha) * efficiency
        if self.guidance:
            total = total + self.beta * inner + (1 - self.beta) * self_
        return Losses(total, classification, efficiency, inner, self_)

    def _limit(self, efficiency: Float[Array, "b"]) -> Float[Array, "b"]:
        """L_eff of each video, or the least that counts."""
        if not self.floor:
            return efficiency
        return jnp.maximum(efficiency, self.floor * sum(self.lookup) / len(self.lookup))

    def compute_efficiency(self, outputs: Outputs) -> Float[Array, "b"]:
        """L_eff (Eq. 11)."""
        return compute_efficiency_loss(outputs.decision.gates, jnp.array(self.lookup))

    def compute_inner(self, outputs: Outputs, targets: Float[Array, "b n"]) -> Float[Array, "b"]:
        """L_inner (Eq. 13)."""
        return compute_inner_loss(outputs.inner_logits, outputs.decision.gates, targets)

    def compute_self(self, outputs: Outputs, targets: Float[Array, "b n"]) -> Float[Array, "b"]:
        """L_self (Eqs. 14–15)."""
        return compute_self_loss(outputs.decision.logits, outputs.inner_logits, targets)


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

    The weights are the effective gates r_n, through which gradients flow. Zero for a video without
    a forwarding gate. Gates of one give the plain mean.
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
    pseudo_labels = create_pseudo_labels(inner_logits, targets)
    return optax.sigmoid_binary_cross_entropy(logits, pseudo_labels).mean((1, 2))


def create_pseudo_labels(
    layer_logits: Float[Array, "b t m n"], targets: Float[Array, "b n"]
) -> Float[Array, "b t m-1"]:
    """ĝ_n of Eq. 14: 1 where classifier n + 1 scores the labels higher than classifier n."""
    scores = jax.nn.softmax(jax.lax.stop_gradient(layer_logits))
    score = jnp.einsum("btmn,bn->btm", scores, (targets > 0).astype(scores.dtype))
    return (score[..., 1:] > score[..., :-1]).astype(score.dtype)


def compute_lookup(paper: Float[np.ndarray, "a"], reference: float = 0.0) -> tuple[float, ...]:
    """f_lookup(n) = f(L) − f(l_n) (Eq. 10).

    Args:
        paper: the `paper` prices.
        reference: GFLOPs to scale f(L) to, which keeps the loss's weight for backbones much smaller
            than the paper's; 0 leaves real GFLOPs.
    """
    *gates, whole = paper.tolist()
    scale = reference / whole if reference else 1.0
    return tuple((whole - gate) * scale for gate in gates)
