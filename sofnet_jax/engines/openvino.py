"""OpenVINO."""

import threading
from collections.abc import Sequence

import numpy as np

from sofnet_jax.engines.base import Run
from sofnet_jax.host.absence import pretend_absence
from sofnet_jax.host.processor import sums_bytes

with pretend_absence("openvino.tools.ovc"):  # its import reports itself to OpenVINO's makers
    import openvino

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}  # int8 is in the model


class OpenVino:
    """OpenVINO on CPU cores."""

    name = "openvino"

    def __init__(self) -> None:
        self._core = openvino.Core()

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Without instructions for bfloat16, OpenVINO would compute in float32 and not say so."""
        can = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        dtypes = {"bfloat16": "BF16" in can, "int8": sums_bytes()}
        return ("float32", *(dtype for dtype, is_fast in dtypes.items() if is_fast))

    def compile(self, model: bytes, dtype: str) -> Run:
        """Prepare a model once for every size of its inputs: fixed sizes run faster."""
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[dtype]}
        lock = threading.Lock()
        requests: dict[tuple[tuple[int, ...], ...], openvino.InferRequest] = {}

        def prepare(shapes: tuple[tuple[int, ...], ...]) -> openvino.InferRequest:
            try:
                network = self._core.read_model(model)
                network.reshape(dict(enumerate(map(list, shapes))))
                return self._core.compile_model(network, "CPU", options).create_infer_request()
            except RuntimeError as error:  # which begins with a place in its own source
                raise RuntimeError(str(error).strip().splitlines()[-1]) from error

        def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            shapes = tuple(array.shape for array in arrays)
            inputs = [np.require(array, requirements=["C", "W"]) for array in arrays]
            with lock:  # a request runs once at a time
                if shapes not in requests:
                    requests[shapes] = prepare(shapes)
                request = requests[shapes]
                count = len(request.model_outputs)
                for i, array in enumerate(inputs):
                    request.set_input_tensor(i, openvino.Tensor(array, shared_memory=True))
                request.infer()
                # The next call overwrites the request's own memory. Copies are faster than outputs
                # in new memory, which no cache holds yet.
                return [request.get_output_tensor(i).data.copy() for i in range(count)]

        return run


ENGINE = OpenVino()
