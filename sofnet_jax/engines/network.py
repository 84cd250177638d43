"""A network whose layers, gates and classifiers run in an engine. Its state stays in JAX."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Shaped

from sofnet_jax.backbones.folded import Layers
from sofnet_jax.backbones.shift import Channels
from sofnet_jax.engines.base import Engine
from sofnet_jax.systems.base import Span


class EngineLayers:
    """`Layers` in an engine. The features that one span leaves to the next have channels first."""

    def __init__(self, layers: Layers, engine: Engine, dtype: str):
        """Compile the layers, whose weights are float32. Needs the package onnx."""
        from sofnet_jax.engines.layers import create_layers_model  # JAX alone does without onnx

        self.layers = layers.layers
        self.dtype: DTypeLike = jnp.dtype(dtype)
        self._traced = layers
        self._run = engine.compile(create_layers_model(layers), dtype)

    def __call__(
        self, x: Shaped[Any, "b _ _ _"], past: Channels | None = None
    ) -> tuple[Float[Any, "b _ _ _"], Float[Any, "b c"], Channels]:
        """Features, their average, and the `past` of a later frame, as `Layers` finds them."""
        if isinstance(x, jax.core.Tracer):  # somebody asks for shapes
            return self._traced(x, past)
        features, pooled, *left = self._run([np.asarray(array) for array in (x, *(past or ()))])
        return features, pooled, tuple(map(jnp.asarray, left))


@jax.tree_util.register_static
class EngineSpan:
    """A span in an engine: its layers, and in float32 its scores. JAX compiles its decision only.

    Attributes:
        span: in JAX.
    """

    def __init__(self, span: Any, engine: Engine, dtype: str):
        """Compile the layers; the scores are compiled when they are first asked for."""
        self.span, self._extracting, self._engine = span, span, engine
        layers = getattr(span, "layers", None)
        if layers is not None and layers.layers:
            self._extracting = replace(span, layers=EngineLayers(layers, engine, dtype))
        self._scorers: dict[Any, Callable] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extracting, name)

    def extract(self, state: Any, x: Any) -> tuple[Any, Any]:
        """As the span."""
        return self._extracting.extract(state, x)

    def score(self, state: Any, evidence: Any) -> Any:
        """As the span."""
        leaves, tree = jax.tree.flatten((state, evidence))
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.span.score(state, evidence)
        key = tree, *(np.shape(leaf) for leaf in leaves)
        if key not in self._scorers:
            self._scorers[key] = _compile_score(self.span, self._engine, leaves, tree)
        return self._scorers[key](leaves)

    def decide(self, state: Any, scores: Any) -> Any:
        """As the span."""
        return self.span.decide(state, scores)


def _compile_score(span: Span, engine: Engine, leaves: Sequence[Any], tree: Any) -> Callable:
    """The scores from the leaves of state and evidence; in JAX if there is no ONNX for them."""
    from sofnet_jax.engines.graph import create_model
    from sofnet_jax.engines.jaxpr import create_graph

    def score(*leaves: Any) -> Any:
        return span.score(*jax.tree.unflatten(tree, leaves))

    program, shapes = jax.make_jaxpr(score, return_shape=True)(*leaves)
    form = jax.tree.structure(shapes)
    read = {
        atom for equation in program.jaxpr.eqns for atom in equation.invars if _is_variable(atom)
    }
    used = [i for i, each in enumerate(program.jaxpr.invars) if each in read]
    passed = {each: i for i, each in enumerate(program.jaxpr.invars)}
    made = [i for i, each in enumerate(program.jaxpr.outvars) if each not in passed]
    if not made:
        return lambda leaves: score(*leaves)
    try:
        run = engine.compile(create_model(create_graph(program, used, made)), "float32")
    except NotImplementedError:
        compiled = jax.jit(score)
        return lambda leaves: compiled(*leaves)

    def run_score(leaves: Sequence[Any]) -> Any:
        found = iter(run([np.asarray(leaves[i]) for i in used]))
        outputs = program.jaxpr.outvars
        return jax.tree.unflatten(
            form, [leaves[passed[each]] if each in passed else next(found) for each in outputs]
        )

    return run_score


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, jax.extend.core.Literal)


def move_network(network: Any, engine: Engine, dtype: str) -> Any:
    """The network with its spans in an engine."""
    return replace(network, spans=tuple(EngineSpan(s, engine, dtype) for s in network.spans))


def restore_network(network: Any) -> Any:
    """The network with its spans in JAX again."""
    spans = (span.span if isinstance(span, EngineSpan) else span for span in network.spans)
    return replace(network, spans=tuple(spans))


def has_engine(network: Any) -> bool:
    """Whether the spans of a network run in an engine."""
    return any(isinstance(span, EngineSpan) for span in network.spans)
