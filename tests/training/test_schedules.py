import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sofnet_jax.training.schedules import (
    create_cosine_schedule,
    create_learning_rate_schedule,
    create_progress_schedule,
    create_temperature_schedule,
)


def _evaluate(schedule, steps):
    """The schedule at these steps, compiled as inside of a training step."""
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.array(steps, jnp.int32)))


# 41 and 83: 1/41 · 41 is less than 1 in float32, which must not put a step in the epoch before.
@pytest.mark.parametrize("steps_per_epoch", [1, 7, 41, 83, 418])
def test_temperature_falls_once_per_joint_epoch(steps_per_epoch):
    schedule = create_temperature_schedule(
        5.0, 0.045, steps_per_epoch=steps_per_epoch, warmup_epochs=15
    )
    epochs = np.arange(75)
    expected = 5 * np.exp(-0.045 * np.maximum(epochs - 15, 0))
    first = epochs * steps_per_epoch
    np.testing.assert_allclose(_evaluate(schedule, first), expected, rtol=1e-5)
    last = first + steps_per_epoch - 1
    np.testing.assert_allclose(_evaluate(schedule, last), expected, rtol=1e-5)


def test_temperature_by_hand():
    # 5 e^-0.045 = 4.780 and 5 e^(-0.045 · 59) = 0.3515 in the second and the last of 60 epochs.
    schedule = create_temperature_schedule(5.0, 0.045, steps_per_epoch=10, warmup_epochs=0)
    values = _evaluate(schedule, [0, 9, 10, 19, 590])
    np.testing.assert_allclose(values, [5, 5, 4.780, 4.780, 0.3515], rtol=2e-4)


def test_learning_rate_drops_after_joint_epoch_30():
    # 15 epochs of warm-up and 30 more, of 7 steps each: step 315 is the first of joint epoch 30.
    schedule = create_learning_rate_schedule(
        0.001, drop_epochs=(30,), steps_per_epoch=7, warmup_epochs=15
    )
    values = _evaluate(schedule, [0, 314, 315, 316, 524])
    np.testing.assert_allclose(values, [0.001, 0.001, 0.0001, 0.0001, 0.0001], rtol=1e-5)


def test_learning_rate_drops_several_times():
    schedule = create_learning_rate_schedule(
        0.1, drop_epochs=(2, 3), steps_per_epoch=4, warmup_epochs=1
    )
    expected = [0.1] * 12 + [0.01] * 4 + [0.001] * 4
    np.testing.assert_allclose(_evaluate(schedule, range(20)), expected, rtol=1e-5)


def test_learning_rate_without_drops():
    schedule = create_learning_rate_schedule(
        0.1, drop_epochs=(), steps_per_epoch=4, warmup_epochs=0
    )
    assert [float(schedule(step)) for step in (0, 1000)] == pytest.approx([0.1, 0.1])
    assert math.isfinite(float(schedule(2**31 - 1)))


def test_learning_rate_is_the_first_again_after_a_restart():
    schedule = create_learning_rate_schedule(
        0.1, drop_epochs=(1,), steps_per_epoch=4, warmup_epochs=1, restart=12
    )
    rates = [float(schedule(step)) for step in range(16)]
    np.testing.assert_allclose(rates, [0.1] * 8 + [0.01] * 4 + [0.1] * 4, rtol=1e-6)


def test_cosine_leads_to_zero_in_every_phase():
    schedule = create_cosine_schedule(0.5, [4, 4, 10])  # the second phase is empty
    assert schedule(0) == schedule(4) == 0.5  # the next phase begins anew
    assert schedule(2) == pytest.approx(0.25)  # half of four steps: (1 + cos(π/2)) / 2
    assert schedule(7) == pytest.approx(0.25) and schedule(10) == pytest.approx(0, abs=1e-9)
    rates = [float(schedule(step)) for step in range(4, 11)]
    assert rates == sorted(rates, reverse=True)


def test_temperature_by_progress():
    schedule = create_progress_schedule(4.0, 1.0, range(10, 20))
    assert float(schedule(0)) == float(schedule(10)) == 4
    assert float(schedule(15)) == pytest.approx(2)  # half way of two halvings
    assert float(schedule(20)) == float(schedule(99)) == pytest.approx(1)
