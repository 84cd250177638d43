"""A network whose layers run in an engine. Its decisions and its state stay in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Shaped

from sofnet_jax.backbones.folded import Layers
from sofnet_jax.backbones.shift import Channels
from sofnet_jax.engines.base import Engine


@jax.tree_util.register_static
class EngineLayers:
    """`Layers` in an engine. Spans that have them cannot be compiled by JAX.

    The features that one span leaves to the next have channels first.
    """

    def __init__(self, layers: Layers, engine: Engine, dtype: str):
        """Compile the layers, whose weights are float32. Needs the package onnx."""
        from sofnet_jax.engines.layers import create_layers_model  # JAX alone does without onnx

        self.layers = layers.layers
        self.dtype: DTypeLike = jnp.dtype(dtype)
        self.traced = layers  # in JAX
        self._run = engine.compile(create_layers_model(layers), dtype)

    def __call__(
        self, x: Shaped[Any, "b _ _ _"], past: Channels | None = None
    ) -> tuple[Float[Any, "b _ _ _"], Float[Any, "b c"], Channels]:
        """Features, their average, and the `past` of a later frame, as `Layers` finds them."""
        if isinstance(x, jax.core.Tracer):  # somebody asks for shapes
            return self.traced(x, past)
        features, pooled, *left = self._run([np.asarray(array) for array in (x, *(past or ()))])
        return features, jnp.asarray(pooled), tuple(map(jnp.asarray, left))


def move_layers(network: Any, engine: Engine, dtype: str) -> Any:
    """The network with its layers in an engine."""

    def move(part: Any) -> Any:
        holds = isinstance(part, Layers) and part.layers
        return EngineLayers(part, engine, dtype) if holds else part

    return jax.tree.map(move, network, is_leaf=lambda part: isinstance(part, Layers))


def restore_layers(network: Any) -> Any:
    """The network with its layers in JAX again."""

    def restore(part: Any) -> Any:
        return part.traced if isinstance(part, EngineLayers) else part

    return jax.tree.map(restore, network, is_leaf=lambda part: isinstance(part, EngineLayers))


def has_engine(network: Any) -> bool:
    """Whether the layers of a network run in an engine."""
    return any(isinstance(getattr(span, "layers", None), EngineLayers) for span in network.spans)
