import math

import numpy as np
import pytest

from sofnet_jax.evaluation.metrics import compute_metrics
from sofnet_jax.report.gates import compute_relevance
from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.base import Action, Prices
from sofnet_jax.systems.tsn import KEPT

_ACTIONS = (Action("res1", False, False), Action("res3", False, False), KEPT)
_NAN = math.nan


def _create_predictions(action, relevant, logits=None, *, time=None, actions=_ACTIONS):
    """Of `_ACTIONS`, 2 is kept."""
    action, relevant = np.array(action), np.array(relevant, float)
    if time is None:
        time = np.tile(np.arange(action.shape[1]), (len(action), 1))
    return Predictions(
        ids=tuple(f"v{i}" for i in range(len(action))),
        labels=np.eye(2)[[0] * len(action)],
        logits=np.zeros((*action.shape, 2)) if logits is None else logits,
        time=np.array(time),
        action=action,
        relevant=relevant,
        total=len(action),
        errors={},
        actions=actions,
        pooling="mean",
    )


def test_relevance_by_hand():
    predictions = _create_predictions(
        [[0, 2, 2, 1, 2], [2, 0, 1, 0, 2]], [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]
    )
    relevance = compute_relevance(predictions)
    assert relevance.share == 5 / 10
    assert relevance.precision == 3 / 5
    assert relevance.recall == 3 / 5
    assert relevance.inside == {"res1": 1 / 5, "res3": 1 / 5, "exit": 0, "used": 3 / 5}
    assert relevance.outside == {"res1": 2 / 5, "res3": 1 / 5, "exit": 0, "used": 2 / 5}


def test_early_termination_by_hand():
    # Sure from the first kept frame, the second of six, but it ends after the third at the
    # earliest, and the third is not kept: four frames are looked at.
    logits = np.tile([9.0, 0.0], (1, 6, 1))
    predictions = _create_predictions([[0, 2, 1, 2, 2, 0]], [[0, 1, 1, 0, 1, 0]], logits)
    relevance = compute_relevance(predictions, threshold=0.9, min_frames=2)
    assert relevance.share == 3 / 6
    assert relevance.precision == 1 / 2
    assert relevance.recall == 1 / 3
    assert relevance.inside == {"res1": 0, "res3": 1 / 3, "exit": 1 / 3, "used": 1 / 3}
    assert relevance.outside == {"res1": 1 / 3, "res3": 0, "exit": 1 / 3, "used": 1 / 3}
    # Without it all are.
    assert compute_relevance(predictions).recall == 2 / 3


def test_frames_of_unknown_relevance_do_not_count():
    action = [[2, 0, 2, 1], [2, 2, 2, 0]]
    known = compute_relevance(_create_predictions(action[:1], [[1, 1, 0, 0]]))
    relevant = [[1, 1, 0, 0], [_NAN] * 4]
    assert compute_relevance(_create_predictions(action, relevant)) == known


def test_nothing_annotated():
    assert compute_relevance(_create_predictions([[2, 0]], [[_NAN, _NAN]])) is None


def test_no_frame_to_take_a_share_of():
    # None is outside, and no frame of known relevance was kept.
    relevance = compute_relevance(_create_predictions([[0, 1, 2]], [[1, 1, _NAN]]))
    assert relevance.share == 1
    assert math.isnan(relevance.precision)
    assert relevance.recall == 0
    assert all(map(math.isnan, relevance.outside.values()))


def test_network_without_gates_uses_all_frames():
    predictions = _create_predictions([[0, 0, 0, 0]], [[1, 0, 0, 0]], actions=(KEPT,))
    relevance = compute_relevance(predictions)
    assert relevance.precision == relevance.share == 1 / 4
    assert relevance.inside == relevance.outside == {"exit": 0, "used": 1}


def test_frames_are_those_that_the_steps_looked_at():
    # The steps look at frames 3, 0, 2 of four and 1, 3 of four; the second video ends by itself.
    predictions = _create_predictions(
        [[2, 0, 2], [1, 2, -1]],
        [[1, 0, 0, 1], [0, 1, 1, 0]],
        time=[[3, 0, 2], [1, 3, 2]],
    )
    relevance = compute_relevance(predictions)
    assert relevance.share == 4 / 8
    assert relevance.precision == 1 / 3  # frame 3 of the first, not its frame 2 nor 3 of the second
    assert relevance.recall == 1 / 4
    assert relevance.inside == {"res1": 1 / 4, "res3": 1 / 4, "exit": 1 / 4, "used": 1 / 4}
    assert relevance.outside == {"res1": 0, "res3": 0, "exit": 2 / 4, "used": 2 / 4}


@pytest.mark.parametrize("options", [{}, {"threshold": 0.8, "min_frames": 1}])
@pytest.mark.parametrize("seed", range(5))
def test_shares_add_to_one_and_agree_with_the_metrics(seed, options):
    rng = np.random.default_rng(seed)
    shape = 8, 6
    predictions = _create_predictions(
        rng.integers(0, 3, shape), rng.integers(0, 2, shape), 2 * rng.normal(size=(*shape, 2))
    )
    relevance = compute_relevance(predictions, **options)
    price = np.array([1.0, 2.0, 4.0])
    metrics = compute_metrics(predictions, prices=Prices(price, price), **options)
    assert sum(relevance.inside.values()) == pytest.approx(1)
    assert sum(relevance.outside.values()) == pytest.approx(1)
    assert relevance.share == pytest.approx(metrics["relevant"])
    assert relevance.precision == pytest.approx(metrics["kept_relevant"])
    # Inside and outside together they are the shares of all frames.
    names = {"exit": "exit", "used": "usage", "res1": "stop/res1", "res3": "stop/res3"}
    for name, metric in names.items():
        inside = relevance.share * relevance.inside[name]
        outside = (1 - relevance.share) * relevance.outside[name]
        assert inside + outside == pytest.approx(metrics[metric])
