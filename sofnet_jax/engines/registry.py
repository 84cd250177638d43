"""The inference engines, by name."""

import importlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sofnet_jax.engines.base import Engine, Ranges
from sofnet_jax.engines.network import move_network
from sofnet_jax.host.errors import UserError, first_line
from sofnet_jax.host.memory import keep_freed_memory
from sofnet_jax.systems.base import Network

ENGINES = ("onnxruntime", "openvino")  # modules beside this one
NAMES = ("jax", *ENGINES, "auto")


def find_engine(name: str) -> Engine:
    """The engine of a name. Raises UserError if it is not installed or cannot start."""
    try:
        importlib.import_module("onnx")
        return importlib.import_module(f"sofnet_jax.engines.{name}").ENGINE
    except ImportError as error:
        reason = first_line(error)
        raise UserError(
            f"the engine {name} is not installed ({reason}): pip install '.[{name}]'"
        ) from error
    except Exception as error:  # each has exceptions of its own
        raise UserError(f"the engine {name} does not start: {first_line(error)}") from error


def find_quantisation() -> Any:
    """The module `engines.int8`. Raises UserError if what it needs is not installed."""
    try:
        return importlib.import_module("sofnet_jax.engines.int8")
    except ImportError as error:
        reason = first_line(error)
        raise UserError(
            f"int8 needs ONNX Runtime's tools ({reason}): pip install '.[onnxruntime]'"
        ) from error


def use_engine(
    network: Network, name: str, dtype: str, ranges: Sequence[Ranges | None] | None = None
) -> Network:
    """The network, which is float32 in JAX, with its spans in the engine of this name.

    For int8, `ranges` has those of every span's activations.

    Raises UserError if the engine is not installed, or cannot compute in `dtype` on this machine.
    """
    if jax.default_backend() != "cpu":
        raise UserError(f"the engine {name} runs on the CPU: set JAX_PLATFORMS=cpu")
    engine = find_engine(name)
    if dtype not in engine.dtypes:
        usable = " and ".join(engine.dtypes)
        raise UserError(f"the engine {name} computes in {usable} on this machine, not in {dtype}")
    if dtype == "int8":
        assert ranges is not None
        find_quantisation()
    if not all(np.isfinite(weights).all() for weights in jax.tree.leaves(network)):
        # OpenVINO's ReLU turns NaN into 0, so that nobody would notice.
        raise UserError("the network's weights are not all numbers")
    keep_freed_memory()  # an engine's outputs are new memory, frame by frame
    return move_network(network, engine, dtype, ranges)
