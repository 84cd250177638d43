"""SoF-Net as a system: its phases, its losses, and what it does with whole videos."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from sofnet_jax.backbones.folded import Tree
from sofnet_jax.systems.base import Learning, Phase, Steps
from sofnet_jax.systems.losses import compute_top1
from sofnet_jax.systems.sofnet.architecture import Architecture, create_architecture
from sofnet_jax.systems.sofnet.folded import FoldedSoFNet, deploy
from sofnet_jax.systems.sofnet.gates import PAPER
from sofnet_jax.systems.sofnet.losses import Objective, compute_lookup
from sofnet_jax.systems.sofnet.network import Outputs, SoFNet
from sofnet_jax.systems.sofnet.weights import NAMING
from sofnet_jax.systems.tsn import list_steps, run_module

_ARCHITECTURE = (
    "backbone",
    "width",
    "gates",
    "hidden",
    "temporal",
    "shift",
    "forward_bias",
    "dropout",
)


@dataclasses.dataclass(frozen=True)
class SoFNetSystem:
    """SoF-Net: a warm-up in which every frame is kept, then gates and network together."""

    architecture: Architecture
    module: SoFNet
    phases: tuple[Phase, ...]
    objective: Objective
    architecture_type = Architecture
    module_type = SoFNet
    objective_type = Objective
    semantics = PAPER
    naming = NAMING
    name = "sofnet"
    title = "SoF-Net"
    via = 0
    learning = Learning(policy=("policy_", "inner_"))

    @classmethod
    def create(
        cls, fields: Mapping[str, Any], architecture: Architecture, **options: Any
    ) -> "SoFNetSystem":
        """From the fields of a configuration. Raises UserError for fields that do not fit."""
        paper = architecture.prices(fields["data.size"]).paper
        return cls(
            architecture,
            SoFNet(architecture, semantics=cls.semantics, **options),
            (
                Phase("warm-up", fields["train.warmup_epochs"]),
                Phase("joint", fields["train.joint_epochs"]),
            ),
            cls.objective_type(
                compute_lookup(paper, fields["loss.reference_gflops"]),
                alpha=fields["loss.alpha"],
                beta=fields["loss.beta"],
                guidance=fields["loss.guidance"],
            ),
        )

    @staticmethod
    def create_architecture(fields: Mapping[str, Any], num_classes: int) -> Architecture:
        """From the fields of a configuration. Raises UserError."""
        own = {name: fields[f"model.{name}"] for name in _ARCHITECTURE}
        return create_architecture(**own | {"gates": tuple(own["gates"])}, num_classes=num_classes)

    @property
    def drop_offset(self) -> int:
        """The warm-up."""
        return self.phases[0].epochs

    def train(
        self,
        variables: Tree,
        batch: Mapping[str, Array],
        *,
        phase: int,
        temperature: Array,
        keys: Mapping[str, Array],
    ) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
        """The loss of Eq. 8; L_cls in the warm-up. `noise` in the batch replaces the stream."""
        options = {"gated": phase > 0, "temperature": temperature, "noise": batch.get("noise")}
        outputs, statistics = run_module(self.module, variables, batch, keys, **options)
        losses = self.objective(outputs, batch["labels"])
        metrics = self._describe(outputs, batch["labels"]) | {
            f"loss/{name}": value for name, value in vars(losses).items() if name != "total"
        }
        if phase:
            metrics["temperature"] = temperature
        return losses.total, (statistics, metrics)

    def _describe(self, outputs: Outputs, labels: Array) -> dict[str, Array]:
        """Accuracy of a training batch and, if gates ran, the shares of its frames by fate."""
        metrics = {"top1": compute_top1(outputs.video_logits, labels)}
        if outputs.decision.gates.shape[-1]:
            metrics["usage"] = jax.lax.stop_gradient(outputs.kept.mean())
            stop = outputs.decision.stop
            names = self.architecture.gate_names
            metrics |= {f"stop/{name}": (stop == k).mean() for k, name in enumerate(names)}
        return metrics

    def evaluate(self, variables: Tree, frames: UInt8[Array, "b t h w 3"]) -> Steps:
        """The logits of every frame, and the gate that stopped it."""
        outputs = cast(Outputs, self.module.apply(variables, frames))
        return list_steps(outputs.frame_logits.astype(jnp.float32), outputs.decision.stop)

    def deploy(self, variables: Tree, **options: Any) -> FoldedSoFNet:
        """The network for inference."""
        return deploy(self.architecture, variables, semantics=self.module.semantics, **options)
