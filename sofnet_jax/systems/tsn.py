"""TSN: every frame passes the backbone, and the mean of their logits decides (Eq. 6 with s_t = 1).

It is the plain network that all other systems are compared with.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from sofnet_jax.backbones.costs import compute_pool_cost, compute_stage_costs
from sofnet_jax.backbones.folded import AnyLayers, Layers, Stem, Tree, create_past, fold_stages
from sofnet_jax.backbones.folded import Block as FoldedBlock
from sofnet_jax.backbones.layers import average_pool, full_precision, normalise
from sofnet_jax.backbones.resnet import ResNet
from sofnet_jax.backbones.shift import Past, shift_frames
from sofnet_jax.backbones.spec import BACKBONES, Block, ResNetSpec, Shift
from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.base import (
    DONE,
    Action,
    Learning,
    Next,
    Phase,
    Pooling,
    Prices,
    Spending,
    Steps,
    average,
    create_next,
    find_namespace,
)
from sofnet_jax.systems.losses import compute_classification_loss, compute_top1, spread_labels
from sofnet_jax.systems.naming import Naming

KEPT = Action("kept", uses=True, answers=True)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A ResNet of five stages res1…res5 and a classifier.

    The fields are flat because checkpoints store them; `backbone` composes those of the ResNet.

    Attributes:
        num_classes: size of the classifier.
        block, depths, width, stem_kernel: as in `ResNetSpec`.
        shift: the temporal shift of TSM, see `backbones/shift.py`; "" is none.
        dropout: rate before the classifier.

    The class's attributes and methods are those of `base.Architecture`.
    """

    online = True
    num_frames = 0
    pooling: ClassVar[Pooling] = "mean"

    num_classes: int
    block: Block = "bottleneck"
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    stem_kernel: int = 7
    shift: Shift = ""
    dropout: float = 0.5

    @property
    def backbone(self) -> ResNetSpec:
        """The ResNet, without the classifier."""
        return ResNetSpec(
            self.block, self.depths, self.width, self.stem_kernel, shifts=bool(self.shift)
        )

    @property
    def additions(self) -> str:
        """What there is besides the ResNet and its classifier, in words."""
        return ""

    @property
    def actions(self) -> tuple[Action, ...]:
        """Every frame is kept."""
        return (KEPT,)

    def order(self, num_frames: int) -> Int[np.ndarray, "t"]:
        """One after the other."""
        return np.arange(num_frames)

    def prices(self, size: int) -> Prices:
        """GFLOPs of a frame by its action."""
        return Prices(*(np.array([price]) for price in self.plain(size)))

    def plain(self, size: int) -> Spending:
        """GFLOPs of the ResNet, its average pool and a classifier."""

        def count(full: bool) -> float:
            spec = self.backbone
            stages = compute_stage_costs(spec, size, full=full)
            pool = compute_pool_cost(stages[-1].size, spec.channels[-1])
            layers = sum(stage.operations for stage in stages)
            return (layers + pool + spec.channels[-1] * self.num_classes) / 1e9

        return Spending(count(full=False), count(full=True))


def choose_backbone(name: str, *, num_classes: int, width: int = 0) -> dict[str, Any]:
    """The fields of an `Architecture` that a named backbone determines.

    Args:
        name: a key of `BACKBONES`.
        num_classes: number of classes.
        width: channels of the stem; 0 takes the backbone's own.

    Raises:
        UserError: an unknown backbone, or a single class.
    """
    if name not in BACKBONES:
        raise UserError(f"model.backbone is '{name}'; choose one of {', '.join(BACKBONES)}")
    if num_classes < 2:
        raise UserError(f"the data has {num_classes} class; at least two are needed")
    spec = BACKBONES[name]
    return {
        "num_classes": num_classes,
        "block": spec.block,
        "depths": spec.depths,
        "width": width or spec.width,
        "stem_kernel": spec.stem_kernel,
    }


Features = dict[str, Float[Array, "b t _"]]  # pooled, by stage
Frames = UInt8[Array, "b t h w 3"] | Mapping[str, Float[Array, "b t _"]]  # or their features


class FrameNetwork(nn.Module):
    """A backbone and a classifier that run on every frame, for TSN and what builds on it.

    Attributes:
        dtype: type of the backbone's computation; parameters and statistics are float32.
        bn_axis, remat: as in `ResNet`.
    """

    architecture: Architecture
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None
    remat: bool = False

    def create_backbone(self, updates: int = 1) -> ResNet:
        """The backbone, within a compact method."""
        a = self.architecture
        return ResNet(a.backbone, self.dtype, self.bn_axis, self.remat, updates, name="backbone")

    def run_backbone(self, frames: Frames, train: bool) -> Features:
        """Pooled features of all stages (Eq. 1) for all frames at once."""
        if isinstance(frames, Mapping):
            return dict(frames)
        b, t = frames.shape[:2]
        online = self.architecture.shift == "online"

        def shift(x: Array, past: Array | None) -> tuple[Array, Array]:
            return shift_frames(x, t, online=online), x  # nothing is passed on

        images = normalise(frames, self.dtype).reshape(b * t, *frames.shape[2:])
        features, _ = self.create_backbone()(images, train, shift)
        return {k: average_pool(v).reshape(b, t, -1) for k, v in features.items()}

    def classify(
        self, x: Float[Array, "b t d"], train: bool, index: Int[Array, "b"]
    ) -> Float[Array, "b t n"]:
        """Dropout and the classifier (Eq. 5)."""
        n = self.architecture.num_classes
        head = nn.Dense(n, kernel_init=nn.initializers.normal(0.001), name="head")
        x = self.drop(x, index) if train else x
        with full_precision():
            return head(x)

    def drop(self, x: Float[Array, "b t d"], index: Int[Array, "b"]) -> Float[Array, "b t d"]:
        """Dropout, with a mask for each video that its number keys."""
        rate = self.architecture.dropout
        if not rate:
            return x
        sample = partial(jax.random.bernoulli, p=1 - rate, shape=x.shape[1:])
        keep = draw(sample, self.make_rng("dropout"), index)
        return jnp.where(keep, x / (1 - rate), 0)


class _FeatureNetwork(FrameNetwork):
    @nn.compact
    def __call__(self, frames: UInt8[Array, "b t h w 3"]) -> Features:
        return self.run_backbone(frames, False)


def extract_features(
    architecture: Architecture,
    dtype: DTypeLike,
    variables: Tree,
    frames: UInt8[Array, "b t h w 3"],
) -> Features:
    """Pooled features of all stages, as at inference, of any network on this backbone."""
    return cast(Features, _FeatureNetwork(architecture, dtype).apply(variables, frames))


class TSNNetwork(FrameNetwork):
    """TSN: frames to logits."""

    @nn.compact
    def __call__(
        self,
        frames: UInt8[Array, "b t h w 3"],
        *,
        train: bool = False,
        index: Int[Array, "b"] | None = None,
    ) -> Float[Array, "b t n"]:
        """Logits of every frame; arguments as those of `SoFNet`."""
        index = jnp.arange(len(frames)) if index is None else index
        return self.classify(self.run_backbone(frames, train)["res5"], train, index)


def draw(sample: Callable[[Array], Array], key: Array, index: Int[Array, "b"]) -> Array:
    """A sample for each video, keyed by its number."""
    return jax.vmap(sample)(jax.vmap(jax.random.fold_in, (None, 0))(key, index))


@dataclasses.dataclass(frozen=True)
class TSN:
    """TSN as a system: it has nothing to decide, and learns in one phase.

    Others derive from it. `shifts` says whether their frames can be shifted.
    """

    architecture: Architecture
    module: FrameNetwork
    phases: tuple[Phase, ...]
    drop_offset: int
    architecture_type: ClassVar[type[Architecture]] = Architecture
    module_type: ClassVar[type[FrameNetwork]] = TSNNetwork
    naming = Naming()
    shifts = True
    name = "tsn"
    title = "TSN"
    via = 0
    learning = Learning()

    @classmethod
    def create(cls, fields: Mapping[str, Any], architecture: Architecture, **options: Any) -> "TSN":
        """From the fields of a configuration."""
        warmup, joint = fields["train.warmup_epochs"], fields["train.joint_epochs"]
        module, phases = cls.module_type(architecture, **options), cls.create_phases(warmup, joint)
        return cls(architecture, module, phases, drop_offset=warmup)

    @staticmethod
    def create_phases(warmup: int, joint: int) -> tuple[Phase, ...]:
        """From the epochs of the warm-up and of the joint training."""
        return (Phase("training", warmup + joint),)

    @classmethod
    def create_architecture(cls, fields: Mapping[str, Any], num_classes: int) -> Architecture:
        """From the fields of a configuration. Raises UserError."""
        m = {name: fields[f"model.{name}"] for name in ("backbone", "width", "shift", "dropout")}
        if m["shift"] and not cls.shifts:
            raise UserError(f"model.shift: {cls.title} has no temporal shift; leave it out")
        chosen = choose_backbone(m.pop("backbone"), width=m.pop("width"), num_classes=num_classes)
        return cls.architecture_type(**chosen, **m)

    def train(
        self,
        variables: Tree,
        batch: Mapping[str, Any],
        *,
        phase: int,
        temperature: Array,
        keys: Mapping[str, Array],
    ) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
        """The loss L_cls, the new running statistics, and what is logged."""
        logits, statistics = run_module(self.module, variables, batch, keys)
        video_logits = logits.mean(1)
        loss = compute_classification_loss(video_logits, spread_labels(batch["labels"])).mean()
        metrics = {"top1": compute_top1(video_logits, batch["labels"]), "loss/classification": loss}
        return loss, (statistics, metrics)

    def evaluate(self, variables: Tree, frames: UInt8[Array, "b t h w 3"]) -> Steps:
        """What is done with whole videos."""
        logits = cast(Array, self.module.apply(variables, frames))
        return list_steps(logits, jnp.zeros(logits.shape[:2], jnp.int32))

    def deploy(self, variables: Tree, **options: Any) -> "FoldedTSN":
        """The network for inference."""
        return deploy(self.architecture, variables, **options)


def run_module(
    module: nn.Module,
    variables: Tree,
    batch: Mapping[str, Any],
    keys: Mapping[str, Array],
    **options: Any,
) -> tuple[Any, Tree]:
    """What a module makes of a batch in training, and its new running statistics."""
    outputs, updates = module.apply(
        variables,
        batch["frames"],
        train=True,
        index=batch["index"],
        rngs=dict(keys),
        mutable=["batch_stats"],
        **options,
    )
    return outputs, updates["batch_stats"]


def list_steps(logits: Float[Array, "b t n"], action: Int[Array, "b t"]) -> Steps:
    """The steps of a system that looks at every frame, in order."""
    return Steps(logits, jnp.broadcast_to(jnp.arange(action.shape[1]), action.shape), action)


@flax.struct.dataclass
class Head:
    """The classifier."""

    kernel: Float[Array, "d n"]
    bias: Float[Array, "n"]

    @classmethod
    def create(cls, weights: Tree) -> "Head":
        """From the parameters of a Flax layer."""
        return cls(jnp.asarray(weights["kernel"]), jnp.asarray(weights["bias"]))

    def __call__(self, pooled: Float[Array, "b d"]) -> Float[Array, "b n"]:
        """Logits z_t from the averaged features of res5 (Eq. 5)."""
        with full_precision():
            return pooled @ self.kernel + self.bias


@flax.struct.dataclass
class State:
    """What TSN remembers of b videos.

    Attributes:
        past: what blocks that shift read of the last kept frame, by span.
        total: sum of the kept frames' logits.
        kept: their number.
        num_frames: of each video; -1 if not known.
    """

    next: Next
    past: Past
    total: Float[Any, "b n"]
    kept: Int[Any, "b"]
    num_frames: Int[Any, "b"]

    @property
    def answer(self) -> Float[Any, "b n"]:
        """Mean logits of the kept frames (Eq. 6)."""
        return average(self.total, self.kept)

    @property
    def last(self) -> Bool[Any, "b"]:
        """Whether no other frame follows the one in progress."""
        return self.next.time == self.num_frames - 1

    def close(self, action: int) -> Next:
        """Ask for the next frame after this action."""
        zero = self.kept * 0
        span = find_namespace(zero).where(self.last, zero + DONE, zero)
        return Next(span, self.next.time + 1, zero + action)

    def count(self, logits: Float[Any, "b n"], action: int) -> dict[str, Any]:
        """What changes when a frame is kept, which this action says."""
        return {
            "next": self.close(action),
            "total": self.total + logits,
            "kept": self.kept + 1,
        }

    def finish(self) -> Any:
        """Ask for nothing more."""
        return replace(self, next=replace(self.next, span=self.next.span * 0 + DONE))


@flax.struct.dataclass
class WholeSpan:
    """All layers and the classifier, or those that follow another span."""

    layers: AnyLayers
    head: Head
    name: str = flax.struct.field(pytree_node=False, default="frame")
    looks: bool = flax.struct.field(pytree_node=False, default=True)
    answers = True
    followers = ()

    def extract(self, state: State | None, x: Any) -> tuple[None, Any]:
        """Run the layers."""
        _, pooled, left = self.layers(x, None if state is None else state.past[-1])
        return None, (pooled, left)

    def score(self, state: State | None, evidence: tuple[Float[Array, "b d"], Any]) -> Any:
        """Run the classifier."""
        pooled, left = evidence
        return self.head(pooled), left

    def decide(self, state: State, scores: tuple[Float[Any, "b n"], Any]) -> State:
        """Count the logits, and ask for the next frame."""
        logits, left = scores
        return replace(state, past=(*state.past[:-1], left), **state.count(logits, 0))


@flax.struct.dataclass
class FoldedTSN:
    """TSN for inference, in one span."""

    spans: tuple[Any, ...]
    architecture: Architecture = flax.struct.field(pytree_node=False)

    @property
    def shares(self) -> bool:
        """Videos can share a frame unless it is shifted from the last kept one of each."""
        return not self.architecture.shift

    @property
    def dtype(self) -> DTypeLike:
        """Type of the layers."""
        # A gate on pixels, which has no layers, may come first.
        return next(span.layers.dtype for span in self.spans if hasattr(span, "layers"))

    def begin(self, num_frames: Int[Array, "b"], shape: Sequence[int]) -> State:
        """The state before the first frame: zeros."""
        batch = len(num_frames)
        return State(
            next=create_next(batch),
            past=self.create_past(batch, shape),
            total=jnp.zeros((batch, self.architecture.num_classes)),
            kept=jnp.zeros(batch, jnp.int32),
            num_frames=jnp.asarray(num_frames, jnp.int32),
        )

    def create_past(self, batch: int, shape: Sequence[int]) -> Past:
        """What shifting blocks read before the first frame: zeros, by span."""
        if self.shares:
            return ((),) * len(self.spans)
        return create_past([span.layers for span in self.spans], (batch, *shape))


def prepare(
    architecture: Architecture,
    variables: Tree,
    dtype: DTypeLike | None = None,
    winograd: bool | None = None,
) -> list[tuple[Stem | FoldedBlock, ...]]:
    """The layers of res1…res5 of a module whose backbone is called `backbone`, for this device.

    Args:
        architecture: of the network.
        variables: `params` and `batch_stats`.
        dtype: of weights and computation; by default float32 on a CPU, else bfloat16.
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
    on_cpu = jax.local_devices()[0].platform == "cpu"
    dtype = dtype or (jnp.float32 if on_cpu else jnp.bfloat16)
    if winograd is None:
        winograd = on_cpu and dtype == jnp.float32
    backbone = {name: tree["backbone"] for name, tree in variables.items()}
    return fold_stages(architecture.backbone, backbone, dtype=dtype, winograd=winograd)


def deploy(architecture: Architecture, variables: Tree, **options: Any) -> FoldedTSN:
    """Prepares a network for inference on the default device; `options` as for `prepare`."""
    stages = prepare(architecture, variables, **options)
    layers = Layers(tuple(layer for stage in stages for layer in stage))
    network = FoldedTSN(
        (WholeSpan(layers, Head.create(variables["params"]["head"])),), architecture
    )
    return jax.device_put(network, jax.local_devices()[0])
