"""SoF-Net for inference, in parts: spans of layers, gates, and the classifier."""

import dataclasses
import itertools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from sofnet_jax.backbones.folded import Span, Tree, fold_stages
from sofnet_jax.backbones.layers import full_precision
from sofnet_jax.backbones.shift import Past
from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.gates import update_cell
from sofnet_jax.systems.sofnet.released import PAPER, Released


@flax.struct.dataclass
class Gate:
    """A policy module. The rows of `kernel` are W_ih W_x, then W_hh: one product instead of three.

    For one frame it costs what loading the weights from memory costs. Without temporal modelling
    there is no W_hh.
    """

    kernel: Float[Array, "dm g"]
    bias: Float[Array, "g"]
    w_q: Float[Array, "m 2"]
    b_q: Float[Array, "2"]

    def __call__(
        self, pooled: Float[Array, "b d"], h: Float[Array, "b m"], c: Float[Array, "b m"]
    ) -> tuple[Float[Array, "b m"], Float[Array, "b m"], Float[Array, "b 2"]]:
        """The state after a frame (Eqs. 2–3), h and c, and the logits q."""
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
    """SoF-Net, or TSN if there are no gates, as `deploy` creates it.

    `spans` are the layers before each gate and those after the last gate, possibly none. Layers
    have the type `dtype`, gates and classifier float32, since a rounded logit can flip a decision.
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
        layers = tuple(layer for span in self.spans for layer in span.layers)
        architecture = dataclasses.replace(self.architecture, gates=())
        return dataclasses.replace(self, spans=(Span(layers),), gates=(), architecture=architecture)

    def writes(self, stop: Any) -> Any:
        """Whether a frame with this stop index writes h and c: a kept one (`Released.state`)."""
        return stop >= self.num_gates - self.released.state

    @property
    def device(self) -> jax.Device:
        """The device that holds the weights."""
        return self.head.bias.device

    @property
    def dtype(self) -> DTypeLike:
        """Type of the layers."""
        return jax.tree.leaves(self.spans)[0].dtype


def forwards(
    logits: Float[np.ndarray, "b 2"] | Float[Array, "b 2"],
) -> Bool[np.ndarray, "b"] | Bool[Array, "b"]:
    """Whether a gate forwards each frame, from its logits q (b, 2): a tie stops."""
    return logits[:, 1] > logits[:, 0]


def create_past(network: Network, shape: tuple[int, ...]) -> Past:
    """What shifting blocks read before the first kept frame, for frames (b, h, w, 3): zeros."""
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


def deploy(
    architecture: Architecture,
    variables: Tree,
    *,
    dtype: DTypeLike | None = None,
    released: Released = PAPER,
    winograd: bool | None = None,
) -> Network:
    """Prepares a network for inference on the default device.

    Args:
        architecture: of the network.
        variables: `params` and `batch_stats` of `SoFNet`.
        dtype: of the backbone's weights and computation; by default float32 on a CPU, else
            bfloat16.
        released: points in which the authors' code is followed.
        winograd: whether 3×3 convolutions of stride 1 become `WinogradConvolution`s; by default
            on a CPU in float32.

    Raises:
        UserError: the network shifts from later frames.
    """
    if architecture.shift == "offline":
        raise UserError(
            "with the offline shift each frame needs the next one, so none can be skipped: "
            "evaluate the network with sofnet_jax.main --mode=evaluate, or train one with "
            "--config.model.shift=online"
        )
    device = jax.local_devices()[0]
    on_cpu = device.platform == "cpu"
    dtype = dtype or (jnp.float32 if on_cpu else jnp.bfloat16)
    if winograd is None:
        winograd = on_cpu and dtype == jnp.float32
    params = variables["params"]
    backbone = {name: tree["backbone"] for name, tree in variables.items()}
    stages = fold_stages(architecture.backbone, backbone, dtype=dtype, winograd=winograd)
    bounds = (0, *architecture.gates, 5)
    spans = [Span(tuple(itertools.chain(*stages[a:b]))) for a, b in itertools.pairwise(bounds)]
    network = Network(
        spans=tuple(spans),
        gates=tuple(_create_gate(params[f"policy_{name}"]) for name in architecture.gate_names),
        head=Head(jnp.asarray(params["head"]["kernel"]), jnp.asarray(params["head"]["bias"])),
        architecture=architecture,
        released=released,
    )
    return jax.device_put(network, device)


def _create_gate(weights: Tree) -> Gate:
    """W_ih (W_x x̄ + b_x) + b_ih + W_hh h + b_hh as one product, combined in float64."""
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), dict(weights))
    if "w_ih" in w:
        after, bias, w_hh = w["w_ih"], w["b_ih"] + w["b_hh"], w["w_hh"]
    else:
        after, bias = w["fc"]["kernel"], w["fc"]["bias"]
        w_hh = np.zeros((0, after.shape[1]))
    kernel = np.concatenate([w["embed"]["kernel"] @ after, w_hh])
    arrays = kernel, w["embed"]["bias"] @ after + bias, w["w_q"], w["b_q"]
    return Gate(*(jnp.asarray(x, jnp.float32) for x in arrays))
