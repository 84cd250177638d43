"""A network made ready for inference, in parts: spans of stages, gates, and the classifier."""

import dataclasses

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from sofnet_jax.architecture import Architecture
from sofnet_jax.inference.winograd import WinogradConvolution
from sofnet_jax.models.policy import full_precision, update_cell
from sofnet_jax.models.resnet import convolve, max_pool
from sofnet_jax.models.shift import Memory, Shift
from sofnet_jax.models.sofnet import average_pool, normalise
from sofnet_jax.released import PAPER, Released

# Pixels of an output up to which a product over patches is faster: res5's, above all.
FEW_PIXELS = 64

# Of each span, for each of its blocks that shift: what the last kept frame left (`models.shift`).
Past = tuple[tuple[Float[Array, "_ _ _ _"], ...], ...]


@flax.struct.dataclass
class Convolution:
    """A convolution with the BatchNorm that followed it folded in.

    Of one image it is a product over patches up to `few_pixels` of its output, of several up to
    `FEW_PIXELS`.
    """

    kernel: Float[Array, "k k c c2"]
    bias: Float[Array, "c2"]
    few_pixels: int = flax.struct.field(pytree_node=False, default=FEW_PIXELS)

    def __call__(self, x: Float[Array, "b h w c"], stride: int) -> Float[Array, "b h2 w2 c2"]:
        """Without the ReLU."""
        few_pixels = self.few_pixels if len(x) == 1 else FEW_PIXELS
        return convolve(x, self.kernel, stride, few_pixels) + self.bias


@flax.struct.dataclass
class Stem:
    """res1, on uint8 pixels."""

    convolution: Convolution

    def __call__(self, x: Shaped[Array, "b h w 3"]) -> Float[Array, "b h4 w4 c"]:
        """Features of images."""
        x = normalise(x, self.convolution.kernel.dtype)
        return max_pool(nn.relu(self.convolution(x, 2)))


@flax.struct.dataclass
class Block:
    """A residual block; `shortcut` is None where its input is added as it is."""

    convolutions: tuple[Convolution | WinogradConvolution, ...]
    shortcut: Convolution | None
    stride: int = flax.struct.field(pytree_node=False)
    shifts: bool = flax.struct.field(pytree_node=False, default=False)

    def __call__(self, x: Float[Array, "b h w c"], shift: Shift) -> Float[Array, "b h2 w2 c2"]:
        """The bottleneck strides in its 3×3, the basic block in its first."""
        bottleneck = len(self.convolutions) == 3
        strides = (1, self.stride, 1) if bottleneck else (self.stride, 1)
        y = shift(x) if self.shifts else x
        for convolution, stride in zip(self.convolutions[:-1], strides, strict=False):
            y = nn.relu(convolution(y, stride))
        y = self.convolutions[-1](y, 1)
        return nn.relu(y + (x if self.shortcut is None else self.shortcut(x, self.stride)))


@flax.struct.dataclass
class ResidualStage:
    """One of res2…res5."""

    blocks: tuple[Block, ...]

    def __call__(self, x: Float[Array, "b h w c"], shift: Shift) -> Float[Array, "b h2 w2 c2"]:
        """Features from those of the stage before."""
        for block in self.blocks:
            x = block(x, shift)
        return x


@flax.struct.dataclass
class Span:
    """The stages between two gates."""

    stages: tuple[Stem | ResidualStage, ...]

    def __call__(
        self,
        x: Shaped[Array, "b h w c"],
        past: tuple[Float[Array, "b _ _ _"], ...] | None = None,
    ) -> tuple[Float[Array, "b h2 w2 c2"], Float[Array, "b c2"], tuple[Array, ...]]:
        """Features after the stages, their average (Eq. 1), and what is left for later frames.

        `past` is what the last kept frame left; None if there was none.
        """
        memory = Memory(past)
        for stage in self.stages:
            x = stage(x) if isinstance(stage, Stem) else stage(x, memory)
        return x, average_pool(x), tuple(memory.new)


@flax.struct.dataclass
class Gate:
    """A policy module. The rows of `kernel` are W_ih W_x, then W_hh: one product, not three.

    Of one frame it costs what the weights take to come from memory. Without temporal modelling
    there is no W_hh.
    """

    kernel: Float[Array, "dm g"]
    bias: Float[Array, "g"]
    w_q: Float[Array, "m 2"]
    b_q: Float[Array, "2"]

    def __call__(
        self, pooled: Float[Array, "b d"], h: Float[Array, "b m"], c: Float[Array, "b m"]
    ) -> tuple[Float[Array, "b m"], Float[Array, "b m"], Float[Array, "b 2"]]:
        """What a frame makes of the state (Eqs. 2–3): h, c, and the logits q."""
        with full_precision():
            if len(self.kernel) == pooled.shape[1]:
                h = jnp.tanh(pooled @ self.kernel + self.bias)
            else:
                z = jnp.concatenate([pooled, h], 1) @ self.kernel + self.bias
                h, c = update_cell(z, c)
            return h, c, h @ self.w_q + self.b_q


@flax.struct.dataclass
class Head:
    """The classifier."""

    kernel: Float[Array, "d n"]
    bias: Float[Array, "n"]

    def __call__(self, pooled: Float[Array, "b d"]) -> Float[Array, "b n"]:
        """Logits z_t from the averaged features of res5 (Eq. 5)."""
        with full_precision():
            return pooled @ self.kernel + self.bias


@flax.struct.dataclass
class Network:
    """SoF-Net, or TSN if there are no gates, as `deploy` makes it.

    `spans` are the stages before each gate and, last, those after all of them, of which there may
    be none. Stages are of the type `dtype`; gates and classifier of float32, for a rounded logit
    can turn a decision.
    """

    spans: tuple[Span, ...]
    gates: tuple[Gate, ...]
    head: Head
    architecture: Architecture = flax.struct.field(pytree_node=False)
    released: Released = flax.struct.field(pytree_node=False, default=PAPER)

    @property
    def num_gates(self) -> int:
        """Number of gates, k."""
        return len(self.gates)

    def without_gates(self) -> "Network":
        """Plain TSN with the same weights."""
        stages = tuple(stage for span in self.spans for stage in span.stages)
        architecture = dataclasses.replace(self.architecture, gates=())
        return dataclasses.replace(self, spans=(Span(stages),), gates=(), architecture=architecture)

    @property
    def device(self) -> jax.Device:
        """Where the weights are."""
        return self.head.bias.device

    @property
    def dtype(self) -> DTypeLike:
        """Type of the stages."""
        return jax.tree.leaves(self.spans)[0].dtype


def create_past(network: Network, shape: tuple[int, ...]) -> Past:
    """What blocks that shift are given of frames (b, h, w, 3) before the first kept one: zeros."""
    if not network.architecture.shift:
        return ((),) * len(network.spans)
    past = []
    x = jax.ShapeDtypeStruct(shape, jnp.uint8)
    for span in network.spans:
        x, _, left = jax.eval_shape(span, x)
        past.append(tuple(jnp.zeros(each.shape, each.dtype) for each in left))
    return tuple(past)


def create_states(network: Network, batch: int) -> tuple[Float[Array, "b m"], ...]:
    """h or c of every gate before the first frame."""
    return (jnp.zeros((batch, network.architecture.hidden)),) * network.num_gates
