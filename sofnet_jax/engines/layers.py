"""A backbone's layers as ONNX nodes. They keep channels first, as engines other than JAX want."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx

from sofnet_jax.backbones.folded import AnyLayers, Block, Convolution, Stem
from sofnet_jax.backbones.layers import PIXEL_MEAN, PIXEL_STD
from sofnet_jax.backbones.shift import SHARE, Channels
from sofnet_jax.backbones.winograd import WinogradConvolution, restore_kernel
from sofnet_jax.engines.graph import Graph, create_model, describe

_CHANNELS_FIRST, _CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


def add_layers(
    graph: Graph, layers: AnyLayers, x: str, past: Sequence[str] = ()
) -> tuple[str, str, list[str]]:
    """Add the nodes of `Layers.__call__`; return the names of its results.

    Args:
        graph: to add to.
        layers: of the network.
        x: uint8 pixels (b, h, w, 3), or the features (b, c, h, w) of the layers before.
        past: what the last kept frame left, (b, h, w, p).
    """
    left: list[str] = []
    for layer in layers.layers:
        if isinstance(layer, Stem):
            x = _add_stem(graph, layer, x)
            continue
        shifted = x
        if layer.shifts:
            shifted, own = _shift(graph, x, _count_inputs(layer), past[len(left)])
            left.append(own)
        x = _add_block(graph, layer, x, shifted)
    pooled = graph.add("ReduceMean", x, graph.constant([2, 3], np.int64), keepdims=0)
    return x, pooled, left


def create_layers_model(layers: AnyLayers) -> bytes:
    """A model of some layers: `x`, `past0`, … to `features`, `pooled`, `left0`, ….

    The number and the size of images may vary.
    """
    graph, first = Graph(), layers.layers[0]
    shifting = [layer for layer in layers.layers if isinstance(layer, Block) and layer.shifts]
    past = [f"past{i}" for i in range(len(shifting))]
    features, pooled, left = add_layers(graph, layers, "x", past)
    outputs = {"features": features, "pooled": pooled}
    outputs |= {f"left{i}": own for i, own in enumerate(left)}
    for name, value in outputs.items():
        graph.rename(value, name)
    if isinstance(first, Stem):
        inputs = [describe("x", np.uint8, ("b", "h", "w", 3))]
    else:
        inputs = [describe("x", np.float32, ("b", _count_inputs(first), "h", "w"))]
    inputs += [describe(name, np.float32, ("b", None, None, None)) for name in past]
    results = [describe(n, np.float32, (None,) * (2 if n == "pooled" else 4)) for n in outputs]
    return create_model(graph.finish("layers", inputs, results))


def _add_stem(graph: Graph, stem: Stem, x: str) -> str:
    """Normalisation, convolution, ReLU and max-pool of uint8 pixels."""
    deviation = np.array(PIXEL_STD)
    scale = graph.constant(1 / (255 * deviation), np.float32)
    shift = graph.constant(np.array(PIXEL_MEAN) / deviation, np.float32)
    x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
    x = graph.add("Sub", graph.add("Mul", x, scale), shift)
    x = graph.add("Transpose", x, perm=_CHANNELS_FIRST)
    x = graph.add("Relu", _add_convolution(graph, stem.convolution, x))
    return graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)


def _add_block(graph: Graph, block: Block, x: str, shifted: str) -> str:
    """A residual block, whose convolutions read `shifted`."""
    y = shifted
    for i, convolution in enumerate(block.convolutions):
        y = _add_convolution(graph, convolution, graph.add("Relu", y) if i else y)
    if block.shortcut is not None:
        x = _add_convolution(graph, block.shortcut, x)
    return graph.add("Relu", graph.add("Add", y, x))


def _add_convolution(graph: Graph, layer: Convolution | WinogradConvolution, x: str) -> str:
    """A convolution with its bias."""
    if isinstance(layer, WinogradConvolution):
        kernel, stride = restore_kernel(layer.kernel), 1
    else:
        kernel, stride = np.asarray(layer.kernel, np.float32), layer.stride
    weights = graph.constant(kernel.transpose(3, 2, 0, 1), np.float32)
    bias = graph.constant(layer.bias, np.float32)
    size = len(kernel)
    options = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [size // 2] * 4}
    return graph.add("Conv", x, weights, bias, **options)


def _shift(graph: Graph, x: str, channels: int, past: str) -> tuple[str, str]:
    """`shift_frame`: what the first convolution reads, and what a later frame will."""
    part = channels // SHARE
    own, rest = graph.add_all(
        "Split", [x, graph.constant([part, channels - part], np.int64)], 2, axis=1
    )
    before = graph.add("Transpose", past, perm=_CHANNELS_FIRST)
    shifted = graph.add("Concat", before, rest, axis=1)
    return shifted, graph.add("Transpose", own, perm=_CHANNELS_LAST)


def _count_inputs(block: Block) -> int:
    """Channels that a block reads."""
    return block.convolutions[0].kernel.shape[-2]


@jax.tree_util.register_static
class NamedLayers:
    """`Layers` that a traced program calls by a name, under which they have ONNX nodes."""

    def __init__(self, layers: AnyLayers, name: str):
        self.layers, self.dtype = layers.layers, layers.dtype
        self.name, self._traced = name, layers

    def __call__(self, x: Any, past: Channels | None = None) -> tuple[Any, Any, Channels]:
        def call(x: Any, past: Channels | None) -> tuple[Any, Any, Channels]:
            return self._traced(x, past)

        call.__name__ = self.name
        return jax.jit(call)(x, past)

    def add(self, graph: Graph, inputs: Sequence[str]) -> list[str]:
        """Add their nodes."""
        features, pooled, left = add_layers(graph, self._traced, inputs[0], inputs[1:])
        return [features, pooled, *left]
