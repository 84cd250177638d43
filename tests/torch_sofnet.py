"""SoF-Net (WACV 2023) in plain PyTorch, written from the paper: the reference of the parity tests.

`released=True` follows the authors' released code where it departs from the paper.
Shapes: b videos, t frames, k gates, n classes, c channels, d hidden units.
"""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclasses.dataclass
class Outputs:
    """What a forward pass returns; the last four are None in the warm-up."""

    features: dict[str, Tensor]  # res1, res2, …: (b*t, c, h, w)
    frame_logits: Tensor  # (b, t, n)
    video_logits: Tensor  # (b, n)
    gate_logits: Tensor | None = None  # (b, t, k, 2), [stop, forward]
    samples: Tensor | None = None  # (b, t, k, 2), one-hot, before any masking
    gates: Tensor | None = None  # (b, t, k), the effective gates r
    inner_logits: Tensor | None = None  # (b, t, k, n)


def create_conv(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)


def create_downsample(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """An empty Sequential, which is the identity, where the shape does not change."""
    if stride == 1 and in_channels == channels:
        return nn.Sequential()
    return nn.Sequential(create_conv(in_channels, channels, 1, stride), nn.BatchNorm2d(channels))


class Basic(nn.Module):
    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int):
        super().__init__()
        self.conv1 = create_conv(in_channels, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = create_conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = create_downsample(in_channels, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return F.relu(self.downsample(x) + residual)


class Bottleneck(nn.Module):
    """Strided at the 3x3 convolution (ResNet v1.5)."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int):
        super().__init__()
        channels = planes * self.expansion
        self.conv1 = create_conv(in_channels, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = create_conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = create_conv(planes, channels, 1)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = create_downsample(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)))
        residual = F.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return F.relu(self.downsample(x) + residual)


def create_layer(
    block: type[Basic | Bottleneck], in_channels: int, planes: int, depth: int, stride: int
) -> nn.Sequential:
    first = block(in_channels, planes, stride)
    rest = (block(planes * block.expansion, planes, 1) for _ in range(depth - 1))
    return nn.Sequential(first, *rest)


BLOCKS = {"basic": Basic, "bottleneck": Bottleneck}


class Policy(nn.Module):
    """One gate and its inner classifier (Eqs. 2, 3 and 13)."""

    def __init__(self, channels: int, hidden: int, num_classes: int):
        super().__init__()
        self.embed = nn.Linear(channels, channels)
        self.lstm = nn.LSTMCell(channels, hidden)
        self.gate = nn.Linear(hidden, 2)
        self.inner = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From x (b, c) and h, c (2, b, d): the new state, q and the inner logits."""
        h, c = self.lstm(self.embed(x), tuple(state))
        return torch.stack([h, c]), self.gate(h), self.inner(h)


def sample_gates(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Straight-through Gumbel-softmax (Eq. 4), exactly 0 or 1; a tie means stop."""
    logits = logits + noise
    forward = logits[..., 1] > logits[..., 0]
    hard = torch.stack([~forward, forward], -1).to(logits.dtype)
    soft = (logits / temperature).softmax(-1)
    return hard + (soft - soft.detach())


def hold_gates(gates: Tensor) -> Tensor:
    """Released: the gate that stops a frame also answers, gradient included, for all later ones."""
    effective = [gates[:, 0]]
    for gate in gates.unbind(1)[1:]:
        alive = effective[-1].detach() == 1
        effective.append(torch.where(alive, gate, effective[-1]))
    return torch.stack(effective, 1)


def keep_last_frame(gates: Tensor) -> Tensor:
    """Lets the last frame through all gates, as a constant, in videos that kept no frame."""
    none_kept = (gates[..., -1] == 0).all(1)
    forced = torch.zeros_like(gates, dtype=torch.bool)
    forced[:, -1] = none_kept[:, None]
    return gates.masked_fill(forced, 1.0)


def average_kept(frame_logits: Tensor, kept: Tensor) -> Tensor:
    """The mean logits of the kept frames (Eq. 6); zeros if there are none (released only)."""
    count = kept.sum(1).clamp(min=1)  # torch passes the gradient on at exactly 1
    return (kept[..., None] * frame_logits).sum(1) / count[:, None]


class SoFNet(nn.Module):
    """A ResNet whose stages are followed by stop-or-forward gates (section 3.2)."""

    def __init__(
        self,
        *,
        num_classes: int,
        block: str = "bottleneck",
        depths: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        stem_kernel: int = 7,
        gates: tuple[int, ...] = (1, 2, 3, 4, 5),
        hidden: int = 512,
        released: bool = False,
    ):
        super().__init__()
        self.gated_stages = [f"res{stage}" for stage in gates]
        self.hidden = hidden
        self.released = released
        self.conv1 = create_conv(3, width, stem_kernel, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        channels = [width]  # of res1, res2, …
        for i, depth in enumerate(depths):
            layer = create_layer(BLOCKS[block], channels[-1], width * 2**i, depth, min(i + 1, 2))
            self.add_module(f"layer{i + 1}", layer)
            channels.append(width * 2**i * BLOCKS[block].expansion)
        self.layer_count = len(depths)
        self.fc = nn.Linear(channels[-1], num_classes)
        policies = {str(n - 1): Policy(channels[n - 1], hidden, num_classes) for n in gates}
        self.policy = nn.ModuleDict(policies)

    def forward(
        self, images: Tensor, noise: Tensor | None = None, temperature: float = 1.0
    ) -> Outputs:
        """Takes images (b, t, 3, h, w) and Gumbel noise (b, t, k, 2); no noise: the argmax."""
        features, frame_logits = self._run_backbone(images)
        if noise is None:
            noise = images.new_zeros(*images.shape[:2], len(self.policy), 2)
        pooled = [pool(features[stage], images) for stage in self.gated_stages]
        gate_logits, samples, gates, inner_logits = self._run_gates(pooled, noise, temperature)
        if not self.released:
            gates = keep_last_frame(gates)
        video_logits = average_kept(frame_logits, gates[..., -1])
        return Outputs(
            features, frame_logits, video_logits, gate_logits, samples, gates, inner_logits
        )

    def warm_up_forward(self, images: Tensor) -> Outputs:
        """A plain TSN: all frames count and no gate is evaluated."""
        features, frame_logits = self._run_backbone(images)
        return Outputs(features, frame_logits, frame_logits.mean(1))

    def _run_backbone(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The features of all stages and z of all frames (Eq. 5), in one batch of b*t images."""
        x = F.relu(self.bn1(self.conv1(images.flatten(0, 1))))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        features = {"res1": x}
        for i in range(1, self.layer_count + 1):
            x = self.get_submodule(f"layer{i}")(x)
            features[f"res{i + 1}"] = x
        return features, self.fc(pool(x, images))

    def _run_gates(
        self, pooled: list[Tensor], noise: Tensor, temperature: float
    ) -> tuple[Tensor, ...]:
        """Gate logits, samples, effective gates and inner logits, one frame after the other.

        A frame leaves h and c in all LSTMs or in none (Eq. 2): only if it passed all gates,
        or, released, all but the last.
        """
        batch, frames, gate_count, _ = noise.shape
        needed = gate_count - 1 if self.released else gate_count
        state = pooled[0].new_zeros(gate_count, 2, batch, self.hidden)
        history = []
        for t in range(frames):
            policies = zip(self.policy.values(), pooled, state, strict=True)
            steps = [policy(x[:, t], old) for policy, x, old in policies]
            states, gate_logits, inner_logits = zip(*steps, strict=True)
            gate_logits = torch.stack(gate_logits, 1)  # (b, k, 2)
            inner_logits = torch.stack(inner_logits, 1)  # (b, k, n)
            samples = sample_gates(gate_logits, noise[:, t], temperature)
            forward = samples[..., 1]
            gates = hold_gates(forward) if self.released else forward.cumprod(1)
            passed = (gates[:, :needed] == 1).all(1)
            state = torch.where(passed[:, None], torch.stack(states), state)
            history.append((gate_logits, samples, gates, inner_logits))
        return tuple(torch.stack(steps, 1) for steps in zip(*history, strict=True))


def create_like(architecture: Any, *, released: bool = False) -> SoFNet:
    """The network of anything that has its fields."""
    fields = ("num_classes", "block", "depths", "width", "stem_kernel", "gates", "hidden")
    return SoFNet(**{name: getattr(architecture, name) for name in fields}, released=released)


def pool(features: Tensor, images: Tensor) -> Tensor:
    """Eq. 1: from (b*t, c, h, w) to (b, t, c)."""
    return features.mean((2, 3)).unflatten(0, images.shape[:2])


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Eq. 9 over the last axis, with a distribution as the target."""
    return -(target * logits.log_softmax(-1)).sum(-1)


def compute_pseudo_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 14: whether each classifier's true-class score is below that of the next one."""
    scores = (logits.detach().softmax(-1) * labels[:, None, None]).sum(-1)
    return scores[..., 1:] > scores[..., :-1]


def compute_policy_losses(
    outputs: Outputs, labels: Tensor, lookup: list[float], inner_losses: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The efficiency (Eq. 11), inner (Eq. 13) and self-supervision losses (Eq. 15)."""
    gates = outputs.gates
    efficiency = (gates * gates.new_tensor(lookup)).mean()
    inner = ((gates * inner_losses).sum((1, 2)) / gates.sum((1, 2))).mean()
    forward = (outputs.gate_logits[..., 1] - outputs.gate_logits[..., 0])[..., :-1]
    pseudo_labels = compute_pseudo_labels(outputs.inner_logits, labels).to(forward.dtype)
    errors = F.binary_cross_entropy_with_logits(forward, pseudo_labels, reduction="sum")
    self_supervision = errors / max(forward.numel(), 1)  # empty if there is a single gate
    return efficiency, inner, self_supervision


def compute_released_policy_losses(
    outputs: Outputs, labels: Tensor, lookup: list[float], inner_losses: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The three as released: shifted weights, no mask, hard samples as logits."""
    gates = F.pad(outputs.gates, (1, 0), value=1.0)  # (b, t, 1+k)
    efficiency = (gates.mean((0, 1)) * gates.new_tensor([*lookup, 1e-5])).sum()
    classifiers = torch.cat([outputs.inner_logits, outputs.frame_logits[:, :, None]], 2)
    pseudo_labels = compute_pseudo_labels(classifiers, labels).long()
    self_supervision = F.cross_entropy(outputs.samples.flatten(0, 2), pseudo_labels.flatten())
    return efficiency, inner_losses.mean(), self_supervision


def compute_losses(
    outputs: Outputs,
    labels: Tensor,
    *,
    lookup: list[float],
    alpha: float,
    beta: float,
    released: bool = False,
) -> dict[str, Tensor]:
    """The total (Eqs. 8 and 12) and its terms, for multi-hot labels (b, n); Eq. 9 in warm-up."""
    labels = labels.to(outputs.video_logits.dtype)
    target = labels / labels.sum(-1, keepdim=True)
    classification = cross_entropy(outputs.video_logits, target).mean()
    if outputs.gates is None:
        total = classification
        efficiency = inner = self_supervision = torch.zeros_like(classification)
    else:
        compute = compute_released_policy_losses if released else compute_policy_losses
        inner_losses = cross_entropy(outputs.inner_logits, target[:, None, None])  # (b, t, k)
        efficiency, inner, self_supervision = compute(outputs, labels, lookup, inner_losses)
        guidance = beta * inner + (1 - beta) * self_supervision
        total = alpha * classification + (1 - alpha) * efficiency + guidance
    return {
        "total": total,
        "classification": classification,
        "efficiency": efficiency,
        "inner": inner,
        "self": self_supervision,
    }


RELEASED_GROUPS = (  # name, module, start of its parameters' names, factors of rate and decay
    ("conv_weight", nn.Conv2d, "weight", 1, 1),
    ("lstm_weight", nn.LSTMCell, "weight", 1, 1),
    ("lstm_bias", nn.LSTMCell, "bias", 2, 0),
    ("linear_weight", nn.Linear, "weight", 5, 1),
    ("linear_bias", nn.Linear, "bias", 10, 0),
    ("batch_norm", nn.BatchNorm2d, "", 1, 0),
)


def select_parameters(model: nn.Module, kind: type[nn.Module], prefix: str) -> list[nn.Parameter]:
    modules = (module for module in model.modules() if isinstance(module, kind))
    named = (pair for module in modules for pair in module.named_parameters(recurse=False))
    return [parameter for name, parameter in named if name.startswith(prefix)]


def parameter_groups(
    model: nn.Module, *, learning_rate: float, weight_decay: float, released: bool = False
) -> list[dict]:
    """For torch.optim.SGD: one group or, released, six with their own rates and decays."""
    groups = RELEASED_GROUPS if released else (("all", nn.Module, "", 1, 1),)
    return [
        {
            "name": name,
            "params": select_parameters(model, kind, prefix),
            "lr": rate * learning_rate,
            "weight_decay": decay * weight_decay,
        }
        for name, kind, prefix, rate, decay in groups
    ]
