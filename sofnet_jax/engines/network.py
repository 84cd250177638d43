"""A network whose layers, gates and classifiers run in an engine. Its state stays in JAX."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Float, Shaped

from sofnet_jax.backbones.folded import AnyLayers, Layers
from sofnet_jax.backbones.shift import Channels
from sofnet_jax.engines.base import Engine, Run


class EngineLayers:
    """`Layers` in an engine. The features that one span leaves to the next have channels first."""

    def __init__(self, layers: Layers, engine: Engine, dtype: str):
        """Take layers whose weights are float32."""
        self.layers, self._engine = layers.layers, engine
        self.dtype = jnp.dtype(dtype)
        self._traced = layers

    @functools.cached_property
    def _run(self) -> Run:
        from sofnet_jax.engines.layers import create_layers_model  # JAX alone does without onnx

        return self._engine.compile(create_layers_model(self._traced), self.dtype.name)

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

    Each model is compiled when it is first needed.

    Attributes:
        span: in JAX.
    """

    def __init__(self, span: Any, engine: Engine, dtype: str):
        self.span, self._engine, self._dtype = span, engine, dtype
        layers = getattr(span, "layers", None)
        self._layers: Any = layers if layers is not None and layers.layers else None
        self._compiled: dict[Any, Callable] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.span, name)

    @property
    def layers(self) -> AnyLayers:
        """In the engine."""
        return self._extracting.layers

    @functools.cached_property
    def _extracting(self) -> Any:
        """The span with its layers in the engine."""
        if self._layers is None:
            return self.span
        return replace(self.span, layers=EngineLayers(self._layers, self._engine, self._dtype))

    @functools.cached_property
    def _named(self) -> Any:
        from sofnet_jax.engines.layers import NamedLayers

        return NamedLayers(self._layers, "layers")

    def extract(self, state: Any, x: Any) -> tuple[Any, Any]:
        """As the span."""
        return self._extracting.extract(state, x)

    def score(self, state: Any, evidence: Any) -> Any:
        """As the span."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((state, evidence))):
            return self.span.score(state, evidence)
        return self._run(self.span.score, {}, state, evidence)

    def see(self, state: Any, x: Any) -> tuple[Any, Any]:
        """What a follower starts with, and the scores; of one model if layers are float32, too."""
        if self._layers is None or self._dtype != "float32":
            carry, evidence = self.extract(state, x)
            return carry, self.score(state, evidence)
        return self._run(self._see, {self._named.name: self._named.add}, state, x)

    def _see(self, state: Any, x: Any) -> tuple[Any, Any]:
        carry, evidence = replace(self.span, layers=self._named).extract(state, x)
        return carry, self.span.score(state, evidence)

    def decide(self, state: Any, scores: Any) -> Any:
        """As the span."""
        return self.span.decide(state, scores)

    def _run(self, function: Callable, inner: dict[str, Any], *arguments: Any) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        key = function.__name__, tree, *(np.shape(leaf) for leaf in leaves)
        if key not in self._compiled:
            self._compiled[key] = _compile(function, inner, self._engine, leaves, tree)
        return self._compiled[key](leaves)


def _compile(
    function: Callable, inner: dict[str, Any], engine: Engine, leaves: Sequence[Any], tree: Any
) -> Callable:
    """A function of the leaves of arguments, in an engine; in JAX if there is no ONNX for it."""
    from sofnet_jax.engines.graph import create_model
    from sofnet_jax.engines.jaxpr import create_graph

    def call(*leaves: Any) -> Any:
        return function(*jax.tree.unflatten(tree, leaves))

    program, outputs = jax.make_jaxpr(call, return_shape=True)(*map(_find_shape, leaves))
    form = jax.tree.structure(outputs)
    atoms = [atom for equation in program.jaxpr.eqns for atom in equation.invars]
    read = {atom for atom in atoms if not isinstance(atom, Literal)}
    used = [i for i, each in enumerate(program.jaxpr.invars) if each in read]
    passed = {each: i for i, each in enumerate(program.jaxpr.invars)}
    made = [i for i, each in enumerate(program.jaxpr.outvars) if each not in passed]
    if not made:
        return lambda leaves: call(*leaves)
    try:
        run = engine.compile(create_model(create_graph(program, used, made, inner)), "float32")
    except NotImplementedError:
        compiled = jax.jit(call)
        return lambda leaves: compiled(*leaves)

    def run_leaves(leaves: Sequence[Any]) -> Any:
        found = iter(run([np.asarray(leaves[i]) for i in used]))
        outputs = program.jaxpr.outvars
        return jax.tree.unflatten(
            form, [leaves[passed[each]] if each in passed else next(found) for each in outputs]
        )

    return run_leaves


def _find_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape of an argument in JAX, where features have channels last, other than here."""
    shape, dtype = np.shape(leaf), leaf.dtype
    if isinstance(leaf, np.ndarray) and len(shape) == 4 and dtype == np.float32:
        shape = shape[0], *shape[2:], shape[1]
    return jax.ShapeDtypeStruct(shape, dtype)


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
