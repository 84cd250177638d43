"""SoF-Net for inference: spans of layers, each with the gate that follows it, and the classifier.

The recurrence of the gates is here for one frame at a time, and masked in `gates.py`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from sofnet_jax.backbones.folded import AnyLayers, Layers, Tree
from sofnet_jax.backbones.layers import full_precision
from sofnet_jax.backbones.shift import Channels, Past
from sofnet_jax.systems import tsn
from sofnet_jax.systems.base import DONE, UNDECIDED, Next, choose, find_namespace
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.gates import PAPER, Semantics, update_cell


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
class State(tsn.State):
    """What SoF-Net remembers of b videos, beside what TSN does.

    Attributes:
        cells: h and c of every gate after the last kept frame.
        proposed: the same after the frame in progress, if it is kept.
        left: what blocks that shift read of the frame in progress.
        forced: whether the frame in progress passes all gates because none was kept.
        forces: whether the last frame is forwarded through everything if none was kept.
    """

    cells: Float[Any, "b k 2 m"]
    proposed: Float[Any, "b k 2 m"]
    left: Past
    forced: Bool[Any, "b"]
    forces: bool = flax.struct.field(pytree_node=False)

    @property
    def last(self) -> Bool[Any, "b"]:
        """Whether no other frame follows the one in progress."""
        return self.forced | (self.next.time == self.num_frames - 1)

    def propose(
        self, k: int, left: Channels, h: Float[Any, "b m"], c: Float[Any, "b m"]
    ) -> "State":
        """The state after the frame in progress came to gate k."""
        cell = find_namespace(h).stack([h, c], 1)
        if isinstance(cell, np.ndarray):
            proposed = self.proposed.copy()
            proposed[:, k] = cell
        else:
            proposed = jnp.asarray(self.proposed).at[:, k].set(cell)
        return replace(self, proposed=proposed, left=_set(self.left, k, left))

    def finish(self) -> "State":
        """If no frame was kept, ask for what follows the gate that stopped the last one."""
        force = (self.kept == 0) & self.forces
        nothing = self.kept * 0
        follower = Next(self.next.action + 1, self.next.time - 1, nothing + UNDECIDED)
        done = replace(self.next, span=nothing + DONE)
        return replace(self, next=choose(force, follower, done), forced=force)


@flax.struct.dataclass
class GatedSpan:
    """The layers before gate k, and the gate."""

    layers: AnyLayers
    gate: Gate
    name: str = flax.struct.field(pytree_node=False)
    k: int = flax.struct.field(pytree_node=False)
    writes: bool = flax.struct.field(pytree_node=False)  # although the gate stops
    answers = False

    @property
    def looks(self) -> bool:
        """Whether it starts with pixels."""
        return self.k == 0

    @property
    def followers(self) -> tuple[int, ...]:
        """The next span."""
        return (self.k + 1,)

    def extract(self, state: State | None, x: Any) -> tuple[Any, Any]:
        """Run the layers; the next span starts with their features and average."""
        x, pooled, left = self.layers(x if self.looks else x[0], _recall(state, self.k))
        return (x, pooled), (pooled, left)

    def score(self, state: State, evidence: tuple[Float[Array, "b d"], Channels]) -> Any:
        """Run the gate."""
        pooled, left = evidence
        return self.gate(pooled, state.cells[:, self.k, 0], state.cells[:, self.k, 1]), left

    def decide(self, state: State, scores: Any) -> State:
        """Do what the gate says: the frame goes on, or the next one follows."""
        (h, c, logits), left = scores
        state = state.propose(self.k, left, h, c)
        forced = state.forced | (state.last & (state.kept == 0) & state.forces)
        forward = forwards(logits) | forced
        nothing = state.kept * 0
        onward = Next(nothing + self.k + 1, state.next.time, nothing + UNDECIDED)
        cells = choose(forward, state.cells, state.proposed) if self.writes else state.cells
        return replace(
            state, next=choose(forward, onward, state.close(self.k)), cells=cells, forced=forced
        )


@flax.struct.dataclass
class FinalSpan:
    """The layers after the last gate, possibly none, and the classifier."""

    layers: AnyLayers
    head: tsn.Head
    k: int = flax.struct.field(pytree_node=False)  # number of gates
    name = "head"
    looks = False
    answers = True
    followers = ()

    def extract(self, state: State | None, x: Any) -> tuple[None, Any]:
        """Run the layers."""
        features, pooled = x
        if not self.layers.layers:  # the last gate follows the last stage
            return None, (pooled, ())
        _, pooled, left = self.layers(features, _recall(state, self.k))
        return None, (pooled, left)

    def score(self, state: State, evidence: tuple[Float[Array, "b d"], Channels]) -> Any:
        """Run the classifier."""
        pooled, left = evidence
        return self.head(pooled), left

    def decide(self, state: State, scores: tuple[Float[Any, "b n"], Channels]) -> State:
        """Keep the frame: count its logits, and store what the gates proposed."""
        logits, left = scores
        counted = state.count(logits, self.k)
        past = _set(state.left, self.k, left)
        return replace(state, cells=state.proposed, past=past, **counted)


@flax.struct.dataclass
class FoldedSoFNet(tsn.FoldedTSN):
    """SoF-Net as `deploy` creates it: a span for every gate, and one with the classifier.

    Layers have the type `dtype`, gates and classifier float32, since a rounded logit can flip a
    decision.
    """

    architecture: Architecture = flax.struct.field(pytree_node=False)
    forces: bool = flax.struct.field(pytree_node=False)  # as in `State`

    @property
    def num_gates(self) -> int:
        """Number of gates, k."""
        return len(self.spans) - 1

    @property
    def gates(self) -> tuple[Gate, ...]:
        """All gates."""
        return tuple(span.gate for span in self.spans if isinstance(span, GatedSpan))

    @property
    def head(self) -> tsn.Head:
        """The classifier."""
        assert isinstance(self.spans[-1], FinalSpan)
        return self.spans[-1].head

    @property
    def layers(self) -> Layers:
        """All layers of the backbone."""
        return Layers(tuple(layer for span in self.spans for layer in span.layers.layers))

    def begin(self, num_frames: Int[Array, "b"], shape: Sequence[int]) -> State:
        """The state before the first frame: zeros."""
        start = super().begin(num_frames, shape)
        cells = jnp.zeros((len(num_frames), self.num_gates, 2, self.architecture.hidden))
        return State(
            **vars(start),
            cells=cells,
            proposed=cells,
            left=start.past,
            forced=jnp.zeros(len(num_frames), bool),
            forces=self.forces,
        )


def forwards(logits: Float[Any, "b 2"]) -> Bool[Any, "b"]:
    """Whether a gate forwards each frame, from its logits q (b, 2): a tie stops."""
    return logits[:, 1] > logits[:, 0]


def deploy(
    architecture: Architecture,
    variables: Tree,
    *,
    dtype: DTypeLike | None = None,
    semantics: Semantics = PAPER,
    winograd: bool | None = None,
) -> FoldedSoFNet:
    """Prepares a network for inference on the default device.

    Args:
        architecture: of the network.
        variables: `params` and `batch_stats` of `SoFNet`.
        dtype: as for `tsn.prepare`.
        semantics: those of the network.
        winograd: as for `tsn.prepare`.

    Raises:
        UserError: the network shifts from later frames.
    """
    stages = tsn.prepare(architecture, variables, dtype, winograd)
    params = variables["params"]
    bounds = (0, *architecture.gates, 5)
    parts = [Layers(tuple(itertools.chain(*stages[a:b]))) for a, b in itertools.pairwise(bounds)]
    names = architecture.gate_names
    gated = [
        GatedSpan(
            layers=part,
            gate=_create_gate(params[f"policy_{name}"]),
            name=name,
            k=k,
            writes=semantics.remembers and k == len(names) - 1,
        )
        for k, (part, name) in enumerate(zip(parts, names, strict=False))
    ]
    final = FinalSpan(parts[-1], tsn.Head.create(params["head"]), len(names))
    network = FoldedSoFNet((*gated, final), architecture, semantics.forces)
    return jax.device_put(network, jax.local_devices()[0])


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


def _recall(state: State | None, k: int) -> Channels | None:
    """What span k reads of the last kept frame; None where nothing shifts."""
    return None if state is None else state.past[k]


def _set(parts: Past, k: int, part: Channels) -> Past:
    return (*parts[:k], part, *parts[k + 1 :])
