"""A backbone for inference: BatchNorm folded into the convolutions."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from sofnet_jax.backbones.layers import BatchNorm, average_pool, convolve, max_pool, normalise
from sofnet_jax.backbones.shift import Channels, Past, shift_frame
from sofnet_jax.backbones.spec import ConvSpec, ResNetSpec
from sofnet_jax.backbones.winograd import WinogradConvolution, transform_kernel

Tree = Mapping[str, Any]

# Pixels of an output up to which a product over patches is faster: above all res5's. On a GPU it is
# faster for one image of any size.
FEW_PIXELS, _ANY_PIXELS = 64, 2**31 - 1


@flax.struct.dataclass
class Convolution:
    """A convolution with the BatchNorm that followed it folded in.

    It is computed as a product over patches if its output has at most `few_pixels` pixels, or
    `FEW_PIXELS` for several images.
    """

    kernel: Float[Array, "k k c c2"]
    bias: Float[Array, "c2"]
    stride: int = flax.struct.field(pytree_node=False)
    few_pixels: int = flax.struct.field(pytree_node=False, default=FEW_PIXELS)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """The convolution, without the ReLU."""
        few_pixels = self.few_pixels if len(x) == 1 else FEW_PIXELS
        return convolve(x, self.kernel, self.stride, few_pixels) + self.bias


@flax.struct.dataclass
class Stem:
    """res1, on uint8 pixels."""

    convolution: Convolution

    def __call__(self, x: Shaped[Array, "b h w 3"]) -> Float[Array, "b h4 w4 c"]:
        """Features of images."""
        x = normalise(x, self.convolution.kernel.dtype)
        return max_pool(nn.relu(self.convolution(x)))


@flax.struct.dataclass
class Block:
    """A residual block; `shortcut` is None where its input is added unchanged."""

    convolutions: tuple[Convolution | WinogradConvolution, ...]
    shortcut: Convolution | None
    shifts: bool = flax.struct.field(pytree_node=False)

    def __call__(
        self, x: Float[Array, "b h w c"], shifted: Float[Array, "b h w c"] | None = None
    ) -> Float[Array, "b h2 w2 c2"]:
        """Features; the convolutions read `shifted` instead of `x` where that is given."""
        y = x if shifted is None else shifted
        for i, convolution in enumerate(self.convolutions):
            y = convolution(nn.relu(y) if i else y)
        return nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))


@runtime_checkable
class AnyLayers(Protocol):
    """Layers of a backbone that run together, wherever they run; as `Layers`, which run in JAX."""

    @property
    def layers(self) -> tuple["Stem | Block", ...]: ...
    @property
    def dtype(self) -> DTypeLike: ...
    def __call__(
        self, x: Shaped[Any, "b _ _ _"], past: Channels | None = None
    ) -> tuple[Any, Any, Channels]: ...


@flax.struct.dataclass
class Layers:
    """Layers of a backbone that run together, of any number of stages."""

    layers: tuple[Stem | Block, ...]

    def __call__(
        self, x: Shaped[Array, "b h w c"], past: Channels | None = None
    ) -> tuple[Float[Array, "b h2 w2 c2"], Float[Array, "b c2"], Channels]:
        """Features after the layers, their average (Eq. 1), and the `past` of a later frame.

        `past` is what the last kept frame left; None if there was none.
        """
        left: Channels = ()
        for layer in self.layers:
            if isinstance(layer, Block) and layer.shifts:
                shifted, own = shift_frame(x, None if past is None else past[len(left)])
                x, left = layer(x, shifted), (*left, own)
            else:
                x = layer(x)
        return x, average_pool(x), left

    @property
    def dtype(self) -> DTypeLike:
        """Type of the weights and of the computation."""
        weights = jax.tree.leaves(self.layers)
        return weights[0].dtype if weights else jnp.float32


def create_past(parts: Sequence[AnyLayers], shape: tuple[int, ...]) -> Past:
    """What shifting blocks read before the first kept frame, for frames (b, h, w, 3): zeros."""
    past = []
    x = jax.ShapeDtypeStruct(shape, jnp.uint8)
    for part in parts:
        x, _, left = jax.eval_shape(part, x)
        past.append(tuple(jnp.zeros(each.shape, each.dtype) for each in left))
    return tuple(past)


def fold_stages(
    spec: ResNetSpec, variables: Tree, *, dtype: DTypeLike, winograd: bool
) -> list[tuple[Stem | Block, ...]]:
    """The layers of res1…res5 with BatchNorm's scaling inside the convolutions.

    y = (w∗x − μ)·γ/√(σ² + ε) + β is (w·γ/√(σ² + ε))∗x + (β − μ·γ/√(σ² + ε)).

    Args:
        spec: of the backbone.
        variables: `params` and `batch_stats` of a `ResNet`.
        dtype: of weights and computation.
        winograd: whether 3×3 convolutions of stride 1 become `WinogradConvolution`s.
    """
    params = traverse_util.flatten_dict(variables["params"], sep="/")
    stats = traverse_util.flatten_dict(variables["batch_stats"], sep="/")
    few_pixels = FEW_PIXELS if jax.default_backend() == "cpu" else _ANY_PIXELS

    def create(conv: ConvSpec, name: str) -> Any:
        norm = name.replace("conv", "bn")
        scale = params[f"{norm}/scale"] / jnp.sqrt(stats[f"{norm}/var"] + BatchNorm.epsilon)
        kernel = jnp.asarray(params[f"{name}/kernel"] * scale, dtype)
        bias = jnp.asarray(params[f"{norm}/bias"] - stats[f"{norm}/mean"] * scale, dtype)
        if winograd and (conv.kernel, conv.stride) == (3, 1):
            return WinogradConvolution(transform_kernel(kernel), bias)
        return Convolution(kernel, bias, conv.stride, few_pixels)

    stages: list[tuple[Stem | Block, ...]] = [(Stem(create(spec.stem, "res1/conv1")),)]
    for number, specs in enumerate(spec.stages, 2):
        blocks = []
        for i, block in enumerate(specs):
            path = f"res{number}/block{i}"
            convs = (create(c, f"{path}/conv{j}") for j, c in enumerate(block.convolutions, 1))
            shortcut = None
            if block.shortcut is not None:
                shortcut = create(block.shortcut, f"{path}/downsample_conv")
            blocks.append(Block(tuple(convs), shortcut, block.shifts))
        stages.append(tuple(blocks))
    return stages
