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

from sofnet_jax.run.config import flatten_fields, get_config
from sofnet_jax.systems.base import Learning
from sofnet_jax.systems.registry import create_system
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.gates import Decision, combine_gates, sample_gates
from sofnet_jax.systems.sofnet.network import Outputs, SoFNet
from sofnet_jax.systems.sofnet.released import (
    ReleasedObjective,
    ReleasedSoFNet,
    compute_rate,
    hold_gates,
    is_matrix,
)
from sofnet_jax.systems.sofnet.system import SoFNetSystem
from sofnet_jax.training.optimizer import create_optimizer

ROOT = Path(__file__).parents[3]
_TINY = Architecture(
    num_classes=3, block="basic", depths=(1, 1, 1, 1), width=4, stem_kernel=3, hidden=8
)


def _list_differences():
    """What the released system overrides, by the names in the documentation."""
    ours, papers = ReleasedSoFNet, SoFNetSystem
    pairs = [(vars(ours.semantics), vars(papers.semantics))]
    pairs += [(ours.learning._asdict(), papers.learning._asdict())]
    pairs += [(vars(ours.objective_type), vars(papers.objective_type))]
    own = [n for mine, other in pairs for n in mine if n[0] != "_" and mine[n] != other[n]]
    rest = {"name", "title", "create", "semantics", "learning", "objective_type"}
    return own + [n for n in vars(ours) if n[0] != "_" and n not in rest]


def test_the_variant_chooses_the_system():
    for variant, system in (("", SoFNetSystem), ("release", ReleasedSoFNet)):
        fields = flatten_fields(get_config(variant).to_dict())
        chosen = create_system(fields, num_classes=3)
        assert type(chosen) is system and type(chosen.objective) is system.objective_type
        assert chosen.module.semantics is system.semantics


def test_documentation_names_every_difference_and_tests_that_exist():
    text = (ROOT / "docs" / "fidelity.md").read_text()
    differences = _list_differences()
    assert len(differences) == 12
    for name in differences:
        assert re.search(rf"\| [^|]*[`.]{name}`[^|]* \|", text), name
    named = re.findall(r"`([\w/]*test_\w+\.py)(?:::(test_\w+))?`", text)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}" in (ROOT / "tests" / file).read_text(), (file, test)


@pytest.mark.parametrize("samples", list(product((0.0, 1.0), repeat=4)))
def test_effective_gates_have_the_same_value_and_the_gradient_of_one_gate(samples):
    stopped = samples.index(0.0) if 0.0 in samples else 4
    for combine in (combine_gates, hold_gates):
        gates = combine(jnp.array(samples))
        np.testing.assert_array_equal(gates, np.arange(4) < stopped)
    # Effective gate n is gate n itself, or the one that stopped the frame before.
    jacobian = jax.jacobian(hold_gates)(jnp.array(samples))
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
    model = SoFNet(dataclasses.replace(_TINY, dropout=0.5), semantics=ReleasedSoFNet.semantics)
    frames = jnp.array(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32, 3)), jnp.uint8)
    variables = model.init(jax.random.key(0), frames)
    once, again = model.apply(variables, frames), model.apply(variables, frames)
    for x, y in zip(jax.tree.leaves(once), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(x, y)
    q = once.decision.logits
    np.testing.assert_array_equal(once.decision.samples, q[..., 1] > q[..., 0])


def _create_objective(lookup=()):
    return ReleasedObjective(lookup, alpha=0.9, beta=0.9)


def _create_outputs(gates, samples=None, inner_logits=None, frame_logits=None):
    """Outputs of which a loss reads only what is given."""
    b, t, k = gates.shape
    decision = Decision(
        gates,
        jnp.zeros((b, t, k, 2)),
        jnp.zeros((b, t, k, 1)),
        gates if samples is None else samples,
    )
    inner_logits = jnp.zeros((b, t, k, 2)) if inner_logits is None else inner_logits
    frame_logits = jnp.zeros((b, t, 2)) if frame_logits is None else frame_logits
    return Outputs(jnp.zeros((b, 2)), frame_logits, gates[..., -1], decision, inner_logits)


def test_efficiency_loss():
    # f_lookup = 3, 1. The constant 3; r_1 with weight 1, its mean 1; r_2 with 1e-5, its mean 1/2.
    gates = jnp.array([[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    loss = _create_objective((3.0, 1.0)).compute_efficiency(_create_outputs(gates))
    np.testing.assert_allclose(loss, [3 + 1 + 0.5e-5, 3], rtol=1e-6)


def test_inner_loss_is_the_mean_whatever_the_gates():
    # Label: the second class. Losses log 2, log 4/3 in the first frame, log 2, log 4 in the second.
    even, right, wrong = (0.0, 0.0), (0.0, math.log(3)), (math.log(3), 0.0)
    logits = jnp.array([[[even, right], [even, wrong]]])
    outputs = _create_outputs(jnp.array([[[1.0, 0.0], [0.0, 0.0]]]), inner_logits=logits)
    loss = _create_objective().compute_inner(outputs, jnp.array([[0.0, 1.0]]))
    assert float(loss[0]) == pytest.approx((2 * math.log(2) + math.log(4 / 3) + math.log(4)) / 4)


def test_self_loss_takes_samples_for_logits():
    # Scores of the label: 1/2, 3/4 by the inner classifiers, 1/4 by the final one. So the first
    # gate should forward and the second stop. Cross-entropy of the logits (0, 1) and (1, 0):
    # log(1 + e^-1) if the likelier one is right, one more if not.
    inner = jnp.array([[[(0.0, 0.0), (0.0, math.log(3))]]])
    final = jnp.array([[(math.log(3), 0.0)]])
    right = math.log(1 + math.exp(-1))
    label = jnp.array([[0.0, 1.0]])
    for samples, expected in (
        ([1.0, 0.0], right),
        ([1.0, 1.0], right + 0.5),
        ([0.0, 1.0], 1 + right),
    ):
        outputs = _create_outputs(jnp.ones((1, 1, 2)), jnp.array([[samples]]), inner, final)
        loss = _create_objective().compute_self(outputs, label)
        assert float(loss[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_linear_layers_begin_at_a_thousandth():
    a = dataclasses.replace(_TINY, hidden=64)
    frames = jnp.zeros((1, 1, 32, 32, 3), jnp.uint8)
    model = SoFNet(a, semantics=ReleasedSoFNet.semantics)
    params = model.init(jax.random.key(0), frames)["params"]
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


def test_only_kernels_and_matrices_decay():
    model = SoFNet(_TINY, semantics=ReleasedSoFNet.semantics)
    frames = jax.ShapeDtypeStruct((1, 1, 32, 32, 3), jnp.uint8)
    shapes = jax.eval_shape(model.init, jax.random.key(0), frames)["params"]
    for path, shape in jax.tree.leaves_with_path(shapes):
        assert is_matrix(shape) == (path[-1].key in ("kernel", "w_ih", "w_hh", "w_q")), path


def test_momentum_begins_again_with_the_joint_training():
    params = {"backbone": {"kernel": jnp.zeros((1, 1))}}
    optimizer = create_optimizer(
        "sgd",
        optax.constant_schedule(1.0),
        momentum=0.5,
        weight_decay=0.0,
        warmup_steps=2,
        learning=Learning(restarts=True),
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
        learning=Learning(),
        clip_norm=1.0,
    )
    for gradient, expected in (([3.0, 4.0], [-0.6, -0.8]), ([0.3, 0.4], [-0.3, -0.4])):
        gradients = {"backbone": {"kernel": jnp.array([gradient])}}
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        np.testing.assert_allclose(updates["backbone"]["kernel"][0], expected, rtol=1e-6)
