"""A state and stored scores of many videos end early at the same frame (Eq. 7)."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import flax.struct
import jax.numpy as jnp
import numpy as np
import pytest

from sofnet_jax.evaluation.metrics import compute_observed
from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.base import UNDECIDED, Action, Next
from sofnet_jax.systems.early_exit import NEVER, Rule, watch

ACTIONS = (Action("stopped", uses=False, answers=False), Action("kept", uses=True, answers=True))


@flax.struct.dataclass
class Mean:
    """A system that keeps what it is told to keep."""

    next: Next
    total: jnp.ndarray
    kept: jnp.ndarray

    @property
    def answer(self):
        return self.total / jnp.maximum(self.kept, 1)[:, None]

    def look(self, logits, keep):
        action = jnp.full(1, int(keep), jnp.int32)
        return replace(
            self,
            next=replace(self.next, action=action),
            total=self.total + keep * logits,
            kept=self.kept + keep,
        )


@dataclass(frozen=True)
class Network:
    """What `watch` asks of a network."""

    architecture = SimpleNamespace(actions=ACTIONS, num_classes=4)
    spans = ()
    shares = True
    dtype = np.float32

    def begin(self, num_frames, shape):
        zero = jnp.zeros(1, jnp.int32)
        return Mean(Next(zero, zero, zero + UNDECIDED), jnp.zeros((1, 4)), zero)


@pytest.mark.parametrize("min_frames", [0, 3])
def test_states_and_evaluation_end_at_the_same_frame(min_frames):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40, 8, 4)).astype(np.float32)
    kept = rng.random((40, 8)) < 0.6
    rule = Rule(0.7, min_frames)
    observed = []
    for video, keeps in zip(logits, kept, strict=True):
        state = watch(Network(), rule, jnp.full(1, 8), (1, 1, 3))
        for frame, keep in zip(video, keeps, strict=True):
            state = state.follow(state.inner.look(frame, keep), answers=True)
            if state.ended[0]:
                break
        observed.append(int(state.observed[0]))
    time = np.broadcast_to(np.arange(8), kept.shape)
    predictions = Predictions(
        *((), np.zeros((40, 4)), logits, time, kept.astype(int), np.zeros((40, 8)), 40, {}),
        actions=ACTIONS,
        pooling="mean",
    )
    expected = compute_observed(predictions, 0.7, min_frames)
    assert len(np.unique(expected)) > 4
    np.testing.assert_array_equal(observed, expected)


def test_both_bounds_are_exclusive():
    even = np.zeros(2, np.float32)  # a largest probability of exactly 1/2
    assert Rule(0.49, 2).ends(even, 3)
    assert not Rule(0.5, 2).ends(even, 3)
    assert not Rule(0.49, 3).ends(even, 3)
    assert not NEVER.ends(even, 100)
