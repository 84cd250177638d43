"""Layers in int8, by ONNX Runtime's quantisation, which this file alone knows.

Every engine reads the models: between QuantizeLinear and DequantizeLinear, weights are int8 with a
scale per channel, and activations uint8, since most of them follow a ReLU. ONNX Runtime takes more
than twice as long with int8 activations. The stem stays float32: in int8 it saves little time, and
more decisions change (docs/onnx.md).
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization import QuantType

from sofnet_jax.engines.base import Ranges

_KINDS = ["Conv", "Add", "Relu"]  # the average stays float32


class _Examples(quantization.CalibrationDataReader):
    """Inputs by name."""

    def __init__(self, names: Sequence[str], examples: Iterable[Sequence[np.ndarray]]):
        self._inputs = (dict(zip(names, each, strict=True)) for each in examples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


def find_ranges(model: bytes, examples: Iterable[Sequence[np.ndarray]]) -> Ranges:
    """The ranges of the activations of a float32 model, over at least one example of its inputs."""
    names = [each.name for each in onnx.load_from_string(model).graph.input]
    with tempfile.TemporaryDirectory() as folder:
        source, augmented = Path(folder, "model.onnx"), Path(folder, "augmented.onnx")
        source.write_bytes(model)
        calibrator = quantization.create_calibrator(source, _KINDS, str(augmented))
        calibrator.collect_data(_Examples(names, examples))
        found = calibrator.compute_data()
    return {
        name: (float(np.min(low)), float(np.max(high)))
        for name, (low, high) in ((name, found[name].range_value) for name in found)
    }


def create_int8_model(model: bytes, ranges: Ranges) -> bytes:
    """A float32 model in int8; its inputs and outputs stay float32.

    Raises:
        ValueError: the ranges are those of another model.
    """
    network = onnx.load_from_string(model)
    for i, node in enumerate(network.graph.node):
        node.name = f"n{i}"
    kinds = [node.op_type for node in network.graph.node]
    stem = range(kinds.index("MaxPool") if "MaxPool" in kinds else 0)
    data = {name: tuple(map(np.float32, each)) for name, each in ranges.items()}
    quantizer = quantization.QDQQuantizer(
        network,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=quantization.TensorsData(quantization.CalibrationMethod.MinMax, data),
        nodes_to_quantize=[],
        nodes_to_exclude=[f"n{i}" for i in stem],
        op_types_to_quantize=_KINDS,
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model.SerializeToString()
