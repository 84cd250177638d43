"""A system of one's own: a gate stops frames that resemble the last kept one.

After res1, the gate compares a frame's averaged features with those of the last kept frame (cosine
similarity). A frame is kept if the similarity is below a learned threshold; a stopped one costs
res1 only. The answer is the mean of the kept frames' logits. The loss is cross-entropy plus
`Similar.cost` times the share of kept frames.

    python -m sofnet_jax.main --config docs/similar.py --workdir runs/similar
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sofnet_jax.backbones.costs import compute_pool_cost, compute_stage_costs
from sofnet_jax.backbones.folded import Layers
from sofnet_jax.run.config import apply_variant, create_default
from sofnet_jax.systems import tsn
from sofnet_jax.systems.base import UNDECIDED, Action, Learning, Next, Phase, Prices, Steps, choose
from sofnet_jax.systems.losses import compute_classification_loss, compute_top1, spread_labels
from sofnet_jax.systems.naming import Naming
from sofnet_jax.systems.registry import SYSTEMS

KEPT, STOPPED = range(2)


def normalise(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Features of length 1; zeros stay zeros."""
    return x * jax.lax.rsqrt((x * x).sum(-1, keepdims=True) + 1e-12)


def keep(x: Float[Array, "b d"], last: Float[Array, "b d"], threshold: Array, temperature=1.0):
    """1 for a frame that does not resemble the last kept one, else 0; a sigmoid's gradient.

    The first frame is compared with zeros, so a positive threshold keeps it.
    """
    margin = threshold - (x * last).sum(-1)
    soft = jax.nn.sigmoid(margin / temperature)
    return (margin > 0) + (soft - jax.lax.stop_gradient(soft))


@dataclasses.dataclass(frozen=True)
class Architecture(tsn.Architecture):
    """What the weights depend on: TSN's, and the threshold that the gate begins with."""

    threshold: float = 0.99

    @property
    def actions(self) -> tuple[Action, ...]:
        """A frame is kept, or stopped after res1."""
        return tsn.KEPT, Action("res1", uses=False, answers=False)

    def prices(self, size: int) -> Prices:
        """GFLOPs of a frame by its action. Only the full count has the comparison."""

        def count(full: bool) -> Float[np.ndarray, "2"]:
            res1 = compute_stage_costs(self.backbone, size, full=full)[0]
            gate = compute_pool_cost(res1.size, self.width) + full * 3 * self.width
            whole = self.plain(size)[full]
            return np.array([whole + gate / 1e9, (res1.operations + gate) / 1e9])

        return Prices(count(False), count(True))


class Network(tsn.FrameNetwork):
    """Whole videos, masked: logits of every frame, and whether it is kept."""

    architecture: Architecture

    @nn.compact
    def __call__(self, frames, *, train=False, gated=True, index=None, temperature=1.0):
        index = jnp.arange(len(frames)) if index is None else index
        pooled = self.run_backbone(frames, train)
        logits = self.classify(pooled["res5"], train, index)
        threshold = self.param("threshold", lambda _: jnp.array(self.architecture.threshold))

        def step(last, x):
            kept = keep(x, last, threshold, temperature)
            return choose(kept > 0.5, x, last), kept

        x = normalise(jnp.moveaxis(pooled["res1"], 1, 0))
        _, kept = jax.lax.scan(step, jnp.zeros_like(x[0]), x)
        return logits, kept.T if gated else jnp.ones_like(kept.T)


@dataclasses.dataclass(frozen=True)
class Similar(tsn.TSN):
    """The system: a warm-up in which every frame is kept, then gate and network together."""

    cost: float = 0.5
    architecture_type = Architecture
    module_type = Network
    naming = Naming(mark="threshold$")
    name = "similar"
    title = "Similar frames"
    learning = Learning(policy=("threshold",))
    shifts = False

    @staticmethod
    def create_phases(warmup: int, joint: int) -> tuple[Phase, ...]:
        """From the epochs of the warm-up and of the joint training."""
        return Phase("warm-up", warmup), Phase("joint", joint)

    def train(self, variables, batch, *, phase, temperature, keys):
        """Cross-entropy of the kept frames' mean, and the cost of keeping them."""
        options = {"gated": phase > 0, "temperature": temperature}
        outputs, statistics = tsn.run_module(self.module, variables, batch, keys, **options)
        logits, kept = outputs
        video_logits = (logits * kept[..., None]).sum(1) / kept.sum(1)[:, None]
        loss = compute_classification_loss(video_logits, spread_labels(batch["labels"])).mean()
        metrics = {"top1": compute_top1(video_logits, batch["labels"]), "usage": kept.mean()}
        return loss + self.cost * kept.mean(), (statistics, metrics | {"loss/classification": loss})

    def evaluate(self, variables, frames) -> Steps:
        """What is done with whole videos."""
        outputs: Any = self.module.apply(variables, frames)
        logits, kept = outputs
        return tsn.list_steps(logits, jnp.where(kept > 0.5, KEPT, STOPPED))

    def deploy(self, variables, **options: Any) -> "FoldedSimilar":
        """The network for inference."""
        params = variables["params"]
        res1, *stages = tsn.prepare(self.architecture, variables, **options)
        gate = Gate(Layers(res1), jnp.asarray(params["threshold"]))
        rest = Layers(tuple(layer for stage in stages for layer in stage))
        last = tsn.WholeSpan(rest, tsn.Head.create(params["head"]), name="rest", looks=False)
        return jax.device_put(
            FoldedSimilar((gate, last), self.architecture), jax.local_devices()[0]
        )


@flax.struct.dataclass
class State(tsn.State):
    """What is remembered of a video: TSN's, and the features of the last kept frame."""

    reference: Float[Array, "b d"]


@flax.struct.dataclass
class Gate:
    """The first span: res1 and the comparison. The rest of the layers follows, or a new frame."""

    layers: Layers
    threshold: Float[Array, ""]
    name = "res1"
    looks = True
    answers = False
    followers = (1,)

    def extract(self, state: State | None, x: Array) -> tuple[Array, Array]:
        """Features, and what the decision compares."""
        x, pooled, _ = self.layers(x)
        return x, normalise(pooled)

    def score(self, state: State, evidence: Float[Array, "b d"]) -> tuple[Array, Array]:
        """Compare the frame with the last kept one."""
        return keep(evidence, state.reference, self.threshold), evidence

    def decide(self, state: State, scores: tuple[Array, Array]) -> State:
        """Keep the frame or ask for the next one."""
        forward, features = scores
        kept = forward > 0.5
        zero = jnp.zeros_like(state.kept)
        onward = Next(zero + 1, state.next.time, zero + UNDECIDED)
        following = choose(kept, onward, state.close(STOPPED))
        reference = choose(kept, features, state.reference)
        return dataclasses.replace(state, next=following, reference=reference)


@flax.struct.dataclass
class FoldedSimilar(tsn.FoldedTSN):
    """One video at a time, unmasked: the spans, and the state they begin with."""

    def begin(self, num_frames: Int[Array, "b"], shape: Sequence[int]) -> State:
        """The state before the first frame."""
        start = super().begin(num_frames, shape)
        zeros = jnp.zeros((len(num_frames), self.architecture.width))
        return State(**vars(start), reference=zeros)


SYSTEMS[Similar.name] = Similar


def get_config(variant: str = "") -> Any:
    """The configuration of an experiment with it."""
    c = create_default()
    c.model.system = Similar.name
    return apply_variant(c, variant)
