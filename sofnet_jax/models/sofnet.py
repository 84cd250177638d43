"""SoF-Net: frames → features of every stage → scan over the gates → consensus (Eqs. 1–6)."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from sofnet_jax.architecture import Architecture
from sofnet_jax.models.policy import Decision, InnerClassifier, Policy, full_precision, run_gates
from sofnet_jax.models.resnet import ResNet
from sofnet_jax.released import PAPER, Released

# Statistics of ImageNet, in units of a 0…1 pixel: what published backbones were trained with.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


@flax.struct.dataclass
class Outputs:
    """Everything the losses and the metrics read; k = 0 without gates (TSN, warm-up).

    Attributes:
        video_logits: mean of the logits of the kept frames; its softmax is p^T (Eq. 6).
        frame_logits: z_t of every frame, also of those that the gates stopped (Eq. 5).
        kept: s_t = r_N, 0 or 1 with straight-through gradients.
        decision: gates r, gate logits q and hidden states.
        inner_logits: scores of the inner classifiers.
    """

    video_logits: Float[Array, "b n"]
    frame_logits: Float[Array, "b t n"]
    kept: Float[Array, "b t"]
    decision: Decision
    inner_logits: Float[Array, "b t k n"]


class SoFNet(nn.Module):
    """SoF-Net, or TSN if the architecture has no gates.

    The backbone does not depend on the gates, so it runs for all b·t frames in one batch, and only
    the gates are scanned over time; a stopped frame is masked out of everything that follows.

    Attributes:
        dtype: type of the backbone's computation; parameters, statistics and gates are float32.
        bn_axis: pmap axis of synchronised BatchNorm, or None.
        remat: recompute activations in the backward pass.
        released: points in which the authors' code is followed, not the paper.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None
    remat: bool = False
    released: Released = PAPER

    @nn.compact
    def __call__(
        self,
        frames: UInt8[Array, "b t h w 3"],
        *,
        train: bool = False,
        gated: bool = True,
        index: Int[Array, "b"] | None = None,
        temperature: Array | float = 1.0,
        noise: Float[Array, "b t k 2"] | None = None,
    ) -> Outputs:
        """Scores a batch of videos.

        Args:
            frames: uint8 pixels; normalised here, on the device.
            train: batch statistics, dropout and Gumbel noise instead of the deterministic network.
            gated: False is the plain backbone, TSN: every frame is kept and no gate runs (k = 0).
            index: number of each video in the global batch. It keys the dropout and Gumbel
                streams, so that they do not depend on how the batch is laid out over devices.
            temperature: of the Gumbel-softmax.
            noise: Gumbel noise to use in place of the stream `gate`.
        """
        a = self.architecture
        b, t = frames.shape[:2]
        index = jnp.arange(b) if index is None else index
        images = normalise(frames, self.dtype).reshape(b * t, *frames.shape[2:])
        backbone = ResNet(a, self.dtype, self.bn_axis, self.remat, name="backbone")
        features = backbone(images, train)
        pooled = {k: average_pool(v).reshape(b, t, -1) for k, v in features.items()}

        x = pooled["res5"]
        if train and a.dropout:
            x = _dropout(x, a.dropout, self.make_rng("dropout"), index)
        head = nn.Dense(a.num_classes, kernel_init=nn.initializers.normal(0.001), name="head")
        with full_precision():
            frame_logits = head(x)

        if not a.gates or not (gated or self.is_initializing()):
            return _create_ungated_outputs(frame_logits, a.hidden)
        if train and noise is None:
            noise = _gumbel((t, len(a.gates), 2), self.make_rng("gate"), index)
        decision, inner = self._run_policies(pooled, noise, temperature)
        kept = decision.gates[..., -1]
        return Outputs(_consensus(frame_logits, kept), frame_logits, kept, decision, inner)

    def _run_policies(self, pooled, noise, temperature) -> tuple[Decision, Array]:
        """Gates and inner classifiers on the pooled features of the gated stages."""
        a, released = self.architecture, self.released
        policies = [Policy(a, released, name=f"policy_{name}") for name in a.gate_names]
        with full_precision():
            encoded = [
                policy(pooled[name]) for policy, name in zip(policies, a.gate_names, strict=True)
            ]
            inputs, weights = [x for x, _ in encoded], [w for _, w in encoded]
            decision = run_gates(weights, inputs, noise, temperature, released)
        inner = [
            InnerClassifier(a, released, name=f"inner_{name}")(decision.hidden[:, :, k])
            for k, name in enumerate(a.gate_names)
        ]
        return decision, jnp.stack(inner, axis=2)


def normalise(frames: UInt8[Array, "*b 3"], dtype: DTypeLike) -> Float[Array, "*b 3"]:
    """uint8 pixels to zero mean and unit variance by ImageNet's statistics."""
    scale = 1 / (255 * jnp.array(PIXEL_STD))
    shift = jnp.array(PIXEL_MEAN) / jnp.array(PIXEL_STD)
    return (frames.astype(jnp.float32) * scale - shift).astype(dtype)


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
    """Global average pooling (Eq. 1), summed in float32."""
    return x.mean((1, 2), dtype=jnp.float32)


def _consensus(logits: Float[Array, "b t n"], kept: Float[Array, "b t"]) -> Float[Array, "b n"]:
    """Mean of the kept frames' logits (Eq. 6); zero if no frame was kept (`Released.empty`)."""
    count = kept.sum(1)
    with full_precision():
        total = jnp.einsum("btn,bt->bn", logits, kept)
    return total / jnp.where(count > 0, count, 1)[:, None]


def _create_ungated_outputs(frame_logits: Float[Array, "b t n"], hidden: int) -> Outputs:
    """Outputs of a network without gates: every frame kept."""
    b, t, n = frame_logits.shape
    decision = Decision(*(jnp.zeros((b, t, 0, *d)) for d in ((), (2,), (hidden,), ())))
    kept = jnp.ones((b, t))
    return Outputs(frame_logits.mean(1), frame_logits, kept, decision, jnp.zeros((b, t, 0, n)))


def _per_video_keys(key: Array, index: Int[Array, "b"]) -> Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def _dropout(x: Float[Array, "b t d"], rate: float, key: Array, index: Int[Array, "b"]) -> Array:
    keys = _per_video_keys(key, index)
    keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


def _gumbel(shape: tuple[int, ...], key: Array, index: Int[Array, "b"]) -> Array:
    return jax.vmap(lambda k: jax.random.gumbel(k, shape))(_per_video_keys(key, index))
