"""Traced JAX programs as ONNX nodes: what decisions, states and control flow are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend import core
from onnx import helper

from sofnet_jax.engines.graph import Graph, describe

# Adds the nodes of a nested function: its graph, its inputs, to its outputs.
Inner = Callable[[Graph, Sequence[str]], Sequence[str]]


@dataclass(frozen=True)
class Scope:
    """Where equations are translated: a graph, and what the program around them defines.

    Attributes:
        graph: to add nodes to.
        inner: functions under `jax.jit` that have nodes of their own, by name.
        sizes: values of the dimensions that are not known yet, by name.
        features: what those functions leave to each other with channels first, other than in JAX,
            so that nothing else may read it.
    """

    graph: Graph
    inner: Mapping[str, Inner] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=dict)
    features: set[str] = field(default_factory=set)

    def within(self) -> "Scope":
        """The same in a subgraph."""
        return Scope(Graph(self.graph), self.inner, self.sizes, self.features)

    def shape(self, sizes: Sequence[Any]) -> str:
        """A shape as a value."""
        if all(isinstance(size, int) for size in sizes):
            return self.graph.constant(sizes, np.int64)
        parts = [
            self.graph.constant([size], np.int64)
            if isinstance(size, int)
            else self.graph.add("Reshape", self.sizes[str(size)], self.graph.constant([1]))
            for size in sizes
        ]
        return self.graph.add("Concat", *parts, axis=0)


def create_graph(
    program: core.ClosedJaxpr,
    used: Sequence[int],
    made: Sequence[int],
    inner: Mapping[str, Inner],
    features: Sequence[int],
) -> tuple[onnx.GraphProto, set[int]]:
    """A graph of a traced function, from some of its inputs to some of its outputs.

    The inputs of the numbers `features` have channels first; the numbers of such outputs are
    returned.

    Raises:
        NotImplementedError: an operation that no rule is written for.
    """
    graph = Graph()
    names = [f"in{i}" for i in range(len(program.in_avals))]
    scope = Scope(graph, inner, features={names[i] for i in features})
    found = add_program(scope, program, names)
    outputs = {f"out{i}": program.out_avals[i] for i in made}
    for i, name in zip(made, outputs, strict=True):
        graph.rename(found[i], name)
    inputs = {names[i]: program.in_avals[i] for i in used}
    described = [
        [describe(name, aval.dtype, [None] * aval.ndim) for name, aval in each.items()]
        for each in (inputs, outputs)
    ]
    left = {i for i, name in enumerate(found) if name in scope.features}
    return graph.finish("program", *described), left


def add_program(scope: Scope, program: core.ClosedJaxpr, inputs: Sequence[str]) -> list[str]:
    """Add the nodes of a traced function.

    Raises:
        NotImplementedError: an operation that no rule is written for.
    """
    constants = [scope.graph.constant(np.asarray(value)) for value in program.consts]
    return _add_equations(scope, program.jaxpr, [*constants, *inputs])


def _add_equations(scope: Scope, jaxpr: core.Jaxpr, inputs: Sequence[str]) -> list[str]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))

    def read(atom: Any) -> str:
        if isinstance(atom, core.Literal):
            value: Any = atom
            return scope.graph.constant(np.asarray(value.val, value.aval.dtype))
        return values[atom]

    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name not in RULES:
            raise NotImplementedError(f"no ONNX for the JAX operation {name}")
        inputs = [read(atom) for atom in equation.invars]
        if name not in _NESTING and scope.features.intersection(inputs):
            raise NotImplementedError(f"no ONNX for {name} of features, which only layers may read")
        outputs = RULES[name](scope, equation, inputs)
        outputs = [outputs] if isinstance(outputs, str) else outputs
        values |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


Rule = Callable[[Scope, Any, Sequence[str]], str | Sequence[str]]


_NUMBERS = (np.float32, np.int32, np.int64)  # other integers wrap around, or do not


def _plain(kind: str, *dtypes: Any) -> Rule:
    """An elementwise operation that has the same meaning in ONNX for these types."""

    def add(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
        dtype = equation.invars[0].aval.dtype
        if dtypes and dtype not in dtypes:
            raise NotImplementedError(f"no ONNX for {kind} of {dtype}")
        return scope.graph.add(kind, *inputs)

    return add


def _nothing(scope: Scope, equation: Any, inputs: Sequence[str]) -> Sequence[str]:
    return inputs


def _not_equal(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    return scope.graph.add("Not", scope.graph.add("Equal", *inputs))


def _convert(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    old, new = equation.invars[0].aval.dtype, np.dtype(equation.params["new_dtype"])
    if np.issubdtype(old, np.floating) and np.issubdtype(new, np.integer):
        raise NotImplementedError(f"no ONNX for {old} as {new}: engines differ out of its range")
    return _cast(scope, inputs[0], new)


def _cast(scope: Scope, x: str, dtype: Any) -> str:
    return scope.graph.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _invert_root(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    return scope.graph.add("Reciprocal", scope.graph.add("Sqrt", inputs[0]))


def _clamp(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    low, x, high = inputs
    return scope.graph.add("Min", scope.graph.add("Max", x, low), high)


def _select(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    which, *cases = inputs
    if len(cases) != 2 or equation.invars[0].aval.dtype != bool:
        raise NotImplementedError("no ONNX for a selection among more than two arrays")
    return scope.graph.add("Where", which, cases[1], cases[0])


def _broadcast(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    shape, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    before = equation.invars[0].aval.shape
    aligned: list[Any] = [1] * len(shape)
    for place, size in zip(places, before, strict=True):
        aligned[place] = size
    x = _reshape_to(scope, inputs[0], aligned) if shape else inputs[0]
    return scope.graph.add("Expand", x, scope.shape(shape))


def _reshape(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    """Also for `squeeze` and `expand_dims`."""
    return _reshape_to(scope, inputs[0], equation.outvars[0].aval.shape)


def _reshape_to(scope: Scope, x: str, sizes: Sequence[Any]) -> str:
    return scope.graph.add("Reshape", x, scope.shape(sizes), allowzero=1)


def _transpose(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    return scope.graph.add("Transpose", inputs[0], perm=list(equation.params["permutation"]))


def _concatenate(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    return scope.graph.add("Concat", *inputs, axis=equation.params["dimension"])


def _stack(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    axis = equation.params["axis"]
    parts = [scope.graph.add("Unsqueeze", x, scope.graph.constant([axis])) for x in inputs]
    return scope.graph.add("Concat", *parts, axis=axis)


def _split(scope: Scope, equation: Any, inputs: Sequence[str]) -> Sequence[str]:
    sizes = [int(size) for size in equation.params["sizes"]]
    arguments = [inputs[0], scope.graph.constant(sizes, np.int64)]
    return scope.graph.add_all("Split", arguments, len(sizes), axis=equation.params["axis"])


def _slice(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    p = equation.params
    starts, ends = scope.shape(p["start_indices"]), scope.shape(p["limit_indices"])
    axes = scope.graph.constant(range(len(p["start_indices"])), np.int64)
    steps = scope.graph.constant(p["strides"] or [1] * len(p["start_indices"]), np.int64)
    return scope.graph.add("Slice", inputs[0], starts, ends, axes, steps)


def _slice_dynamically(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    """A part of fixed size; as in JAX, one that would leave the array is moved into it."""
    x, *starts = inputs
    graph, sizes = scope.graph, equation.params["slice_sizes"]
    axes = [i for i, size in enumerate(sizes) if size != equation.invars[0].aval.shape[i]]
    for axis in axes:
        room = graph.add(
            "Sub", scope.shape([equation.invars[0].aval.shape[axis]]), scope.shape([sizes[axis]])
        )
        start = graph.add("Reshape", _cast(scope, starts[axis], np.int64), graph.constant([1]))
        start = graph.add("Min", graph.add("Max", start, graph.constant([0])), room)
        end = graph.add("Add", start, scope.shape([sizes[axis]]))
        x = graph.add("Slice", x, start, end, graph.constant([axis]))
    return x


def _gather(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    """`x[indices]`; as in JAX, indices that would leave the array are moved into it."""
    d, x = equation.params["dimension_numbers"], equation.invars[0].aval
    if equation.params["mode"] == jax.lax.GatherScatterMode.FILL_OR_DROP:
        raise NotImplementedError("no ONNX for a gather that fills in what is out of bounds")
    trailing = tuple(
        range(equation.outvars[0].aval.ndim - x.ndim + 1, equation.outvars[0].aval.ndim)
    )
    first = d.start_index_map == d.collapsed_slice_dims == (0,) and d.offset_dims == trailing
    if not first or equation.params["slice_sizes"] != (1, *x.shape[1:]):
        raise NotImplementedError("no ONNX for a gather other than along the first axis")
    graph = scope.graph
    indices = graph.add("Squeeze", _cast(scope, inputs[1], np.int64), graph.constant([-1]))
    last = graph.add("Sub", scope.shape([x.shape[0]]), graph.constant([1]))
    last = graph.add("Squeeze", last, graph.constant([0]))
    indices = graph.add("Min", graph.add("Max", indices, graph.constant(0)), last)
    return graph.add("Gather", inputs[0], indices, axis=0)


def _scatter(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    """`x.at[…, index, …].set(update)`, with one index; without effect if that is out of bounds."""
    x, index, update = inputs
    d = equation.params["dimension_numbers"]
    if equation.params["mode"] == jax.lax.GatherScatterMode.CLIP:
        raise NotImplementedError("no ONNX for a scatter that moves indices into bounds")
    if len(d.scatter_dims_to_operand_dims) != 1 or equation.invars[1].aval.shape != (1,):
        raise NotImplementedError("no ONNX for a scatter with several indices")
    (axis,), aval, graph = d.scatter_dims_to_operand_dims, equation.invars[0].aval, scope.graph
    if d.inserted_window_dims != (axis,) or equation.invars[2].aval.ndim != aval.ndim - 1:
        raise NotImplementedError("no ONNX for a scatter of a window")
    size = graph.add("Squeeze", scope.shape([aval.shape[axis]]), graph.constant([0]))
    places = graph.add("Range", graph.constant(0), size, graph.constant(1))
    chosen = graph.add("Equal", places, _cast(scope, index, np.int64))
    shape = [1] * aval.ndim
    shape[axis] = -1
    chosen = graph.add("Reshape", chosen, graph.constant(shape))
    update = graph.add("Unsqueeze", update, graph.constant([axis]))
    return graph.add("Where", chosen, update, x)


def _reduce(kind: str) -> Rule:
    def add(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
        if not equation.params["axes"]:  # all of them, to ONNX
            return inputs[0]
        axes = scope.graph.constant(equation.params["axes"], np.int64)
        return scope.graph.add(kind, inputs[0], axes, keepdims=0)

    return add


def _reduce_or(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    axes = scope.graph.constant(equation.params["axes"], np.int64)
    most = scope.graph.add("ReduceMax", _cast(scope, inputs[0], np.int32), axes, keepdims=0)
    return _cast(scope, most, bool)


def _multiply(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    contracted, batch = equation.params["dimension_numbers"]
    ranks = [atom.aval.ndim for atom in equation.invars]
    if ranks != [2, 2] or tuple(map(tuple, contracted)) != ((1,), (0,)) or any(batch):
        raise NotImplementedError("no ONNX for a product other than of two matrices")
    return scope.graph.add("MatMul", *inputs)


def _call(scope: Scope, equation: Any, inputs: Sequence[str]) -> Sequence[str]:
    """A function within the function."""
    program = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
    if inner := scope.inner.get(equation.params.get("name", "")):
        outputs = inner(scope.graph, inputs)
        scope.features.add(outputs[0])
        return outputs
    return add_program(scope, program, inputs)


def _read_size(scope: Scope, equation: Any, inputs: Sequence[str]) -> str:
    dim = equation.params["dim"]
    return _cast(scope, scope.sizes[str(dim)], equation.outvars[0].aval.dtype)


def _branch(scope: Scope, equation: Any, inputs: Sequence[str]) -> Sequence[str]:
    which, *operands = inputs
    branches = equation.params["branches"]
    if len(branches) != 2:
        raise NotImplementedError("no ONNX for a branch with more than two ways")
    graphs = {}
    for key, branch in zip(("else_branch", "then_branch"), branches, strict=True):
        way = scope.within()
        graphs[key] = _close(way.graph, key, add_program(way, branch, operands), branch.out_avals)
    condition = _cast(scope, which, bool)
    return scope.graph.add_all("If", [condition], len(equation.outvars), **graphs)


def _loop(scope: Scope, equation: Any, inputs: Sequence[str]) -> Sequence[str]:
    p, graph = equation.params, scope.graph
    tested, looped = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    cond_consts, body_consts, start = inputs[:tested], inputs[tested:looped], inputs[looped:]
    (goes_on,) = add_program(scope, p["cond_jaxpr"], [*cond_consts, *start])
    body = scope.within()
    avals = p["body_jaxpr"].out_avals
    before = [body.graph.name() for _ in start]
    after = add_program(body, p["body_jaxpr"], [*body_consts, *before])
    (again,) = add_program(body, p["cond_jaxpr"], [*cond_consts, *after])
    given = [body.graph.name(), body.graph.name()]  # the number of the round, and whether it runs
    loop = _close(
        *(body.graph, "frame", [again, *after], [jax.core.ShapedArray((), bool), *avals]),
        inputs=[
            describe(given[0], np.int64, ()),
            describe(given[1], bool, ()),
            *(_describe(name, aval) for name, aval in zip(before, avals, strict=True)),
        ],
    )
    return graph.add_all("Loop", ["", goes_on, *start], len(avals), body=loop)


def _close(
    graph: Graph,
    name: str,
    outputs: Sequence[str],
    avals: Sequence[Any],
    inputs: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.GraphProto:
    """A subgraph; its outputs get names of their own, as one may be a value of the outside."""
    own = [graph.name() for _ in outputs]
    for value, other in zip(outputs, own, strict=True):
        graph.rename(value, other)
    described = [_describe(value, aval) for value, aval in zip(own, avals, strict=True)]
    return graph.finish(name, inputs, described)


def _describe(name: str, aval: Any) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else str(size) for size in aval.shape]
    return describe(name, aval.dtype, sizes)


_NESTING = {"jit", "custom_jvp_call", "cond", "while"}  # what is within reads their inputs
RULES: dict[str, Rule] = {
    **{n: _plain(n.capitalize(), *_NUMBERS) for n in ("add", "sub", "mul", "div", "max", "min")},
    **{n: _plain(n.capitalize(), np.float32) for n in ("exp", "log", "tanh", "sqrt")},
    **{n: _plain(n.capitalize(), bool) for n in ("and", "or", "not")},
    "neg": _plain("Neg", *_NUMBERS),
    "abs": _plain("Abs", *_NUMBERS),
    "rsqrt": _invert_root,
    "eq": _plain("Equal"),
    "ne": _not_equal,
    "lt": _plain("Less"),
    "le": _plain("LessOrEqual"),
    "gt": _plain("Greater"),
    "ge": _plain("GreaterOrEqual"),
    "logistic": _plain("Sigmoid"),
    "clamp": _clamp,
    "select_n": _select,
    "convert_element_type": _convert,
    "stop_gradient": _nothing,
    "optimization_barrier": _nothing,
    "copy": _nothing,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": _split,
    "slice": _slice,
    "dynamic_slice": _slice_dynamically,
    "gather": _gather,
    "scatter": _scatter,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_or": _reduce_or,
    "dot_general": _multiply,
    "jit": _call,
    "custom_jvp_call": _call,
    "dim_as_value": _read_size,
    "cond": _branch,
    "while": _loop,
}
