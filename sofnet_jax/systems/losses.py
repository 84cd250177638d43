"""Losses and metrics that systems share."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def spread_labels(labels: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """The label distribution y of multi-hot labels; several labels share it equally."""
    return labels / labels.sum(-1, keepdims=True)


def compute_classification_loss(
    logits: Float[Array, "*b n"], targets: Float[Array, "*#b n"]
) -> Float[Array, "*b"]:
    """Cross-entropy with the label distribution y (Eq. 9)."""
    return optax.softmax_cross_entropy(logits, targets)


def compute_top1(logits: Float[Array, "b n"], labels: Float[Array, "b n"]) -> Float[Array, ""]:
    """Share of the videos whose best class is a label."""
    best = logits.argmax(-1)
    return jnp.take_along_axis(labels, best[:, None], -1).mean()
