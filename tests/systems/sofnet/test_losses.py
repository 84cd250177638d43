import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sofnet_jax.systems.sofnet.gates import Decision
from sofnet_jax.systems.sofnet.losses import (
    Objective,
    compute_classification_loss,
    compute_efficiency_loss,
    compute_inner_loss,
    compute_self_loss,
)
from sofnet_jax.systems.sofnet.network import Outputs

# Two classes: logits (0, log 3) are the probabilities (1/4, 3/4).
_EVEN = (0.0, 0.0)
_QUARTER = (0.0, math.log(3))
_SECOND = jnp.array([[0.0, 1.0]])


def _outputs(video_logits, gates, gate_logits, inner_logits):
    gates = jnp.array(gates)
    hidden = jnp.zeros((*gates.shape, 1))
    decision = Decision(gates, jnp.array(gate_logits), hidden, gates)
    kept = gates.prod(-1)
    frame_logits = jnp.zeros((*kept.shape, 2))
    return Outputs(jnp.array(video_logits), frame_logits, kept, decision, jnp.array(inner_logits))


def test_classification_loss_by_hand():
    # -log of the label's probability, 1/4 and 3/4.
    logits = jnp.array([_QUARTER, _QUARTER])
    loss = compute_classification_loss(logits, jnp.eye(2))
    np.testing.assert_allclose(loss, [math.log(4), math.log(4 / 3)], rtol=1e-6)


def test_classification_loss_of_several_labels_by_hand():
    # Three classes with the probabilities 1/8, 2/8, 5/8; the first two are true, half each.
    logits = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))
    outputs = Outputs(
        logits, logits[:, None], jnp.ones((1, 1)), _no_gates(1, 1), jnp.zeros((1, 1, 0, 3))
    )
    labels = jnp.array([[1.0, 1.0, 0.0]])
    losses = Objective(lookup=(), alpha=0.9, beta=0.9)(outputs, labels)
    assert float(losses.classification) == pytest.approx((math.log(8) + math.log(4)) / 2)


def _no_gates(b, t):
    none = jnp.zeros((b, t, 0))
    return Decision(none, jnp.zeros((b, t, 0, 2)), jnp.zeros((b, t, 0, 1)), none)


def test_efficiency_loss_by_hand():
    # T = N = 2. First video: (3 + 1) + (3 + 0) = 7 of 4 places. Second: all stopped at once.
    gates = jnp.array([[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    loss = compute_efficiency_loss(gates, jnp.array([3.0, 1.0]))
    np.testing.assert_allclose(loss, [7 / 4, 0], rtol=1e-6)
    # Each gate's share of the cost moves it: f_lookup(n) / (T N).
    gradient = jax.grad(lambda g: compute_efficiency_loss(g, jnp.array([3.0, 1.0])).sum())(gates)
    np.testing.assert_allclose(gradient, np.broadcast_to([3 / 4, 1 / 4], (2, 2, 2)), rtol=1e-6)


def test_inner_loss_by_hand():
    # Label: the second class. Losses log 2, log 4/3 in the first frame, log 2, log 4 in the second.
    # The last gate did not forward: the mean of the remaining three. The second video has one
    # forward, so the divisor is one instead of three.
    opposite = (math.log(3), 0.0)
    logits = jnp.array([[[_EVEN, _QUARTER], [_EVEN, opposite]]] * 2)
    gates = jnp.array([[[1.0, 1.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]])
    loss = compute_inner_loss(logits, gates, jnp.concatenate([_SECOND, _SECOND]))
    expected = [(math.log(2) + math.log(4 / 3) + math.log(2)) / 3, math.log(4)]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_inner_loss_moves_the_gates():
    # L = Σ g l / Σ g, so dL/dg = (l - L) / Σ g, whether the gate forwarded or not.
    logits = jnp.array([[[_EVEN, _QUARTER, _EVEN]]])
    gates = jnp.array([[[1.0, 1.0, 0.0]]])
    gradient = jax.grad(lambda g: compute_inner_loss(logits, g, _SECOND).sum())(gates)
    mean = (math.log(2) + math.log(4 / 3)) / 2
    expected = [(math.log(n) - mean) / 2 for n in (2, 4 / 3, 2)]
    np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-5)


def test_inner_classifier_of_a_stopped_frame_does_not_learn():
    logits = jnp.array([[[_EVEN, _EVEN]]])
    gates = jnp.array([[[1.0, 0.0]]])
    gradient = jax.grad(lambda x: compute_inner_loss(x, gates, _SECOND).sum())(logits)
    # softmax - y at the gate that forwarded.
    np.testing.assert_allclose(gradient[0, 0], [[0.5, -0.5], [0, 0]], atol=1e-6)


def test_inner_loss_when_nothing_is_forwarded():
    logits = jnp.array([[[_EVEN, _QUARTER]]])
    loss, gradient = jax.value_and_grad(lambda g: compute_inner_loss(logits, g, _SECOND).sum())(
        jnp.zeros((1, 1, 2))
    )
    assert loss == 0
    assert np.isfinite(gradient).all()


def test_self_loss_by_hand():
    # The label's score is 1/2, 3/4, 3/4: it rises after gate 1 (forward), and a tie does not count
    # as a rise after gate 2 (stop). Probabilities of forward 1/4 and 4/5: -log 1/4 and -log 1/5.
    inner = jnp.array([[[_EVEN, _QUARTER, _QUARTER]]])
    gates = jnp.array([[[[math.log(3), 0.0], [1.0, 1 + math.log(4)], [5.0, -7.0]]]])
    loss = compute_self_loss(gates, inner, _SECOND)
    np.testing.assert_allclose(loss, [(math.log(4) + math.log(5)) / 2], rtol=1e-6)


def test_self_loss_is_a_mean_over_frames_and_all_gates_but_the_last():
    # Two frames, three gates. The score falls everywhere: 3/4, 1/2, 1/4. All gates undecided:
    # log 2. One gate forwards with 3/4 instead: log 4, so log 2 / 4 more.
    inner = jnp.array([[[_QUARTER, _EVEN, (math.log(3), 0.0)]] * 2])
    gates = jnp.zeros((1, 2, 3, 2))
    even = compute_self_loss(gates, inner, _SECOND)
    np.testing.assert_allclose(even, [math.log(2)], rtol=1e-6)
    one = compute_self_loss(gates.at[0, 1, 0, 1].set(math.log(3)), inner, _SECOND)
    np.testing.assert_allclose(one, [math.log(2) * 5 / 4], rtol=1e-6)


def test_gradients_of_self_loss():
    # Binary cross-entropy in the logit q[forward] - q[stop]: (p - label) / (T (N - 1)).
    # p = 3/4 with label 1 and p = 1/2 with label 0; the last gate has no label.
    inner = jnp.array([[[_EVEN, _QUARTER, _EVEN]]])
    gates = jnp.array([[[_QUARTER, _EVEN, _EVEN]]])
    to_gates, to_inner = jax.grad(
        lambda q, x: compute_self_loss(q, x, _SECOND).sum(), argnums=(0, 1)
    )(gates, inner)
    expected = [[1 / 8, -1 / 8], [-1 / 4, 1 / 4], [0, 0]]
    np.testing.assert_allclose(to_gates[0, 0], expected, atol=1e-6)
    np.testing.assert_array_equal(to_inner, 0)


def test_pseudo_label_of_several_labels():
    # The score is that of all true classes together: 1/2 + 1/10 rises to 2/5 + 3/10, although the
    # better of the two falls. Undecided gates: log 2 either way; a leaning gate tells them apart.
    inner = jnp.log(jnp.array([[[[0.5, 0.1, 0.4], [0.4, 0.3, 0.3]]]]))
    gates = jnp.array([[[_QUARTER, _EVEN]]])
    targets = jnp.array([[0.5, 0.5, 0.0]])
    loss = compute_self_loss(gates, inner, targets)
    np.testing.assert_allclose(loss, [math.log(4 / 3)], rtol=1e-6)


def test_total_by_hand():
    # One video, T = 1, N = 2; both gates forward; the second class is true.
    # cls: log 4 (probability 1/4). eff: (3 + 1) / 2 = 2. inner: (log 2 + log 4/3) / 2.
    # self: the score rises from 1/2 to 3/4, gate 1 forwards with 1/2: log 2.
    outputs = _outputs(
        video_logits=[(math.log(3), 0.0)],
        gates=[[[1.0, 1.0]]],
        gate_logits=[[[_EVEN, _QUARTER]]],
        inner_logits=[[[_EVEN, _QUARTER]]],
    )
    losses = Objective(lookup=(3.0, 1.0), alpha=0.8, beta=0.7)(outputs, _SECOND)
    terms = (math.log(4), 2.0, (math.log(2) + math.log(4 / 3)) / 2, math.log(2))
    found = (losses.classification, losses.efficiency, losses.inner, losses.self)
    np.testing.assert_allclose(found, terms, rtol=1e-6)
    expected = 0.8 * terms[0] + 0.2 * terms[1] + 0.7 * terms[2] + 0.3 * terms[3]
    assert float(losses.total) == pytest.approx(expected)


def test_without_guidance_by_hand():
    # The video of the test above. L_pg is reported but not added: what only it moves stays.
    def total(inner_logits, gate_logits, video_logits):
        outputs = _outputs(video_logits, [[[1.0, 1.0]]], gate_logits, inner_logits)
        options = {"lookup": (3.0, 1.0), "alpha": 0.8, "beta": 0.7, "guidance": False}
        losses = Objective(**options)(outputs, _SECOND)
        return losses.total, losses

    logits = [[[_EVEN, _QUARTER]]], [[[_EVEN, _QUARTER]]], [(math.log(3), 0.0)]
    (value, losses), gradients = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(
        *map(jnp.array, logits)
    )
    assert float(value) == pytest.approx(0.8 * math.log(4) + 0.2 * 2)
    assert float(losses.inner) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert float(losses.self) == pytest.approx(math.log(2))
    np.testing.assert_array_equal(gradients[0], 0)
    np.testing.assert_array_equal(gradients[1], 0)
    # α (softmax − y) of the video's logits.
    np.testing.assert_allclose(gradients[2], [[0.8 * 3 / 4, -0.8 * 3 / 4]], rtol=1e-6)


def test_a_batch_is_the_mean_of_its_videos():
    # Unequal numbers of forwards: a ratio of sums over the batch would differ.
    videos = [
        _outputs([_QUARTER], [[[1.0, 1.0]]], [[[_EVEN, _EVEN]]], [[[_EVEN, _QUARTER]]]),
        _outputs([_EVEN], [[[1.0, 0.0]]], [[[_QUARTER, _EVEN]]], [[[_QUARTER, _EVEN]]]),
    ]
    batch = jax.tree.map(lambda *x: jnp.concatenate(x), *videos)
    options = {"lookup": (3.0, 1.0), "alpha": 0.8, "beta": 0.7}
    first, second = (vars(Objective(**options)(v, _SECOND)) for v in videos)
    both = vars(Objective(**options)(batch, jnp.concatenate([_SECOND] * 2)))
    assert first["inner"] != second["inner"]
    for name, value in both.items():
        assert float(value) == pytest.approx(float(first[name] + second[name]) / 2), name


def test_single_gate():
    # No next classifier: no self-supervision, and nothing undefined in its gradient.
    def total(gate_logits, inner_logits):
        outputs = _outputs([_QUARTER], [[[1.0]]], gate_logits, inner_logits)
        losses = Objective(lookup=(3.0,), alpha=0.8, beta=0.7)(outputs, _SECOND)
        return losses.total, losses

    arguments = jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 1, 1, 2))
    (value, losses), gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(*arguments)
    assert losses.self == 0
    # cls log 4/3, eff 3, inner log 2.
    expected = 0.8 * math.log(4 / 3) + 0.2 * 3 + 0.7 * math.log(2)
    assert float(value) == pytest.approx(expected)
    assert all(np.isfinite(g).all() for g in gradients)


def test_no_gates():
    # TSN and the warm-up minimise L_cls alone, without the factor α.
    logits = jnp.array([_QUARTER])
    outputs = Outputs(
        logits, logits[:, None], jnp.ones((1, 1)), _no_gates(1, 1), jnp.zeros((1, 1, 0, 2))
    )
    losses = Objective(lookup=(), alpha=0.8, beta=0.7)(outputs, _SECOND)
    assert float(losses.total) == pytest.approx(math.log(4 / 3))
    assert losses.efficiency == losses.inner == losses.self == 0


def test_below_its_floor_the_efficiency_loss_pushes_no_further():
    gates = jnp.array([[[1.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
    objective = Objective((3.0, 1.0), alpha=0.5, beta=0.5, floor=0.5)
    # The largest value is (3 + 1) / 2 = 2, so the floor is 1. The first video costs
    # (3 + 1 + 3) / 4 = 1.75, and the second 3 / 4.

    def limit(gates):
        return objective._limit(compute_efficiency_loss(gates, jnp.array([3.0, 1.0])))

    np.testing.assert_allclose(limit(gates), [1.75, 1.0])
    gradient = jax.grad(lambda gates: limit(gates).sum())(gates)
    np.testing.assert_allclose(gradient[0], [[0.75, 0.25]] * 2)
    np.testing.assert_array_equal(gradient[1], 0)
