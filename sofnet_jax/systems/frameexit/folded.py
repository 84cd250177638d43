"""FrameExit for inference: a span for a frame and its gate, and one for the classifiers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from sofnet_jax.backbones.folded import AnyLayers, Layers, Tree
from sofnet_jax.backbones.layers import BatchNorm, full_precision
from sofnet_jax.systems.base import (
    DONE,
    UNDECIDED,
    Next,
    choose,
    create_next,
    find_namespace,
)
from sofnet_jax.systems.frameexit.architecture import EXIT, FIRST, LAST, NEXT, Architecture
from sofnet_jax.systems.tsn import prepare

LOOK, ANSWER = range(2)  # the spans


@flax.struct.dataclass
class State:
    """What FrameExit remembers of b videos.

    Attributes:
        position: of the frame in progress in the order.
        maximum: z of the frames before it, then of the frames up to it.
        answer: logits of the classifier that ran last.
    """

    next: Next
    position: Int[Any, "b"]
    maximum: Float[Any, "b d"]
    answer: Float[Any, "b n"]
    num_frames: Int[Any, "b"]
    order: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @property
    def last(self) -> int:
        """The last position."""
        return len(self.order) - 1

    def create_next(self, span: Any, position: Any, action: Any) -> Next:
        """Ask for a span on the frame at a position."""
        xp, zero = find_namespace(position), self.position * 0
        time = xp.asarray(self.order, xp.int32)[xp.clip(position, 0, self.last)]
        return Next(zero + span, time, zero + action)

    def finish(self) -> "State":
        """Ask for the classifier of the last frame looked at, unless it has run."""
        before = self.position - 1
        answer = self.create_next(ANSWER, before, UNDECIDED)
        done = replace(self.next, span=self.position * 0 + DONE)
        unanswered = self.next.action == NEXT
        return replace(
            self,
            next=choose(unanswered, answer, done),
            position=find_namespace(before).where(unanswered, before, self.position),
        )


@flax.struct.dataclass
class Layer:
    """A linear layer with the BatchNorm that followed it folded in, and a ReLU.

    Those of the gates have a leading axis of positions 2…T.
    """

    kernel: Float[Array, "*t d e"]
    bias: Float[Array, "*t e"]

    def __call__(
        self, x: Float[Array, "b d"], index: Int[Array, "b"] | None = None
    ) -> Float[Array, "b e"]:
        """Features; `index` selects the gate of each video."""
        if index is None:
            return nn.relu(x @ self.kernel + self.bias)
        return nn.relu(multiply(x, self.kernel, index) + self.bias[index])


def multiply(
    x: Float[Array, "b d"], kernels: Float[Array, "t d e"], index: Int[Array, "b"]
) -> Float[Array, "b e"]:
    """The product of each video with a matrix of its own."""
    if len(x) == 1:  # a slice instead of a copy of the selected weights
        return x @ jax.lax.dynamic_index_in_dim(kernels, index[0], keepdims=False)
    return jnp.einsum("bd,bde->be", x, kernels[index])


@flax.struct.dataclass
class LookSpan:
    """A frame: backbone, MLP, running maximum, and the gate of its position."""

    layers: AnyLayers
    mlp: Layer
    gates: tuple[Layer, Layer]
    exit: tuple[Float[Array, "m e"], Float[Array, "m"]]  # the gates' last layer
    name = "look"
    looks = True
    answers = False
    followers = (ANSWER,)

    def extract(self, state: State | None, x: Any) -> tuple[Any, Any]:
        """Run the layers; the classifier starts with the maximum in the state."""
        _, pooled, _ = self.layers(x)
        return pooled[:, :0], pooled

    def score(
        self, state: State, evidence: Float[Array, "b c"]
    ) -> tuple[Float[Array, "b d"], Bool[Array, "b"]]:
        """Run MLP and gate: the running maximum of features u_t, and whether the gate exits."""
        t, before = state.position, state.maximum
        with full_precision():
            features = self.mlp(evidence)
        maximum = jnp.maximum(before, features)
        asks = (t > 0) & (t < state.last)

        def ask() -> Bool[Array, "b"]:
            with full_precision():
                return self._ask(maximum, before, jnp.clip(t - 1, 0, state.last - 1)) > 0

        return maximum, asks & jax.lax.cond(asks.any(), ask, lambda: jnp.zeros_like(asks))

    def decide(self, state: State, scores: tuple[Float[Any, "b d"], Bool[Any, "b"]]) -> State:
        """Do what the gate says: the classifier answers, or the next frame follows."""
        maximum, exits = scores
        t = state.position
        classify = (t == 0) | exits | (t == state.last)
        onward = state.create_next(LOOK, t + 1, NEXT)
        return replace(
            state,
            next=choose(classify, state.create_next(ANSWER, t, UNDECIDED), onward),
            position=find_namespace(t).where(classify, t, t + 1),
            maximum=maximum,
        )

    def _ask(
        self, z: Float[Array, "b d"], before: Float[Array, "b d"], index: Int[Array, "b"]
    ) -> Float[Array, "b"]:
        """The gates' logits; positive means exit."""
        both = []
        for x in (z, before):
            for layer in self.gates:
                x = layer(x, index)
            both.append(x)
        kernel, bias = self.exit
        return (jnp.concatenate(both, 1) * kernel[index]).sum(1) + bias[index]


@flax.struct.dataclass
class AnswerSpan:
    """The classifier of a position."""

    kernel: Float[Array, "t d n"]
    bias: Float[Array, "t n"]
    name = "answer"
    looks = False
    answers = True
    followers = ()

    def extract(self, state: State | None, x: Any) -> tuple[None, Any]:
        """Nothing: the classifier reads the state."""
        return None, ()

    def score(self, state: State, evidence: tuple[()]) -> Float[Array, "b n"]:
        """Run the position's classifier."""
        with full_precision():
            return multiply(state.maximum, self.kernel, state.position) + self.bias[state.position]

    def decide(self, state: State, scores: Float[Any, "b n"]) -> State:
        """Answer. A video goes on after its first frame only."""
        t, xp = state.position, find_namespace(state.position)
        first = t == 0
        action = xp.where(first, FIRST, xp.where(t == state.last, LAST, EXIT))
        span = xp.where(first, LOOK, DONE)
        return replace(
            state,
            next=state.create_next(span, t + 1, action),
            position=t + 1,
            answer=scores,
        )


@flax.struct.dataclass
class FoldedFrameExit:
    """FrameExit as `deploy` creates it. All but the layers of the backbone is float32."""

    spans: tuple[Any, ...]
    architecture: Architecture = flax.struct.field(pytree_node=False)
    shares = True

    @property
    def dtype(self) -> DTypeLike:
        """Type of the backbone's layers."""
        return self.spans[0].layers.dtype

    def begin(self, num_frames: Int[Array, "b"], shape: Sequence[int]) -> State:
        """The state before the first frame: zeros, which no feature is below."""
        batch, a = len(num_frames), self.architecture
        start = State(
            next=create_next(batch),
            position=jnp.zeros(batch, jnp.int32),
            maximum=jnp.zeros((batch, a.features)),
            answer=jnp.zeros((batch, a.num_classes)),
            num_frames=jnp.asarray(num_frames, jnp.int32),
            order=tuple(a.order(a.num_frames).tolist()),
        )
        return replace(start, next=start.create_next(LOOK, start.position, UNDECIDED))


def deploy(architecture: Architecture, variables: Tree, **options: Any) -> FoldedFrameExit:
    """Prepares a network for inference on the default device.

    Args:
        architecture: of the network.
        variables: `params` and `batch_stats` of `FrameExit`.
        **options: `dtype` and `winograd`, as for `tsn.prepare`.
    """
    stages = prepare(architecture, variables, **options)
    params, stats = variables["params"], variables["batch_stats"]
    gates = [
        _fold(params["gates"][f"dense{i}"], params["gates"][f"bn{i}"], stats["gates"][f"bn{i}"])
        for i in (1, 2)
    ]
    last = params["gates"]["exit"]
    look = LookSpan(
        layers=Layers(tuple(layer for stage in stages for layer in stage)),
        mlp=_fold(params["mlp"]["dense"], params["mlp"]["bn"], stats["mlp"]["bn"]),
        gates=(gates[0], gates[1]),
        exit=(jnp.asarray(last["kernel"])[..., 0], jnp.asarray(last["bias"])[..., 0]),
    )
    heads = params["classifiers"]
    answer = AnswerSpan(jnp.asarray(heads["kernel"]), jnp.asarray(heads["bias"]))
    network = FoldedFrameExit((look, answer), architecture)
    return jax.device_put(network, jax.local_devices()[0])


def _fold(dense: Tree, norm: Tree, stats: Tree) -> Layer:
    """A linear layer with the scaling of BatchNorm inside."""
    scale = norm["scale"] / jnp.sqrt(stats["var"] + BatchNorm.epsilon)
    kernel = jnp.asarray(dense["kernel"] * scale[..., None, :], jnp.float32)
    bias = (dense["bias"] - stats["mean"]) * scale + norm["bias"]
    return Layer(kernel, jnp.asarray(bias, jnp.float32))
