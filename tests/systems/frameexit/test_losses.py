import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sofnet_jax.systems.frameexit.losses import (
    compute_gate_loss,
    compute_losses,
    compute_step_losses,
    compute_tolerances,
    create_exit_labels,
)
from sofnet_jax.systems.frameexit.network import Outputs

# Two classes: logits (0, log 3) are the probabilities (1/4, 3/4).
_EVEN = (0.0, 0.0)
_QUARTER = (0.0, math.log(3))
_SECOND = jnp.array([[0.0, 1.0]])


def test_tolerances_by_hand():
    # e^(1/2), e^1, e^(3/2), …: t counts from 1.
    expected = [1.6487213e-4, 2.7182818e-4, 4.4816891e-4, 7.3890561e-4, 1.2182494e-3]
    np.testing.assert_allclose(compute_tolerances(5, 1e-4), expected, rtol=1e-6)


def test_exit_labels_by_hand():
    # β = 0.1: tolerances 0.165, 0.272, 0.448, 0.739. Position 1 has no gate.
    losses = jnp.array([[0.0, 0.271, 0.449, 0.738], [9.0, 0.273, 0.447, 0.740]])
    labels = create_exit_labels(losses, 0.1)
    np.testing.assert_array_equal(labels, [[1, 0, 1], [0, 1, 0]])


def test_exit_at_equality():
    losses = compute_tolerances(3, 0.5)[None]
    np.testing.assert_array_equal(create_exit_labels(losses, 0.5), [[1, 1]])


def test_step_losses_of_several_labels_by_hand():
    # Probabilities 1/8, 2/8, 5/8; the first two are true, half each. Then 1/4, 1/4, 1/2.
    logits = jnp.log(jnp.array([[[1.0, 2.0, 5.0], [1.0, 1.0, 2.0]]]))
    losses = compute_step_losses(logits, jnp.array([[1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(losses, [[math.log(32) / 2, math.log(4)]], rtol=1e-6)


def test_gate_loss_by_hand():
    # Sigmoids 3/4 and 1/2. Exit right: log 4/3; go on wrong: log 4; undecided: log 2.
    logits = jnp.array([[math.log(3), 0.0], [math.log(3), 0.0]])
    loss = compute_gate_loss(logits, jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    expected = [(math.log(4 / 3) + math.log(2)) / 2, (math.log(4) + math.log(2)) / 2]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def _total(step_logits, gate_logits, gated):
    losses = compute_losses(Outputs(step_logits, gate_logits), _SECOND, gated=gated, beta=0.2)
    return losses.total, losses


_STEPS = jnp.array([[_EVEN, _EVEN, _QUARTER]])
_GATES = jnp.array([[0.0, math.log(3)]])


def test_first_phase_by_hand():
    (total, losses), gradients = jax.value_and_grad(_total, argnums=(0, 1), has_aux=True)(
        _STEPS, _GATES, gated=False
    )
    expected = (2 * math.log(2) + math.log(4 / 3)) / 3
    assert float(total) == float(losses.classification) == pytest.approx(expected)
    assert losses.gates == losses.exits == 0
    # (softmax − y) / T
    thirds = np.array([[0.5, -0.5], [0.5, -0.5], [0.25, -0.25]]) / 3
    np.testing.assert_allclose(gradients[0][0], thirds, atol=1e-6)
    np.testing.assert_array_equal(gradients[1], 0)


def test_second_phase_by_hand():
    # Tolerances 0.54 and 0.90 at positions 2 and 3; the losses there are 0.69 (go on), 0.29 (exit).
    (total, losses), gradients = jax.value_and_grad(_total, argnums=(0, 1), has_aux=True)(
        _STEPS, _GATES, gated=True
    )
    assert float(total) == float(losses.gates)
    assert float(total) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    assert losses.exits == 0.5
    np.testing.assert_array_equal(gradients[0], 0)
    # (sigmoid − label) / (T − 1)
    np.testing.assert_allclose(gradients[1], [[0.25, -0.125]], rtol=1e-6)
