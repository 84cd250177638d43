"""SoF-Net in PyTorch, to measure against; only benchmarks and their tests import it."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from sofnet_jax.backbones.folded import Block, Convolution, Layers, Stem
from sofnet_jax.backbones.layers import PIXEL_MEAN, PIXEL_STD
from sofnet_jax.backbones.winograd import WinogradConvolution, restore_kernel
from sofnet_jax.systems.early_exit import Rule
from sofnet_jax.systems.sofnet.folded import FoldedSoFNet, Gate, GatedSpan
from sofnet_jax.systems.tsn import FoldedTSN

Make = Callable[[nn.Module, Any], Callable]


class _Stem(nn.Module):
    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, stem: Stem):
        super().__init__()
        self.convolution = _convolution(stem.convolution)
        self.pool = nn.MaxPool2d(3, 2, 1)
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (PIXEL_MEAN, PIXEL_STD))
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", mean / std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2).to(self.scale.dtype) * self.scale - self.shift
        return self.pool(torch.relu(self.convolution(x)))


class _Block(nn.Module):
    def __init__(self, block: Block):
        super().__init__()
        first, *rest = map(_convolution, block.convolutions)
        between = itertools.chain.from_iterable((nn.ReLU(), convolution) for convolution in rest)
        self.convolutions = nn.Sequential(first, *between)
        self.shortcut = nn.Identity() if block.shortcut is None else _convolution(block.shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convolutions(x) + self.shortcut(x))


class _Span(nn.Module):
    """Features after some stages, and their spatial average."""

    def __init__(self, span: Layers):
        super().__init__()
        layers = (_Stem(x) if isinstance(x, Stem) else _Block(x) for x in span.layers)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.layers(x)
        return x, x.float().mean((2, 3))


class _Gate(nn.Module):
    """W_x, the LSTM cell and W_q, folded into two products."""

    kernel: torch.Tensor
    bias: torch.Tensor
    w_q: torch.Tensor
    b_q: torch.Tensor

    def __init__(self, gate: Gate):
        super().__init__()
        self.temporal = len(gate.bias) > len(gate.w_q)
        for name, value in vars(gate).items():
            self.register_buffer(name, _tensor(value))

    def forward(
        self, pooled: torch.Tensor, h: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if not self.temporal:
            h = torch.tanh(torch.addmm(self.bias, pooled, self.kernel))
        else:
            z = torch.addmm(self.bias, torch.cat([pooled, h], 1), self.kernel)
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
        warnings.simplefilter("ignore", DeprecationWarning)  # but still fastest on a CPU
        traced = torch.jit.trace(module, example)
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def compiled(module: nn.Module, example: Any) -> Callable:
    """torch.compile."""
    torch._dynamo.config.recompile_limit = 64  # the modules share their code
    return torch.compile(module)


def graphed(module: nn.Module, example: Any) -> Callable:
    """A CUDA graph: one call launches all kernels, for inputs of one shape."""
    inputs = [x.clone() for x in (example if isinstance(example, tuple) else (example,))]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # one-time setup must not be captured
            module(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = module(*inputs)

    def replay(*values: torch.Tensor) -> Any:
        for place, value in zip(inputs, values, strict=True):
            place.copy_(value)
        graph.replay()
        return tuple(output.clone() for output in outputs)

    replay.module = module  # type: ignore[attr-defined]  # the graph reads its weights
    return replay


class TorchRecognizer:
    """`online.Recognizer` in PyTorch.

    `make` turns a module and an example of its input, frames like those to come, into the function
    to call.
    """

    def __init__(
        self,
        network: FoldedSoFNet | FoldedTSN,
        rule: Rule,
        make: Make,
        *,
        channels_last: bool,
        example: UInt8[np.ndarray, "b h w 3"],
        device: str = "cpu",
    ):
        if not network.shares:
            raise RuntimeError("temporal shift is not implemented in it")
        self._rule, self._device = rule, device
        self._parts: list[tuple[Callable, Callable | None]] = []  # spans with their gates
        last = network.spans[-1]
        assert not isinstance(last, GatedSpan)
        self._head = [_tensor(x).to(device) for x in (last.head.kernel, last.head.bias)]
        gates = network.gates if isinstance(network, FoldedSoFNet) else ()
        self._num_gates = len(gates)
        self._zeros = h = torch.zeros((1, len(gates[0].w_q) if gates else 0), device=device)
        x = torch.from_numpy(example).to(device)
        dtype = getattr(torch, jnp.dtype(network.dtype).name)
        with torch.inference_mode():
            for span in network.spans:
                if not span.layers.layers:
                    continue
                weights = span.gate if isinstance(span, GatedSpan) else None
                module: nn.Module = _Span(span.layers).eval().to(device, dtype)
                if channels_last:
                    # The stubs lack this argument.
                    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                run, gate = make(module, x), None
                x, pooled = module(x)
                if weights is not None:
                    made = _Gate(weights).eval().to(device)
                    gate = make(made, (pooled, h, h))
                self._parts.append((run, gate))

    @torch.inference_mode()
    def recognize(self, video: UInt8[np.ndarray, "t h w 3"]) -> tuple[list[int], np.ndarray]:
        """Run the frames one by one, each as far as the gates forward it.

        Returns:
            The gate that stopped each frame looked at, and the mean logits of the kept ones.
        """
        num_gates = self._num_gates
        h = c = [self._zeros] * num_gates
        stops: list[int] = []
        logits = np.zeros(len(self._head[1]), np.float32)
        for frame in video:
            x = torch.from_numpy(frame[None]).to(self._device)
            new_h, new_c = list(h), list(c)
            for k, (span, gate) in enumerate(self._parts):
                x, pooled = span(x)
                if gate is not None:
                    new_h[k], new_c[k], q = gate(pooled, h[k], c[k])
                    stay, forward = q[0].tolist()
                    if not forward > stay:
                        stops.append(k)
                        break
            else:
                stops.append(num_gates)
                logits = logits + self._score(pooled)[0]
                h, c = new_h, new_c
                mean = logits / np.float32(stops.count(num_gates))
                if self._rule.ends(mean, len(stops)):
                    break
        if num_gates not in stops:
            logits = self._classify(frame[None])[0]
            stops[-1] = num_gates
        return stops, logits / np.float32(stops.count(num_gates))

    @torch.inference_mode()
    def classify(self, frames: UInt8[np.ndarray, "t h w 3"]) -> np.ndarray:
        """TSN: the mean logits of all frames in one batch."""
        return self._classify(frames).mean(0)

    def _classify(self, frames: UInt8[np.ndarray, "t h w 3"]) -> np.ndarray:
        x = torch.from_numpy(frames).to(self._device)
        for span, _ in self._parts:
            x, pooled = span(x)
        return self._score(pooled)

    def _score(self, pooled: torch.Tensor) -> np.ndarray:
        return torch.addmm(self._head[1], pooled, self._head[0]).cpu().numpy()


def _convolution(weights: Convolution | WinogradConvolution) -> nn.Conv2d:
    if isinstance(weights, WinogradConvolution):
        plain, stride = restore_kernel(weights.kernel), 1
    else:
        plain, stride = np.asarray(weights.kernel, np.float32), weights.stride
    kernel = _tensor(plain).permute(3, 2, 0, 1).contiguous()
    out, inputs, size, _ = kernel.shape
    convolution = nn.Conv2d(inputs, out, size, stride, size // 2)
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    convolution.bias = nn.Parameter(_tensor(weights.bias), requires_grad=False)
    return convolution


def _tensor(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(x, np.float32))
