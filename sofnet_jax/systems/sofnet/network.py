"""SoF-Net: frames → features of every stage → scan over the gates → consensus (Eqs. 1–6)."""

from functools import partial
from typing import cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from sofnet_jax.backbones.layers import average_pool, full_precision, normalise
from sofnet_jax.backbones.resnet import ResNet
from sofnet_jax.backbones.shift import Past
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.gates import (
    PAPER,
    Decision,
    InnerClassifier,
    Policy,
    Recurrence,
    Semantics,
    State,
    create_state,
    gate_step,
    run_gates,
)
from sofnet_jax.systems.tsn import FrameNetwork, Frames, draw


@flax.struct.dataclass
class Outputs:
    """Everything that losses and metrics read; k = 0 in the warm-up.

    Attributes:
        video_logits: mean logits of the kept frames; its softmax is p^T (Eq. 6).
        frame_logits: z_t of every frame, including stopped ones (Eq. 5).
        kept: s_t = r_N, 0 or 1 with straight-through gradients.
        decision: gates r, gate logits q and hidden states.
        inner_logits: scores of the inner classifiers.
    """

    video_logits: Float[Array, "b n"]
    frame_logits: Float[Array, "b t n"]
    kept: Float[Array, "b t"]
    decision: Decision
    inner_logits: Float[Array, "b t k n"]


class SoFNet(FrameNetwork):
    """SoF-Net.

    The backbone does not depend on the gates, so it runs on all b·t frames in one batch, and only
    the gates are scanned over time; a stopped frame is masked out of everything that follows. With
    the online shift it does depend on them and is scanned with them.

    Attributes:
        dtype, bn_axis, remat: as in `FrameNetwork`; the gates are float32.
        semantics: how the gates begin, learn and remember.
    """

    architecture: Architecture
    semantics: Semantics = PAPER

    @nn.compact
    def __call__(
        self,
        frames: Frames,
        *,
        train: bool = False,
        gated: bool = True,
        frozen: bool = False,
        index: Int[Array, "b"] | None = None,
        temperature: Array | float = 1.0,
        noise: Float[Array, "b t k 2"] | None = None,
    ) -> Outputs:
        """Scores a batch of videos.

        Args:
            frames: uint8 pixels, normalised here, on the device; or their pooled features.
            train: use batch statistics, dropout and Gumbel noise.
            gated: False is the warm-up: every frame is kept and no gate runs (k = 0).
            frozen: whether, in training, the backbone runs as at inference.
            index: number of each video in the global batch. It keys the dropout and Gumbel
                streams, so they do not depend on the batch's layout over devices.
            temperature: of the Gumbel-softmax.
            noise: Gumbel noise that replaces the stream `gate`.
        """
        a = self.architecture
        b, t = jax.tree.leaves(frames)[0].shape[:2]
        index = jnp.arange(b) if index is None else index
        gated = gated or self.is_initializing()
        if train and gated and noise is None:
            sample = partial(jax.random.gumbel, shape=(t, len(a.gates), 2))
            noise = draw(sample, self.make_rng("gate"), index)
        decision = None
        if gated and a.shift == "online" and not self.is_initializing():
            x, decision = self._run_in_order(cast(Array, frames), train, noise, temperature)
        else:
            pooled = self.run_backbone(frames, train and not frozen)
            x = pooled["res5"]
            if gated:
                with full_precision():
                    decision = run_gates(*self._encode(pooled), noise, temperature, self.semantics)

        frame_logits = self.classify(x, train, index)
        if decision is None:
            return _create_ungated_outputs(frame_logits, a.hidden)
        inner = self._run_inner_classifiers(decision.hidden)
        kept = decision.gates[..., -1]
        return Outputs(_consensus(frame_logits, kept), frame_logits, kept, decision, inner)

    def _run_in_order(
        self,
        frames: UInt8[Array, "b t h w 3"],
        train: bool,
        noise: Float[Array, "b t k 2"] | None,
        temperature: Array | float,
    ) -> tuple[Float[Array, "b t d"], Decision]:
        """Runs backbone and gates frame by frame, shifting from the last kept frame.

        Each frame goes through all stages; what it leaves is masked if it was stopped. BatchNorm
        normalises over the videos, frame by frame.

        Returns:
            Pooled features of res5, and the gates' decisions.
        """
        a = self.architecture
        b, t = frames.shape[:2]

        def look(self, carry: tuple[State, Past], xs):
            state, past = carry
            pixels, noise, last = xs
            images = normalise(pixels, self.dtype)
            features, left = self.create_backbone(updates=t)(images, train, past=past)
            pooled = {k: average_pool(v)[:, None] for k, v in features.items()}
            with full_precision():
                weights, inputs = self._encode(pooled)
                state, decision = gate_step(
                    weights, state, inputs[:, :, 0], noise, temperature, last, self.semantics
                )
            kept = (decision.gates[:, -1] > 0.5)[:, None, None, None]
            past = jax.tree.map(lambda new, old: jnp.where(kept, new, old), left, past)
            return (state, past), (pooled["res5"][:, 0], decision)

        scan = nn.scan(
            look,
            variable_broadcast="params" if train else ["params", "batch_stats"],
            variable_carry="batch_stats" if train else False,
            split_rngs={"params": False},
        )
        first = create_state(len(a.gates), b, a.hidden), self._create_past(frames)
        last = jnp.arange(t) == t - 1
        noise = None if noise is None else jnp.moveaxis(noise, 1, 0)
        _, outputs = scan(self, first, (jnp.moveaxis(frames, 1, 0), noise, last))
        return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), outputs)

    def _create_past(self, frames: UInt8[Array, "b t h w 3"]) -> Past:
        """What shifting blocks read before the first kept frame: zeros."""
        backbone = ResNet(self.architecture.backbone, self.dtype, parent=None)
        images = normalise(frames[:, 0], self.dtype)
        (_, left), _ = jax.eval_shape(
            lambda x: backbone.init_with_output(jax.random.key(0), x, False), images
        )
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), left)

    def _encode(
        self, pooled: dict[str, Float[Array, "b t _"]]
    ) -> tuple[Recurrence, Float[Array, "k b t g"]]:
        """The policies' other weights, and their LSTMs' inputs from the pooled features."""
        a = self.architecture
        inputs, weights = zip(
            *(Policy(a, self.semantics, name=f"policy_{n}")(pooled[n]) for n in a.gate_names),
            strict=True,
        )
        return jax.tree.map(lambda *w: jnp.stack(w), *weights), jnp.stack(inputs)

    def _run_inner_classifiers(self, hidden: Float[Array, "b t k d"]) -> Float[Array, "b t k n"]:
        a = self.architecture
        inner = [
            InnerClassifier(a, self.semantics, name=f"inner_{name}")(hidden[:, :, k])
            for k, name in enumerate(a.gate_names)
        ]
        return jnp.stack(inner, axis=2)


def _consensus(logits: Float[Array, "b t n"], kept: Float[Array, "b t"]) -> Float[Array, "b n"]:
    """Mean logits of the kept frames (Eq. 6); zero if there are none."""
    count = kept.sum(1)
    with full_precision():
        total = jnp.einsum("btn,bt->bn", logits, kept)
    return total / jnp.where(count > 0, count, 1)[:, None]


def _create_ungated_outputs(frame_logits: Float[Array, "b t n"], hidden: int) -> Outputs:
    """Outputs of the warm-up: every frame kept."""
    b, t, n = frame_logits.shape
    decision = Decision(*(jnp.zeros((b, t, 0, *d)) for d in ((), (2,), (hidden,), ())))
    kept = jnp.ones((b, t))
    return Outputs(frame_logits.mean(1), frame_logits, kept, decision, jnp.zeros((b, t, 0, n)))
