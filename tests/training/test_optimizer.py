import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sofnet_jax.systems.base import Learning
from sofnet_jax.training.optimizer import create_optimizer, select
from sofnet_jax.training.schedules import create_learning_rate_schedule

_SHAPES = {
    "backbone": {"res1": {"conv1": {"kernel": (2, 3)}, "bn1": {"scale": (3,)}}},
    "head": {"kernel": (3, 2), "bias": (2,)},
    "policy_res1": {"w_hh": (2, 2)},
    "inner_res1": {"dense": {"bias": (2,)}},
}
_STEPS, _WARMUP, _MOMENTUM, _DECAY = 8, 3, 0.9, 0.05
# One warm-up epoch of three steps and a drop after joint epoch 1: at step 6.
_SCHEDULE = create_learning_rate_schedule(
    0.1, drop_epochs=(1,), steps_per_epoch=_WARMUP, warmup_epochs=1
)
_RATES = [0.1] * 6 + [0.01] * 2


def _create_tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.array(rng.normal(size=shape), jnp.float32),
        _SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def _run(name, warmup_steps=_WARMUP, policy_rate=1.0):
    """Parameters before each step and after the last, with a new gradient every step."""
    optimizer = create_optimizer(
        name,
        _SCHEDULE,
        momentum=_MOMENTUM,
        weight_decay=_DECAY,
        warmup_steps=warmup_steps,
        learning=Learning(policy=("policy_", "inner_")),
        policy_rate=policy_rate,
    )
    params = _create_tree(0)
    state, history = optimizer.init(params), [params]
    update = jax.jit(optimizer.update)
    for step in range(_STEPS):
        updates, state = update(_create_tree(1 + step), state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def _torch_sgd(p, gradients, rates):
    """torch.optim.SGD(momentum=…, weight_decay=…) on one parameter; its value after every step."""
    p, buffer, history = np.asarray(p, np.float64), None, []
    for g, rate in zip(gradients, rates, strict=True):
        g = np.asarray(g, np.float64) + _DECAY * p
        buffer = g if buffer is None else _MOMENTUM * buffer + g
        p = p - rate * buffer
        history.append(p)
    return history


def _is_policy(path):
    return path[0].key in ("policy_res1", "inner_res1")


@pytest.mark.parametrize("policy_rate", [1.0, 5.0])
def test_sgd_is_pytorchs(policy_rate):
    # Everything from step 0, policies and inner classifiers from the first joint step on, where
    # they start with no momentum and have a rate of their own. It drops between steps 5 and 6.
    history = _run("sgd", policy_rate=policy_rate)
    gradients = [_create_tree(1 + step) for step in range(_STEPS)]
    flat = [dict(jax.tree.leaves_with_path(tree)) for tree in history]
    flat_gradients = [dict(jax.tree.leaves_with_path(tree)) for tree in gradients]
    for path in flat[0]:
        first = _WARMUP if _is_policy(path) else 0
        factor = policy_rate if _is_policy(path) else 1
        rates = [factor * rate for rate in _RATES[first:]]
        expected = _torch_sgd(flat[0][path], [g[path] for g in flat_gradients[first:]], rates)
        for step, value in enumerate(expected, first):
            np.testing.assert_allclose(flat[step + 1][path], value, atol=1e-5, err_msg=str(path))


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_policies_are_frozen_in_the_warm_up(name):
    history = _run(name)
    start = jax.tree.leaves_with_path(history[0])
    for step, params in enumerate(history):
        for (path, before), after in zip(start, jax.tree.leaves(params), strict=True):
            frozen = step == 0 or (_is_policy(path) and step <= _WARMUP)
            assert (np.asarray(before) == np.asarray(after)).all() == frozen, (step, path)


def test_nothing_is_frozen_without_warm_up():
    before, after = _run("sgd", warmup_steps=0)[:2]
    for p, q in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (np.asarray(p) != np.asarray(q)).all()


def test_first_step_of_adam():
    # Both moments are those of one gradient, so every parameter moves by the rate against its sign.
    before, after = _run("adam", warmup_steps=0)[:2]
    gradients = _create_tree(1)
    for p, q, g in zip(*map(jax.tree.leaves, (before, after, gradients)), strict=True):
        expected = p - 0.1 * np.sign(g + _DECAY * p)
        np.testing.assert_allclose(q, expected, atol=1e-4)


def test_first_joint_step_of_adam_for_policies():
    # Their moments begin there: warm-up steps that counted would make the first step too long.
    before, after = _run("adam")[_WARMUP : _WARMUP + 2]
    gradients = _create_tree(1 + _WARMUP)
    for name in ("policy_res1", "inner_res1"):
        trees = (jax.tree.leaves(tree[name]) for tree in (before, after, gradients))
        for p, q, g in zip(*trees, strict=True):
            expected = p - _RATES[_WARMUP] * np.sign(g + _DECAY * p)
            np.testing.assert_allclose(q, expected, atol=1e-4)


def test_policies_are_selected_by_name():
    selected = jax.tree.leaves_with_path(select(_create_tree(0), ("policy_", "inner_")))
    assert {path[0].key for path, chosen in selected if chosen} == {"policy_res1", "inner_res1"}
    assert {path[0].key for path, chosen in selected if not chosen} == {"backbone", "head"}


@pytest.mark.parametrize("policy_name", ["", "adam"])
def test_an_optimizer_that_holds_what_has_ended_does_the_same(policy_name):
    def create(holds):
        return create_optimizer(
            "sgd",
            _SCHEDULE,
            momentum=_MOMENTUM,
            weight_decay=_DECAY,
            warmup_steps=2,
            learning=Learning(policy=("policy_", "inner_"), freezes=True),
            policy_name=policy_name,
            holds=holds,
        )

    whole, holding = create(False), create(True)
    params = _create_tree(0)
    state = whole.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(holding.init(params))
    for step in range(2):  # the others learn, and the policies do not
        updates, state = whole.update(_create_tree(1 + step), state, params)
        params = optax.apply_updates(params, updates)
    for step in range(2, 5):
        gradients = _create_tree(1 + step)
        expected, after = whole.update(gradients, state, params)
        found, state = holding.update(gradients, state, params)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        assert not any(np.any(x) for x in jax.tree.leaves(found["backbone"]))
        assert np.any(found["policy_res1"]["w_hh"])
        params = optax.apply_updates(params, found)


def test_gates_may_have_another_optimizer_than_the_network():
    def update(**names):
        optimizer = create_optimizer(
            **names,
            learning_rate=_SCHEDULE,
            momentum=_MOMENTUM,
            weight_decay=_DECAY,
            warmup_steps=0,
            learning=Learning(policy=("policy_", "inner_")),
        )
        params = _create_tree(0)
        return optimizer.update(_create_tree(1), optimizer.init(params), params)[0]

    sgd, adam, both = (
        update(name="sgd"),
        update(name="adam"),
        update(name="sgd", policy_name="adam"),
    )
    for name in _SHAPES:
        expected = adam if name.startswith(("policy_", "inner_")) else sgd
        jax.tree.map(np.testing.assert_array_equal, both[name], expected[name])
        assert not np.array_equal(*(jax.tree.leaves(tree[name])[0] for tree in (sgd, adam)))


@pytest.mark.parametrize("holds", [False, True])
def test_a_refined_parameter_learns_as_the_others_and_then_beside_the_policies(holds):
    def create(holds=False, **fields):
        return create_optimizer(
            "sgd",
            _SCHEDULE,
            momentum=_MOMENTUM,
            weight_decay=_DECAY,
            warmup_steps=2,
            policy_name="adam",
            policy_rate=3.0,
            holds=holds,
            learning=Learning(**fields),
        )

    ours = create(policy=("policy_",), freezes=True, refined=("head",), refined_rate=0.5)
    plain = create(policy=("policy_",), freezes=True)
    as_policy = create(policy=("policy_", "head"), freezes=True)
    params = _create_tree(0)
    states = [each.init(params) for each in (ours, plain, as_policy)]
    for step in range(4):
        gradients = _create_tree(1 + step)
        if step == 2 and holds:
            ours = create(
                True, policy=("policy_",), freezes=True, refined=("head",), refined_rate=0.5
            )
        found = []
        for i, optimizer in enumerate((ours, plain, as_policy)):
            updates, states[i] = optimizer.update(gradients, states[i], params)
            found.append(updates)
        mine, others, policies = found
        if step < 2:
            jax.tree.map(np.testing.assert_array_equal, mine, others)
        else:
            half = jax.tree.map(lambda x: 0.5 * x, policies["head"])
            jax.tree.map(np.testing.assert_array_equal, mine["head"], half)
            assert np.any(mine["head"]["kernel"]) and not np.any(others["head"]["kernel"])
            jax.tree.map(np.testing.assert_array_equal, mine["policy_res1"], others["policy_res1"])
