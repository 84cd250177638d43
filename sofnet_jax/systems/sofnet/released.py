"""SoF-Net as its authors' released PyTorch code trains it, which differs from their paper.

`docs/fidelity.md` compares both, point by point. N is the number of gates.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.base import Learning
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.gates import Semantics
from sofnet_jax.systems.sofnet.losses import Objective, compute_inner_loss, create_pseudo_labels
from sofnet_jax.systems.sofnet.network import Outputs
from sofnet_jax.systems.sofnet.system import SoFNetSystem


def hold_gates(samples: Float[Array, "*b k"]) -> Float[Array, "*b k"]:
    """Effective gates r_n whose gradient reaches one gate, not every factor of the product.

    That is n if the frame came to it, else the one that stopped it.
    """
    effective = [samples[..., 0]]
    for n in range(1, samples.shape[-1]):
        effective.append(jnp.where(effective[-1] > 0.5, samples[..., n], effective[-1]))
    return jnp.stack(effective, axis=-1)


def compute_rate(path: tuple[Any, ...]) -> float:
    """The learning rate of a parameter relative to a convolution's.

    Linear layers learn 5 times as fast, their biases 10 times, and an LSTM's biases twice.
    """
    *_, module, leaf = (key.key for key in path)
    if leaf in ("b_ih", "b_hh"):
        return 2.0
    linear = module in ("head", "embed", "dense", "fc")
    if leaf == "b_q" or (linear and leaf == "bias"):
        return 10.0
    return 5.0 if leaf == "w_q" or linear else 1.0


def is_matrix(parameter: Any) -> bool:
    """True for kernels and matrices, false for biases and BatchNorm's scales."""
    return parameter.ndim > 1


class ReleasedObjective(Objective):
    """The released losses."""

    def compute_efficiency(self, outputs: Outputs) -> Float[Array, "b"]:
        """f_lookup(1) + 1/T Σ f_lookup(n+1) r_n, with 1e-5 for f_lookup(N+1)."""
        lookup = jnp.array(self.lookup)
        costs = outputs.decision.gates * jnp.append(lookup[1:], 1e-5)
        return lookup[0] + costs.sum(-1).mean(-1)

    def compute_inner(self, outputs: Outputs, targets: Float[Array, "b n"]) -> Float[Array, "b"]:
        """The mean over all frames and gates, including stopped ones."""
        ones = jnp.ones_like(outputs.decision.gates)
        return compute_inner_loss(outputs.inner_logits, ones, targets)

    def compute_self(self, outputs: Outputs, targets: Float[Array, "b n"]) -> Float[Array, "b"]:
        """Cross-entropy with the one-hot samples (1 − g_n, g_n) as logits, over all N gates.

        The final classifier guides the last one.
        """
        layers = [outputs.inner_logits, outputs.frame_logits[:, :, None]]
        pseudo_labels = create_pseudo_labels(jnp.concatenate(layers, axis=2), targets)
        logits = 2 * outputs.decision.samples - 1  # g_n − (1 − g_n)
        return optax.sigmoid_binary_cross_entropy(logits, pseudo_labels).mean((1, 2))


@dataclasses.dataclass(frozen=True)
class ReleasedSoFNet(SoFNetSystem):
    """SoF-Net as released. What its configuration also changes is the variant `release`."""

    name = "sofnet_released"
    title = "SoF-Net, released"
    objective_type = ReleasedObjective
    semantics = Semantics(
        kernel=lambda fan: nn.initializers.normal(0.001),
        bias=lambda fan: nn.initializers.zeros_init(),
        combine=hold_gates,
        remembers=True,
        forces=False,
    )
    learning: Learning = Learning(
        SoFNetSystem.learning.policy, restarts=True, rate=compute_rate, decays=is_matrix
    )
    via = 224

    @classmethod
    def create(
        cls, fields: Mapping[str, Any], architecture: Architecture, **options: Any
    ) -> SoFNetSystem:
        """From the fields of a configuration. Raises UserError for fields that do not fit."""
        if architecture.shift == "online":
            raise UserError(
                "model.shift is 'online', which reads kept frames only, but sofnet_released also "
                "remembers others; change model.shift or model.system"
            )
        return super().create(fields, architecture, **options)
