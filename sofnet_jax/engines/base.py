"""The protocol of inference engines other than JAX."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

# Arrays in the order of a model's inputs to those of its outputs, which belong to the caller.
Run = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
# The least and the largest value of each activation of a model, by its name there.
Ranges = Mapping[str, tuple[float, float]]


@runtime_checkable
class Engine(Protocol):
    """A library that runs ONNX models on this machine; one file each, which alone knows it.

    Attributes:
        name: in options and in `pip install '.[NAME]'`.
        dtypes: the precisions in which it can run layers here, fastest last.
    """

    @property
    def name(self) -> str: ...
    @property
    def dtypes(self) -> tuple[str, ...]: ...

    def compile(self, model: bytes, dtype: str) -> Run:
        """Prepare a model; inputs and outputs stay float32 whatever `dtype` rounds inside.

        A model for int8 is quantised before (`engines.int8`).
        """
