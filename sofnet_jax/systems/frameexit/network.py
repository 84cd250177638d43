"""FrameExit (CVPR 2021): frames → features → running maximum → classifiers and gates."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sofnet_jax.backbones.layers import BatchNorm, full_precision
from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.frameexit.architecture import Architecture
from sofnet_jax.systems.tsn import FrameNetwork, Frames


@flax.struct.dataclass
class Outputs:
    """What losses and metrics read, by position: a place in the order of looking.

    Attributes:
        step_logits: f_t(z_t), the answer at each position.
        gate_logits: of the m = T−1 gates at the positions 2…T; positive means exit. Zeros, so that
            nothing exits, where gates do not run.
    """

    step_logits: Float[Array, "b t n"]
    gate_logits: Float[Array, "b m"]

    @property
    def exit(self) -> Int[Array, "b"]:
        """0-based position at which each video is answered, as the gates decide."""
        return find_exit(self.gate_logits)

    @property
    def video_logits(self) -> Float[Array, "b n"]:
        """The answer: that of the classifier at the exit alone, not a mean over positions."""
        return jnp.take_along_axis(self.step_logits, self.exit[:, None, None], axis=1)[:, 0]


class FrameExit(FrameNetwork):
    """FrameExit: a maximum over the frames so far, and gates that end a video early.

    All frames are computed here; a gate's decision only selects which position answers. Everything
    after the backbone is float32.

    It trains in two phases. First everything but the gates learns (`gated=False`), then the gates
    alone (`gated=True`). The authors have not published their training code; that the frozen part
    then runs in evaluation mode, as it will at inference, is our choice.

    Attributes:
        dtype, bn_axis, remat: as in `FrameNetwork`.
    """

    architecture: Architecture

    @nn.compact
    def __call__(
        self,
        frames: Frames,
        *,
        train: bool = False,
        gated: bool = True,
        index: Int[Array, "b"] | None = None,
    ) -> Outputs:
        """Scores a batch of videos.

        Args:
            frames: uint8 pixels in temporal order, T a video, or their pooled features. They are
                put into the architecture's order, and pixels normalised, here, on the device.
            train: use batch statistics and dropout. With `gated`, only in the gates; nothing else
                then receives a gradient.
            gated: whether the gates run.
            index: number of each video in the global batch. It keys the dropout stream, so that it
                does not depend on the batch's layout over devices.

        Raises:
            UserError: another number of frames than the network has classifiers.
        """
        a = self.architecture
        b, t = jax.tree.leaves(frames)[0].shape[:2]
        if t != a.num_frames:
            raise UserError(
                f"the videos have {t} frames, but this FrameExit has a classifier "
                f"for each of {a.num_frames}; sample {a.num_frames}"
            )
        learns = train and not gated
        index = jnp.arange(b) if index is None else index
        frames = jax.tree.map(lambda x: x[:, a.order(t)], frames)
        pooled = self.run_backbone(frames, learns)["res5"]
        with full_precision():
            z = accumulate(MLP(a.features, self.bn_axis, name="mlp")(pooled, learns))
            if gated:
                z = jax.lax.stop_gradient(z)
            kept = self.drop(z, index) if learns else z
            step_logits = Classifiers(a.num_classes, name="classifiers")(kept)
            if gated:
                step_logits = jax.lax.stop_gradient(step_logits)
            if gated or self.is_initializing():
                gates = _Gates(a.gate_features, self.bn_axis, name="gates")
                gate_logits = gates(z[:, 1:], z[:, :-1], train)
            else:
                gate_logits = jnp.zeros(z[:, 1:, 0].shape)
        return Outputs(step_logits, gate_logits)


class MLP(nn.Module):
    """The layer that every frame's pooled features pass: linear, BatchNorm, ReLU.

    In training BatchNorm normalises over all frames of all videos.
    """

    features: int
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"], train: bool) -> Float[Array, "b t d"]:
        x = _dense(self.features, x.shape[-1], "dense")(x)
        return nn.relu(BatchNorm(self.bn_axis, name="bn")(x, train))


class Classifiers(nn.Module):
    """A linear classifier of its own for each position, initialised as torch.nn.Linear."""

    num_classes: int

    @nn.compact
    def __call__(self, z: Float[Array, "b t d"]) -> Float[Array, "b t n"]:
        _, t, d = z.shape
        kernel = self.param("kernel", _uniform(d), (t, d, self.num_classes))
        bias = self.param("bias", _uniform(d), (t, self.num_classes))
        return jnp.einsum("btd,tdn->btn", z, kernel) + bias


class Gate(nn.Module):
    """The gate at one position: whether to exit, seen from z_t and z_{t−1}.

    Both pass the same two layers, each by itself: in training, BatchNorm normalises each by its own
    batch and moves its running statistics twice, first by z_t. The last layer starts at zero: gates
    that have not been trained go on.
    """

    features: tuple[int, int]
    bn_axis: str | None = None

    @nn.compact
    def __call__(
        self, z: Float[Array, "b d"], before: Float[Array, "b d"], train: bool
    ) -> Float[Array, "b"]:
        widths = (z.shape[-1], *self.features)
        layers = [
            (_dense(widths[i], widths[i - 1], f"dense{i}"), BatchNorm(self.bn_axis, name=f"bn{i}"))
            for i in (1, 2)
        ]

        def encode(x: Array) -> Array:
            for dense, norm in layers:
                x = nn.relu(norm(dense(x), train))
            return x

        both = jnp.concatenate([encode(z), encode(before)], axis=-1)
        return nn.Dense(1, kernel_init=nn.initializers.zeros, name="exit")(both)[:, 0]


# The gates of positions 2…T side by side: weights and statistics get a leading axis.
_Gates = nn.vmap(
    Gate,
    in_axes=(1, 1, None),
    out_axes=1,
    variable_axes={"params": 0, "batch_stats": 0},
    split_rngs={"params": True},
)


def accumulate(features: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Accumulated pooling: z_1 = u_1, z_t = max(z_{t−1}, u_t), elementwise."""
    return jax.lax.cummax(features, axis=1)


def find_exit(gate_logits: Float[Array, "b m"]) -> Int[Array, "b"]:
    """0-based position that answers: that of the first gate with a positive logit, else the last.

    Gate j belongs to position j + 1; position 0 has none. The last gate decides nothing.
    """
    exits = gate_logits > 0
    return jnp.where(exits.any(1), exits.argmax(1) + 1, gate_logits.shape[1])


def _dense(features: int, fan_in: int, name: str) -> nn.Dense:
    """A linear layer initialised as torch.nn.Linear; the released code has no initialisation."""
    init = _uniform(fan_in)
    return nn.Dense(features, kernel_init=init, bias_init=init, name=name)


def _uniform(fan_in: int):
    """PyTorch's default initialiser of linear layers, U(−1/√fan_in, 1/√fan_in)."""
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -bound, bound
    )
