"""SoF-Net as a system: its phases, its losses, and what it does with whole videos."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from sofnet_jax.backbones.folded import Tree
from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.base import Learning, Moments, Phase, Steps
from sofnet_jax.systems.losses import compute_top1
from sofnet_jax.systems.sofnet.architecture import Architecture, create_architecture
from sofnet_jax.systems.sofnet.folded import FoldedSoFNet, deploy
from sofnet_jax.systems.sofnet.gates import PAPER
from sofnet_jax.systems.sofnet.losses import Objective, compute_lookup
from sofnet_jax.systems.sofnet.network import Outputs, SoFNet
from sofnet_jax.systems.sofnet.weights import NAMING
from sofnet_jax.systems.tsn import Features, extract_features, list_steps, run_module

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
    """SoF-Net: a warm-up in which every frame is kept, then gates and network together.

    Or, with `train.gate_steps`, which the paper does not have, the network alone, as TSN, then the
    gates alone, or with the classifier, on features that no longer change.
    """

    architecture: Architecture
    module: SoFNet
    phases: tuple[Phase, ...]
    objective: Objective
    drop_offset: int = 0
    learning: Learning = Learning(policy=("policy_", "inner_"))
    architecture_type = Architecture
    module_type = SoFNet
    objective_type = Objective
    semantics = PAPER
    naming = NAMING
    name = "sofnet"
    title = "SoF-Net"
    via = 0

    @classmethod
    def create(
        cls, fields: Mapping[str, Any], architecture: Architecture, **options: Any
    ) -> "SoFNetSystem":
        """From the fields of a configuration. Raises UserError for fields that do not fit."""
        if fields["train.gate_steps"] and architecture.shift == "online":
            raise UserError(
                "train.gate_steps: with the online shift, features depend on the gates and cannot "
                "be stored; set it to 0 and train.joint_epochs instead"
            )
        paper = architecture.prices(fields["data.size"]).paper
        warmup = fields["train.warmup_epochs"]
        return cls(
            architecture,
            SoFNet(architecture, semantics=cls.semantics, **options),
            create_phases(warmup, fields["train.joint_epochs"], fields["train.gate_steps"]),
            cls.objective_type(
                compute_lookup(paper, fields["loss.reference_gflops"]),
                alpha=fields["loss.alpha"],
                beta=fields["loss.beta"],
                guidance=fields["loss.guidance"],
                floor=fields["loss.floor"],
            ),
            drop_offset=warmup,
            learning=_choose_learning(
                cls.learning, fields["train.gate_steps"], fields["optimizer.classifier_rate"]
            ),
        )

    @staticmethod
    def create_architecture(fields: Mapping[str, Any], num_classes: int) -> Architecture:
        """From the fields of a configuration. Raises UserError."""
        own = {name: fields[f"model.{name}"] for name in _ARCHITECTURE}
        return create_architecture(**own | {"gates": tuple(own["gates"])}, num_classes=num_classes)

    def train(
        self,
        variables: Tree,
        batch: Mapping[str, Any],
        *,
        phase: int,
        temperature: Array,
        keys: Mapping[str, Array],
    ) -> tuple[Array, tuple[Tree, dict[str, Array]]]:
        """The loss of Eq. 8; L_cls in the warm-up. `noise` in the batch replaces the stream."""
        options = {"gated": phase > 0, "temperature": temperature, "noise": batch.get("noise")}
        options["frozen"] = self.phases[phase].frozen
        outputs, statistics = run_module(self.module, variables, batch, keys, **options)
        losses = self.objective(outputs, batch["labels"])
        metrics = self._describe(outputs, batch["labels"]) | {
            f"loss/{name}": value for name, value in vars(losses).items() if name != "total"
        }
        if phase:
            metrics["temperature"] = temperature
        return losses.total, (statistics, metrics)

    def _describe(self, outputs: Outputs, labels: Array) -> dict[str, Array]:
        """Accuracy of a training batch and, if gates ran, what they do.

        That is the shares of its frames by fate, each gate's mean probability of forward without
        noise, and the accuracy of its inner classifier with the mean of all frames.
        """
        metrics = {"top1": compute_top1(outputs.video_logits, labels)}
        if outputs.decision.gates.shape[-1]:
            metrics["usage"] = jax.lax.stop_gradient(outputs.kept.mean())
            stop = outputs.decision.stop
            names = self.architecture.gate_names
            metrics |= {f"stop/{name}": (stop == k).mean() for k, name in enumerate(names)}
            forward = jax.nn.softmax(outputs.decision.logits)[..., 1].mean((0, 1))
            inner = jax.vmap(compute_top1, (1, None))(outputs.inner_logits.mean(1), labels)
            metrics |= {f"forward/{name}": forward[k] for k, name in enumerate(names)}
            metrics |= {f"inner_top1/{name}": inner[k] for k, name in enumerate(names)}
        return metrics

    def evaluate(self, variables: Tree, frames: UInt8[Array, "b t h w 3"]) -> Steps:
        """The logits of every frame, and the gate that stopped it."""
        outputs = cast(Outputs, self.module.apply(variables, frames))
        return list_steps(outputs.frame_logits.astype(jnp.float32), outputs.decision.stop)

    def extract(self, variables: Tree, frames: UInt8[Array, "b t h w 3"]) -> Features:
        """Pooled features of all stages, from which gates and classifier can run."""
        return extract_features(self.architecture, self.module.dtype, variables, frames)

    def begin_gates(self, params: Tree, moments: Mapping[str, Moments]) -> Tree:
        """The parameters with gates that see every feature with mean 0 and standard deviation 1.

        Averaged features of a trained network vary little around a large mean; gates as the paper
        initialises them hardly tell frames apart, and learn slowly to.
        """
        policies = {f"policy_{name}": moments[name] for name in self.architecture.gate_names}
        return dict(params) | {
            name: dict(params[name]) | {"embed": standardise(params[name]["embed"], *both)}
            for name, both in policies.items()
        }

    def deploy(self, variables: Tree, **options: Any) -> FoldedSoFNet:
        """The network for inference."""
        return deploy(self.architecture, variables, semantics=self.module.semantics, **options)


def create_phases(warmup: int, joint: int, gate_steps: int) -> tuple[Phase, Phase]:
    """The phases, from the fields of `train`."""
    if gate_steps:
        return Phase("network", warmup + joint), Phase("gates", 0, steps=gate_steps, frozen=True)
    return Phase("warm-up", warmup), Phase("joint", joint)


def _choose_learning(learning: Learning, gate_steps: int, classifier_rate: float) -> Learning:
    """With gates that learn alone, or with the classifier, if that has a rate."""
    if not gate_steps:
        return learning
    refined = ("head",) if classifier_rate else ()
    return learning._replace(freezes=True, refined=refined, refined_rate=classifier_rate)


def standardise(
    layer: Mapping[str, Any], mean: Float[np.ndarray, "d"], deviation: Float[np.ndarray, "d"]
) -> dict[str, Any]:
    """A linear layer that does to x what `layer` does to (x − mean) / deviation."""
    kernel = layer["kernel"] / jnp.maximum(deviation, 1e-5)[:, None]
    return {"kernel": kernel, "bias": layer["bias"] - mean @ kernel}
