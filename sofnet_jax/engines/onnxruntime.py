"""ONNX Runtime."""

from collections.abc import Sequence

import numpy as np
import onnxruntime

from sofnet_jax.engines.base import Run
from sofnet_jax.host.processor import sums_bytes

_ERRORS_ONLY = 3  # it warns of constants that its own optimisation left unused


class OnnxRuntime:
    """ONNX Runtime on CPU cores."""

    name = "onnxruntime"

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Its kernels for CPUs do not compute in bfloat16."""
        return ("float32", "int8") if sums_bytes() else ("float32",)

    def compile(self, model: bytes, dtype: str) -> Run:
        """Prepare a model for inputs of any size."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        # Waiting threads of one session would take the cores from the next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]

        def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            return session.run(None, dict(zip(names, arrays, strict=True)))

        return run


ENGINE = OnnxRuntime()
