"""The released code's side of every difference, by hand; test_parity.py has both sides whole."""

import dataclasses
import math
import re
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sofnet_jax.run.config import get_config
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.gates import combine_gates, sample_gates
from sofnet_jax.systems.sofnet.losses import (
    compute_inner_loss,
    compute_released_efficiency_loss,
    compute_released_self_loss,
)
from sofnet_jax.systems.sofnet.network import SoFNet
from sofnet_jax.systems.sofnet.released import PAPER, Released
from sofnet_jax.training.optimizer import compute_rate, create_optimizer

ROOT = Path(__file__).parents[3]
_TINY = Architecture(
    num_classes=3, block="basic", depths=(1, 1, 1, 1), width=4, stem_kernel=3, hidden=8
)


def test_configuration_has_these_fields_and_the_variant_sets_them_all():
    default, release = get_config(), get_config("release")
    assert Released(**default.released) == PAPER
    fields = dataclasses.asdict(Released(**release.released))
    assert fields.pop("clip_norm") == 20.0
    assert set(fields.values()) == {True}


def test_documentation_names_every_field_and_tests_that_exist():
    text = (ROOT / "docs" / "fidelity.md").read_text()
    for field in dataclasses.fields(Released):
        assert f"| `{field.name}` |" in text, field.name
    named = re.findall(r"`([\w/]*test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}" in (ROOT / "tests" / file).read_text(), (file, test)


def test_paper_is_none_of_them():
    assert not any(dataclasses.astuple(PAPER))


@pytest.mark.parametrize("samples", list(product((0.0, 1.0), repeat=4)))
def test_effective_gates_have_the_same_value_and_the_gradient_of_one_gate(samples):
    stopped = samples.index(0.0) if 0.0 in samples else 4
    for released in (False, True):
        gates = combine_gates(jnp.array(samples), released)
        np.testing.assert_array_equal(gates, np.arange(4) < stopped)
    # Effective gate n is gate n itself, or the one that stopped the frame before.
    jacobian = jax.jacobian(combine_gates)(jnp.array(samples), True)
    deciding = [min(n, stopped) for n in range(4)]
    np.testing.assert_array_equal(jacobian, np.eye(4)[deciding])


def test_log_probabilities_make_the_same_gates():
    # The released code samples from log softmax(q), which is q minus a constant.
    rng = np.random.default_rng(0)
    logits, noise = jnp.array(rng.normal(size=(50, 2))), jnp.array(rng.gumbel(size=(50, 2)))

    def sample(q):
        return sample_gates(q, noise, 2.0)

    def sample_log(q):
        return sample_gates(jax.nn.log_softmax(q), noise, 2.0)

    np.testing.assert_array_equal(sample(logits), sample_log(logits))
    weights = jnp.array(rng.normal(size=50))
    gradients = [
        jax.grad(lambda q, f=f: (weights * f(q)).sum())(logits) for f in (sample, sample_log)
    ]
    np.testing.assert_allclose(*gradients, atol=1e-6)


@pytest.mark.slow
def test_evaluation_is_deterministic():
    # Without random streams, drawing noise or dropout would raise in Flax.
    model = SoFNet(
        dataclasses.replace(_TINY, dropout=0.5), released=Released(state=True, empty=True)
    )
    frames = jnp.array(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3)), jnp.uint8)
    variables = model.init(jax.random.key(0), frames)
    once, again = model.apply(variables, frames), model.apply(variables, frames)
    for x, y in zip(jax.tree.leaves(once), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y)
    q = once.decision.logits
    np.testing.assert_array_equal(once.decision.samples, q[..., 1] > q[..., 0])


def test_efficiency_loss():
    # f_lookup = 3, 1. The constant 3; r_1 with weight 1, its mean 1; r_2 with 1e-5, its mean 1/2.
    gates = jnp.array([[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    loss = compute_released_efficiency_loss(gates, jnp.array([3.0, 1.0]))
    np.testing.assert_allclose(loss, [3 + 1 + 0.5e-5, 3], rtol=1e-6)


def test_inner_loss_with_gates_of_one_is_the_mean():
    # Label: the second class. Losses log 2, log 4/3 in the first frame, log 2, log 4 in the second.
    even, right, wrong = (0.0, 0.0), (0.0, math.log(3)), (math.log(3), 0.0)
    logits = jnp.array([[[even, right], [even, wrong]]])
    loss = compute_inner_loss(logits, jnp.ones((1, 2, 2)), jnp.array([[0.0, 1.0]]))
    assert float(loss[0]) == pytest.approx((2 * math.log(2) + math.log(4 / 3) + math.log(4)) / 4)


def test_self_loss_takes_samples_for_logits():
    # Scores of the label: 1/2, 3/4 by the inner classifiers, 1/4 by the final one. So the first
    # gate should forward and the second stop. Cross-entropy of the logits (0, 1) and (1, 0):
    # log(1 + e^-1) if the likelier one is right, one more if not.
    layers = jnp.array([[[(0.0, 0.0), (0.0, math.log(3)), (math.log(3), 0.0)]]])
    right = math.log(1 + math.exp(-1))
    label = jnp.array([[0.0, 1.0]])
    for samples, expected in (
        ([1.0, 0.0], right),
        ([1.0, 1.0], right + 0.5),
        ([0.0, 1.0], 1 + right),
    ):
        loss = compute_released_self_loss(jnp.array([[samples]]), layers, label)
        assert float(loss[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_linear_layers_begin_at_a_thousandth():
    a = dataclasses.replace(_TINY, hidden=64)
    frames = jnp.zeros((1, 1, 32, 32, 3), jnp.uint8)
    params = SoFNet(a, released=Released(init=True)).init(jax.random.key(0), frames)["params"]
    policy, inner = params["policy_res5"], params["inner_res5"]["dense"]
    for weight in (policy["embed"]["kernel"], policy["w_q"], inner["kernel"]):
        assert 0.0008 < float(weight.std()) < 0.0012
    for bias in (policy["embed"]["bias"], policy["b_q"], inner["bias"]):
        assert not bias.any()
    # PyTorch's own for the LSTM: uniform in ±1/√hidden, of deviation 1/√(3·hidden).
    assert float(policy["w_ih"].std()) == pytest.approx(1 / math.sqrt(3 * 64), rel=0.05)


@pytest.mark.parametrize(
    ("path", "rate"),
    [
        ("backbone res1 conv1 kernel", 1),
        ("backbone res2 block0 bn1 scale", 1),
        ("backbone res2 block0 bn1 bias", 1),
        ("head kernel", 5),
        ("head bias", 10),
        ("policy_res1 embed kernel", 5),
        ("policy_res1 embed bias", 10),
        ("policy_res1 w_ih", 1),
        ("policy_res1 b_hh", 2),
        ("policy_res1 w_q", 5),
        ("policy_res1 b_q", 10),
        ("inner_res1 dense kernel", 5),
        ("inner_res1 dense bias", 10),
    ],
)
def test_learning_rates(path, rate):
    assert compute_rate(tuple(map(jax.tree_util.DictKey, path.split()))) == rate


def test_momentum_begins_again_with_the_joint_training():
    params = {"backbone": {"kernel": jnp.zeros((1, 1))}}
    optimizer = create_optimizer(
        "sgd",
        optax.constant_schedule(1.0),
        momentum=0.5,
        weight_decay=0.0,
        warmup_steps=2,
        released=Released(restart=True),
    )
    state, steps = optimizer.init(params), []
    for _ in range(4):
        updates, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        steps.append(float(updates["backbone"]["kernel"][0, 0]))
    assert steps == [-1, -1.5, -1, -1.5]


def test_gradient_is_clipped_to_the_norm():
    params = {"backbone": {"kernel": jnp.zeros((1, 2))}}
    optimizer = create_optimizer(
        "sgd",
        optax.constant_schedule(1.0),
        momentum=0.0,
        weight_decay=0.0,
        warmup_steps=0,
        released=Released(clip_norm=1.0),
    )
    for gradient, expected in (([3.0, 4.0], [-0.6, -0.8]), ([0.3, 0.4], [-0.3, -0.4])):
        gradients = {"backbone": {"kernel": jnp.array([gradient])}}
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        np.testing.assert_allclose(updates["backbone"]["kernel"][0], expected, rtol=1e-6)
