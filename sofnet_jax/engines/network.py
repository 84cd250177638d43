"""A network whose layers, gates and classifiers run in an engine. Its state stays in JAX."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal
from jaxtyping import Float

from sofnet_jax.backbones.folded import AnyLayers, Layers
from sofnet_jax.backbones.shift import Channels
from sofnet_jax.engines.base import Engine, Ranges, Run
from sofnet_jax.systems.early_exit import Settled, Watched, follow


@flax.struct.dataclass
class ChannelsFirst:
    """Features that layers in an engine left to those of the next span, which alone may read them.

    They have another layout than in JAX, so this is no array, which a system could compute with.
    """

    array: Float[Any, "*b c h w"]


class EngineLayers:
    """`Layers` in an engine, compiled when they first run."""

    def __init__(self, layers: Layers, engine: Engine, dtype: str, ranges: Ranges | None):
        """Take layers whose weights are float32, and for int8 the ranges of their activations."""
        self.layers, self._engine = layers.layers, engine
        self.dtype = jnp.dtype(dtype)
        self._traced, self._ranges = layers, ranges

    @functools.cached_property
    def _run(self) -> Run:
        from sofnet_jax.engines.layers import create_layers_model  # JAX alone does without onnx

        model = create_layers_model(self._traced)
        if self._ranges is not None:
            from sofnet_jax.engines.int8 import create_int8_model

            model = create_int8_model(model, self._ranges)
        return self._engine.compile(model, self.dtype.name)

    def __call__(self, x: Any, past: Channels | None = None) -> tuple[Any, Any, Channels]:
        """Features, their average, and the `past` of a later frame, as `Layers` finds them."""
        if isinstance(x, jax.core.Tracer):  # somebody asks for shapes
            return self._traced(x, past)
        x = x.array if isinstance(x, ChannelsFirst) else x
        features, pooled, *left = self._run([np.asarray(array) for array in (x, *(past or ()))])
        return ChannelsFirst(features), pooled, tuple(left)


@jax.tree_util.register_static
class EngineSpan:
    """A span in an engine: its layers, and in float32 its scores. NumPy makes its decision.

    Each model is compiled when it is first needed.

    Attributes:
        span: in JAX.
    """

    def __init__(self, span: Any, engine: Engine, dtype: str, ranges: Ranges | None = None):
        self.span = self._extracting = self._bare = span
        self._engine, self._dtype, self._named = engine, dtype, None
        self._compiled: dict[Any, Callable | None] = {}
        layers = getattr(span, "layers", None)
        if layers is not None and layers.layers:
            from sofnet_jax.engines.layers import NamedLayers

            self._bare = replace(span, layers=Layers(()))
            self._extracting = replace(span, layers=EngineLayers(layers, engine, dtype, ranges))
            self._named = NamedLayers(layers, "sofnet_layers")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "span" not in vars(self):  # while it is copied
            raise AttributeError(name)
        return getattr(self.span, name)

    @property
    def layers(self) -> AnyLayers:
        """In the engine."""
        return self._extracting.layers

    def extract(self, state: Any, x: Any) -> tuple[Any, Any]:
        """As the span."""
        return self._extracting.extract(state, x)

    def settle(self, state: Watched, evidence: Any) -> Settled:
        """As `early_exit.settle`."""
        return follow(self._bare, state, self.score(state.inner, evidence))

    def see(self, state: Watched, x: Any) -> tuple[Any, Settled]:
        """As `early_exit.see`."""
        carry, scores = self.extract_and_score(state.inner, x)
        return carry, follow(self._bare, state, scores)

    def score(self, state: Any, evidence: Any) -> Any:
        """As the span."""
        if run := self._find(_score, self._bare, (state, evidence)):
            return run((state, evidence))
        return jax.tree.map(np.asarray, _score_in_jax(self._bare, state, evidence))

    def extract_and_score(self, state: Any, x: Any) -> tuple[Any, Any]:
        """As the span. In float32 one model does both."""
        if self._named is not None and self._dtype == "float32":
            span = replace(self.span, layers=self._named)
            if run := self._find(_extract_and_score, span, (state, x)):
                return run((state, x))
        carry, evidence = self.extract(state, x)
        return carry, self.score(state, evidence)

    def _find(self, function: Callable, span: Any, arguments: Any) -> Callable | None:
        """A function of a span and such arguments in the engine; None if it has no ONNX."""
        leaves, tree = jax.tree.flatten(arguments)
        key = function.__name__, tree, *(np.shape(leaf) for leaf in leaves)
        if key not in self._compiled:
            inner = {self._named.name: self._named.add} if self._named else {}
            function = functools.partial(function, span)
            try:
                self._compiled[key] = _compile(function, inner, self._engine, arguments)
            except NotImplementedError:
                self._compiled[key] = None
        return self._compiled[key]


def _score(span: Any, state: Any, evidence: Any) -> Any:
    return span.score(state, evidence)


_score_in_jax = jax.jit(_score)


def _extract_and_score(span: Any, state: Any, x: Any) -> tuple[Any, Any]:
    carry, evidence = span.extract(state, x)
    return carry, span.score(state, evidence)


def _compile(
    function: Callable, inner: dict[str, Any], engine: Engine, arguments: Any
) -> Callable[[Any], Any]:
    """A function of arguments like these in an engine. Raises NotImplementedError."""
    from sofnet_jax.engines.graph import create_model
    from sofnet_jax.engines.jaxpr import create_graph

    leaves, tree = jax.tree.flatten(arguments, is_leaf=_is_features)
    forms = []

    def call_flat(*leaves: Any) -> list[Any]:
        outputs, form = jax.tree.flatten(function(*jax.tree.unflatten(tree, leaves)))
        forms.append(form)
        return outputs

    program = jax.make_jaxpr(call_flat)(*map(_find_shape, leaves))
    variables = program.jaxpr.invars, program.jaxpr.outvars
    atoms = [atom for equation in program.jaxpr.eqns for atom in equation.invars]
    read = {atom for atom in atoms if not isinstance(atom, Literal)}
    used = [i for i, each in enumerate(variables[0]) if each in read]
    passed = {each: i for i, each in enumerate(variables[0])}
    first = {each: i for i, each in reversed(list(enumerate(variables[1])))}
    made = [i for each, i in first.items() if each not in passed]
    given = [i for i, each in enumerate(leaves) if _is_features(each)]
    graph, features = create_graph(program, used, made, inner, given)
    run = engine.compile(create_model(graph), "float32") if made else None

    def call(arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments, is_leaf=_is_features)
        arrays = [leaf.array if _is_features(leaf) else leaf for leaf in leaves]
        found = dict(
            zip(made, run([np.asarray(arrays[i]) for i in used]) if run else (), strict=True)
        )
        found |= {i: ChannelsFirst(found[i]) for i in features}
        results = [
            leaves[passed[each]] if each in passed else found[first[each]] for each in variables[1]
        ]
        return jax.tree.unflatten(forms[0], results)

    return call


def _is_features(part: Any) -> bool:
    return isinstance(part, ChannelsFirst)


def _find_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    """The shape of an argument in JAX, where features have their channels last."""
    if _is_features(leaf):
        b, c, h, w = np.shape(leaf.array)
        return jax.ShapeDtypeStruct((b, h, w, c), jnp.float32)
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)


def move_network(
    network: Any, engine: Engine, dtype: str, ranges: Sequence[Ranges | None] | None = None
) -> Any:
    """The network with its spans in an engine; for int8, `ranges` has those of every span."""
    each = ranges or [None] * len(network.spans)
    spans = (EngineSpan(s, engine, dtype, r) for s, r in zip(network.spans, each, strict=True))
    return replace(network, spans=tuple(spans))


def restore_network(network: Any) -> Any:
    """The network with its spans in JAX again."""
    spans: Sequence[Any] = network.spans
    restored = (span.span if isinstance(span, EngineSpan) else span for span in spans)
    return replace(network, spans=tuple(restored))


def has_engine(network: Any) -> bool:
    """Return True if an engine runs the network's spans."""
    return any(isinstance(span, EngineSpan) for span in network.spans)
