"""FrameExit as a system: its phases, its losses, and what it does with whole videos."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from sofnet_jax.backbones.folded import Tree
from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.base import UNDECIDED, Learning, Moments, Phase, Steps
from sofnet_jax.systems.frameexit.architecture import (
    EXIT,
    FIRST,
    LAST,
    NEXT,
    Architecture,
    create_architecture,
)
from sofnet_jax.systems.frameexit.folded import FoldedFrameExit, deploy
from sofnet_jax.systems.frameexit.losses import compute_losses
from sofnet_jax.systems.frameexit.network import FrameExit, Outputs
from sofnet_jax.systems.frameexit.weights import NAMING
from sofnet_jax.systems.losses import compute_top1
from sofnet_jax.systems.tsn import extract_features, run_module

_ARCHITECTURE = ("online", "features", "gate_features")


@dataclasses.dataclass(frozen=True)
class FrameExitSystem:
    """FrameExit: first the network learns to answer at every position, then gates learn to exit.

    The gates' labels follow from losses, which are small on videos that were trained on; so they
    learn from videos that the first phase did not see. Both the parts and the order of phases are
    ours: the authors' training is not published.

    Attributes:
        beta: β of the tolerances ε_t, the cost of going on.
    """

    architecture: Architecture
    module: FrameExit
    phases: tuple[Phase, ...]
    drop_offset: int
    beta: float
    architecture_type = Architecture
    module_type = FrameExit
    naming = NAMING
    name = "frameexit"
    via = 0
    learning = Learning(policy=("gates",), freezes=True)

    @classmethod
    def create(
        cls, fields: Mapping[str, Any], architecture: Architecture, **options: Any
    ) -> "FrameExitSystem":
        """From the fields of a configuration. Raises UserError for fields that do not fit."""
        if fields["model.shift"]:
            raise UserError("model.shift: FrameExit looks at frames out of order; leave it out")
        warmup, gate_steps = fields["train.warmup_epochs"], fields["train.gate_steps"]
        epochs = 0 if gate_steps else fields["frameexit.gate_epochs"]
        return cls(
            architecture,
            FrameExit(architecture, **options),
            (
                Phase("network", warmup + fields["train.joint_epochs"], "most"),
                Phase("gates", epochs, "held out", gate_steps, frozen=gate_steps > 0),
            ),
            drop_offset=warmup,
            beta=fields["frameexit.beta"],
        )

    @staticmethod
    def create_architecture(fields: Mapping[str, Any], num_classes: int) -> Architecture:
        """From the fields of a configuration. Raises UserError."""
        own = {name: fields[f"frameexit.{name}"] for name in _ARCHITECTURE}
        return create_architecture(
            fields["model.backbone"],
            num_classes=num_classes,
            width=fields["model.width"],
            num_frames=fields["data.num_frames"],
            dropout=fields["model.dropout"],
            **own | {"gate_features": tuple(own["gate_features"])},
        )

    @property
    def title(self) -> str:
        """With the variant."""
        return "FrameExit, online" if self.architecture.online else "FrameExit"

    def train(
        self,
        variables: Tree,
        batch: Mapping[str, Any],
        *,
        phase: int,
        temperature: Array,
        keys: Mapping[str, Array],
    ) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
        """The mean loss of all positions; then that of the gates."""
        gated = phase > 0
        outputs, statistics = run_module(self.module, variables, batch, keys, gated=gated)
        losses = compute_losses(outputs, batch["labels"], gated=gated, beta=self.beta)
        metrics = {"top1": compute_top1(outputs.video_logits, batch["labels"])}
        metrics["loss/classification"] = losses.classification
        if gated:
            metrics |= {"loss/gates": losses.gates, "exit_labels": losses.exits}
            used = (outputs.exit + 1).mean() / self.architecture.num_frames
            metrics["usage"] = jax.lax.stop_gradient(used)
        return losses.total, (statistics, metrics)

    def evaluate(self, variables: Tree, frames: UInt8[Array, "b t h w 3"]) -> Steps:
        """The answer at every position, and what follows it."""
        outputs = cast(Outputs, self.module.apply(variables, frames))
        count, end = self.architecture.num_frames, outputs.exit[:, None]
        position = jnp.arange(count)
        time = jnp.broadcast_to(self.architecture.order(count), (len(frames), count))
        action = jnp.where(position == end, EXIT, NEXT)
        action = jnp.where(position == 0, FIRST, action)
        action = jnp.where(position == count - 1, LAST, action)
        action = jnp.where(position > end, UNDECIDED, action)
        return Steps(outputs.step_logits, time, action)

    def extract(
        self, variables: Tree, frames: UInt8[Array, "b t h w 3"]
    ) -> dict[str, Float[Array, "b t d"]]:
        """Pooled features of the last stage, all that MLP, classifiers and gates read."""
        features = extract_features(self.architecture, self.module.dtype, variables, frames)
        return {"res5": features["res5"]}

    def begin_gates(self, params: Tree, moments: Mapping[str, Moments]) -> Tree:
        """The parameters as they are: BatchNorm standardises what the gates see."""
        return params

    def deploy(self, variables: Tree, **options: Any) -> FoldedFrameExit:
        """The network for inference."""
        return deploy(self.architecture, variables, **options)
