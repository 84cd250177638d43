"""FrameExit (CVPR 2021) in plain PyTorch, written from the paper: the reference of parity tests.

Shapes: b videos, t frames, n classes, c channels, d features.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_sofnet import BLOCKS, create_conv, create_layer, cross_entropy


@dataclasses.dataclass
class Outputs:
    """What a forward pass returns, frames in the order of looking."""

    features: Tensor  # u, (b, t, d)
    step_logits: Tensor  # (b, t, n)
    gate_logits: Tensor | None  # (b, t-1), or None in the first phase


class Gate(nn.Module):
    def __init__(self, features: int, inner: int, outer: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, inner),
            nn.BatchNorm1d(inner),
            nn.ReLU(),
            nn.Linear(inner, outer),
            nn.BatchNorm1d(outer),
            nn.ReLU(),
        )
        self.exit = nn.Linear(2 * outer, 1)

    def forward(self, z: Tensor, before: Tensor) -> Tensor:
        """From z_t and z_{t-1} (b, d) to the logit of exit (b,)."""
        return self.exit(torch.cat([self.layers(z), self.layers(before)], 1)).squeeze(1)


class FrameExit(nn.Module):
    def __init__(
        self,
        *,
        num_classes: int,
        block: str,
        depths: Sequence[int],
        width: int,
        stem_kernel: int,
        order: Sequence[int],
        features: int,
        gate_features: tuple[int, int],
    ):
        super().__init__()
        self.order = list(order)
        self.conv1 = create_conv(3, width, stem_kernel, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for i, depth in enumerate(depths):
            layer = create_layer(BLOCKS[block], channels, width * 2**i, depth, min(i + 1, 2))
            self.add_module(f"layer{i + 1}", layer)
            channels = width * 2**i * BLOCKS[block].expansion
        self.mlp = nn.Sequential(nn.Linear(channels, features), nn.BatchNorm1d(features), nn.ReLU())
        self.classifiers = nn.ModuleList(nn.Linear(features, num_classes) for _ in order)
        self.gates = nn.ModuleList(Gate(features, *gate_features) for _ in order[1:])

    def forward(self, images: Tensor, *, gated: bool) -> Outputs:
        """Takes images (b, t, 3, h, w) in temporal order."""
        u = self.encode(images[:, self.order])
        z = [u[:, 0]]
        for t in range(1, u.shape[1]):
            z.append(torch.maximum(z[-1], u[:, t]))
        step_logits = [f(z_t) for f, z_t in zip(self.classifiers, z, strict=True)]
        gate_logits = None
        if gated:
            z = [z_t.detach() for z_t in z]
            logits = [gate(z[t + 1], z[t]) for t, gate in enumerate(self.gates)]
            gate_logits = torch.stack(logits, 1)
        return Outputs(u, torch.stack(step_logits, 1), gate_logits)

    def encode(self, images: Tensor) -> Tensor:
        """u of every frame, (b, t, d)."""
        x = F.relu(self.bn1(self.conv1(images.flatten(0, 1))))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.mlp(x.mean((2, 3))).unflatten(0, images.shape[:2])

    def set_phase(self, gated: bool) -> "FrameExit":
        """Training mode for what learns in this phase, and evaluation mode for the rest."""
        self.train(not gated)
        self.gates.train(gated)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("gates.") == gated)
        return self


def create_like(architecture: Any) -> FrameExit:
    """The network of anything that has its fields."""
    fields = ("num_classes", "block", "depths", "width", "stem_kernel", "features")
    given = {name: getattr(architecture, name) for name in (*fields, "gate_features")}
    given["order"] = architecture.order(architecture.num_frames).tolist()
    return FrameExit(**given)


def compute_losses(outputs: Outputs, labels: Tensor, beta: float) -> dict[str, Tensor]:
    """The loss of the phase and its terms, for multi-hot labels (b, n)."""
    target = labels / labels.sum(1, keepdim=True)
    losses = [cross_entropy(logits, target) for logits in outputs.step_logits.unbind(1)]
    classification = torch.stack([loss.mean() for loss in losses]).mean()
    if outputs.gate_logits is None:
        zero = torch.zeros(())
        return {
            "total": classification,
            "classification": classification,
            "gates": zero,
            "exits": zero,
        }
    terms, shares = [], []
    for t in range(2, len(losses) + 1):
        label = (losses[t - 1].detach() <= beta * torch.exp(torch.tensor(t / 2))).float()
        logits = outputs.gate_logits[:, t - 2]
        terms.append(F.binary_cross_entropy_with_logits(logits, label))
        shares.append(label.mean())
    gates = torch.stack(terms).mean()
    return {
        "total": gates,
        "classification": classification,
        "gates": gates,
        "exits": torch.stack(shares).mean(),
    }
