"""JAX programs as ONNX: every operation that has a rule, and those that have none."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from sofnet_jax.engines.graph import Graph, create_model, describe
from sofnet_jax.engines.jaxpr import RULES, Scope, add_program

A = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
B = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
N = np.array([2, 0, 1], np.int32)
C = np.array([True, False, True])

PROGRAMS = {
    "arithmetic": (lambda a: jnp.tanh(-a) * a / (a * a + 2) - jnp.exp(a) + jax.nn.sigmoid(a), [A]),
    "roots": (lambda a: jnp.sqrt(abs(a)) * jax.lax.rsqrt(abs(a) + 1) + jnp.log(abs(a) + 1), [A]),
    "extremes": (lambda a: jnp.minimum(jnp.maximum(a, 0), jax.lax.clamp(0.1, a, 0.5)), [A]),
    "comparisons": (
        lambda n: jnp.stack([n == 1, n != 1, n < 1, n <= 1, n > 1, n >= 1]) | ~(n > 0) & (n < 5),
        [N],
    ),
    "integers": (lambda n: jnp.maximum(n - 1, 0) + n * 2, [N]),
    "types": (lambda n, c: n.astype(jnp.float32) + c, [N, C]),
    "selection": (lambda a, c: jnp.where(c[:, None], a, -1.0), [A, C]),
    "shapes": (lambda a: jnp.broadcast_to(a.T[:, None, :, None], (4, 2, 3, 1)).reshape(8, 3), [A]),
    "joining": (lambda a: jnp.concatenate([a, jnp.stack([a[0], a[1]])], 0), [A]),
    "splitting": (lambda a: jnp.split(a, [1, 3], axis=1), [A]),
    "slices": (lambda a: (a[1:, ::2], a[:, 0]), [A]),
    "rows": (lambda a, n: a[n], [A, N]),
    "rows out of bounds": (lambda a, n: a.at[n + 2].get(mode="clip"), [A, N]),
    "an update out of bounds": (lambda a, n: a.at[n[0] + 7].set(1.0), [A, N]),
    "nothing": (lambda a: (a[:, :0].reshape(0, 3), jnp.sum(a, ())), [A]),
    "a part": (lambda a, n: jax.lax.dynamic_slice(a, (n[0], 0), (2, 4)), [A, N]),  # moved inside
    "an update": (lambda a, n: a.at[n[0]].set(7.0).at[:, 2].set(a[:, 0]), [A, N]),
    "reductions": (lambda a, c: (a.sum(1), a.max(0), c.any()), [A, C]),
    "products": (lambda a, b: a @ b, [A, B]),
    "softmax": (lambda a: jax.nn.softmax(a), [A]),
    "barriers": (
        lambda a: jax.lax.optimization_barrier(jax.lax.stop_gradient(jax.nn.relu(a))),
        [A],
    ),
    "a branch": (lambda a, n: jax.lax.cond(n[0] > 1, lambda: a + 1, lambda: a * 2), [A, N]),
    "a loop": (
        lambda a, n: jax.lax.while_loop(
            lambda s: (s[0] < n[0] + 3) & (s[1].sum() < 1e6),
            lambda s: (s[0] + 1, jax.lax.cond(s[0] == 1, lambda: s[1] @ s[1].T @ a, lambda: s[1])),
            (jnp.int32(0), a),
        ),
        [A, N],
    ),
    "no round": (lambda a: jax.lax.while_loop(lambda x: x.sum() > 1e9, lambda x: x + 1, a), [A]),
}


def run(function, arrays):
    """What ONNX Runtime makes of a function."""
    names = [f"in{i}" for i in range(len(arrays))]
    program = jax.make_jaxpr(function)(*arrays)
    graph = Graph()
    outputs = add_program(Scope(graph), program, names)
    results = [f"out{i}" for i in range(len(outputs))]
    for value, name in zip(outputs, results, strict=True):
        graph.rename(value, name)
    inputs = [describe(n, a.dtype, a.shape) for n, a in zip(names, arrays, strict=True)]
    described = [
        describe(n, a.dtype, a.shape) for n, a in zip(results, program.out_avals, strict=True)
    ]
    session = onnxruntime.InferenceSession(create_model(graph.finish("test", inputs, described)))
    return session.run(None, dict(zip(names, arrays, strict=True)))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_gives_the_same(name):
    function, arrays = PROGRAMS[name]
    expected = jax.tree.leaves(jax.jit(function)(*arrays))
    found = run(function, arrays)
    assert len(found) == len(expected)
    for own, other in zip(found, expected, strict=True):
        assert own.dtype == other.dtype and own.shape == other.shape
        np.testing.assert_allclose(own, other, rtol=1e-6, atol=1e-6)


def test_every_rule_is_seen():
    seen = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            seen.add(equation.primitive.name)
            for inner in jax.extend.core.jaxprs_in_params(equation.params):
                visit(inner)

    for function, arrays in PROGRAMS.values():
        visit(jax.make_jaxpr(function)(*arrays).jaxpr)
    # What JAX writes for the same programs changes between its releases.
    assert set(RULES) - seen <= {"copy", "expand_dims", "dim_as_value", "reshape"}


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda a: jnp.cumsum(a), "no ONNX for the JAX operation cumsum"),
        (lambda a: jnp.einsum("ab,ab->a", a, a), "no ONNX for a product other than of two"),
        (lambda a: a[:, jnp.array([0, 2])], "no ONNX for a gather other than along the first"),
        (lambda a: a.at[jnp.array([0, 2])].set(0.0), "no ONNX for a scatter with several"),
        (
            lambda a: jax.lax.switch(
                (a[0, 0] > 0) + jnp.int32(1), [lambda: a, lambda: -a, lambda: a * a]
            ),
            "no ONNX for a branch with more than two ways",
        ),
        (
            lambda a: jax.lax.select_n((a > 0) + jnp.int32(0), a, a, a),
            "no ONNX for a selection among more than two",
        ),
        (lambda a: a.astype(jnp.int32), "no ONNX for float32 as int32: engines differ"),
        (lambda a: (a > 0).astype(jnp.uint8) + jnp.uint8(200), "no ONNX for Add of uint8"),
        (lambda a: (a > 0).astype(jnp.int32) & 3, "no ONNX for And of int32"),
        (lambda a: a.at[1:3].set(0.0), "no ONNX for a scatter of a window"),
        (lambda a: a.at[jnp.int32(9)].set(0.0, mode="clip"), "moves indices into bounds"),
        (lambda a: a.at[jnp.array([9])].get(mode="fill"), "fills in what is out of bounds"),
    ],
)
def test_what_has_no_rule_is_named(function, text):
    with pytest.raises(NotImplementedError, match=text):
        run(function, [A])
