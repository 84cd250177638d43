"""The same network in PyTorch, to measure against: only benchmarks and their tests import it."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from sofnet_jax.inference.consensus import Consensus, Result, Rule
from sofnet_jax.inference.network import Block, Convolution, Gate, Network, Span, Stem
from sofnet_jax.models.sofnet import PIXEL_MEAN, PIXEL_STD

Make = Callable[[nn.Module, Any], Callable]


class _Stem(nn.Module):
    def __init__(self, stem: Stem):
        super().__init__()
        self.convolution = _convolution(stem.convolution, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", 1 / (255 * torch.tensor(PIXEL_STD)).view(3, 1, 1))
        self.register_buffer(
            "shift", (torch.tensor(PIXEL_MEAN) / torch.tensor(PIXEL_STD)).view(3, 1, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2).float() * self.scale - self.shift
        return self.pool(torch.relu(self.convolution(x)))


class _Block(nn.Module):
    def __init__(self, block: Block):
        super().__init__()
        strides = (1, block.stride, 1) if len(block.convolutions) == 3 else (block.stride, 1)
        pairs = zip(block.convolutions, strides, strict=True)
        self.convolutions = nn.ModuleList(_convolution(c, s) for c, s in pairs)
        self.shortcut = (
            nn.Identity() if block.shortcut is None else _convolution(block.shortcut, block.stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i, convolution in enumerate(self.convolutions):
            y = convolution(torch.relu(y) if i else y)
        return torch.relu(y + self.shortcut(x))


class _Span(nn.Module):
    """Features after some stages, and their average."""

    def __init__(self, span: Span):
        super().__init__()
        parts: list[nn.Module] = []
        for stage in span.stages:
            parts += [_Stem(stage)] if isinstance(stage, Stem) else map(_Block, stage.blocks)
        self.parts = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.parts(x)
        return x, x.mean((2, 3))


class _Gate(nn.Module):
    """W_x, the LSTM cell and W_q, in one product less than they are written with."""

    kernel: torch.Tensor
    bias: torch.Tensor
    w_hh: torch.Tensor
    w_q: torch.Tensor
    b_q: torch.Tensor

    def __init__(self, gate: Gate):
        super().__init__()
        weights = {"kernel": gate.kernel, "bias": gate.bias} | vars(gate.recurrence)
        for name, value in weights.items():
            self.register_buffer(name, _tensor(value))

    def forward(
        self, pooled: torch.Tensor, h: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        z = torch.addmm(self.bias, pooled, self.kernel) + h @ self.w_hh
        i, f, g, o = z.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, c, h @ self.w_q + self.b_q


def as_it_is(module: nn.Module, example: Any) -> Callable:
    """Eager PyTorch."""
    return module


def frozen(module: nn.Module, example: Any) -> Callable:
    """TorchScript with its weights frozen and laid out for oneDNN, convolutions fused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # but still its fastest on a CPU
        traced = torch.jit.trace(module, example)
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def compiled(module: nn.Module, example: Any) -> Callable:
    """torch.compile."""
    torch._dynamo.config.recompile_limit = 64  # the modules share their code
    return torch.compile(module)


class TorchRecognizer:
    """`online.Recognizer` in PyTorch, for a network with a gate after every stage or none.

    Args:
        network: of `deploy` with `winograd=False`, on any device.
        make: of a module and an example of its input what is called.
        channels_last: PyTorch's layout.
        size: side of the frames.
    """

    def __init__(self, network: Network, rule: Rule, make: Make, *, channels_last: bool, size: int):
        self._num_classes = network.architecture.num_classes
        self._hidden = network.architecture.hidden
        self._rule = rule
        self._spans: list[Callable] = []
        self._gates: list[Callable] = []
        self._head = [_tensor(network.head.kernel), _tensor(network.head.bias)]
        x = torch.zeros((1, size, size, 3), dtype=torch.uint8)
        h = torch.zeros((1, self._hidden))
        with torch.inference_mode():
            for span in network.spans:
                if not span.stages:
                    continue
                module: nn.Module = _Span(span).eval()
                if channels_last:
                    # Its stubs do not know of this argument.
                    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                self._spans.append(make(module, x))
                x, pooled = module(x)
                if len(self._gates) < network.num_gates:
                    gate = _Gate(network.gates[len(self._gates)]).eval()
                    self._gates.append(make(gate, (pooled, h, h)))

    @torch.inference_mode()
    def recognize(self, video: UInt8[np.ndarray, "t h w 3"]) -> Result:
        """The loop over the frames, each as far as the gates let it through."""
        h = [torch.zeros((1, self._hidden))] * len(self._gates)
        c = list(h)
        consensus = Consensus(len(self._gates), self._num_classes, self._rule)
        for frame in video:
            x = torch.from_numpy(frame)[None]
            new_h, new_c = list(h), list(c)
            for k, span in enumerate(self._spans):
                x, pooled = span(x)
                if self._gates:
                    new_h[k], new_c[k], logits = self._gates[k](pooled, h[k], c[k])
                    stay, forward = logits[0].tolist()
                    if not forward > stay:
                        consensus.stop(k)
                        break
            else:
                h, c = new_h, new_c
                consensus.keep(torch.addmm(self._head[1], pooled, self._head[0])[0].numpy())
            if consensus.ended:
                break
        return consensus.conclude()

    @torch.inference_mode()
    def classify(self, frames: UInt8[np.ndarray, "t h w 3"]) -> np.ndarray:
        """TSN: the mean logits of frames that go through everything at once."""
        x = torch.from_numpy(frames)
        for span in self._spans:
            x, pooled = span(x)
        return torch.addmm(self._head[1], pooled, self._head[0]).mean(0).numpy()


def _convolution(weights: Any, stride: int) -> nn.Conv2d:
    assert isinstance(weights, Convolution), "deployed with Winograd's kernels"
    kernel = _tensor(weights.kernel).permute(3, 2, 0, 1).contiguous()
    out, inputs, size, _ = kernel.shape
    convolution = nn.Conv2d(inputs, out, size, stride, size // 2)
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    convolution.bias = nn.Parameter(_tensor(weights.bias), requires_grad=False)
    return convolution


def _tensor(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x, np.float32))
