import math

import numpy as np
import pytest

from sofnet_jax.evaluation.metrics import compute_metrics
from sofnet_jax.report.gates import compute_relevance
from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.sofnet.costs import Cost

_NAMES = ("res1", "res3")
_NAN = math.nan


def _create_predictions(stop, relevant, frame_logits=None):
    """Stop 2 is kept."""
    stop, relevant = np.array(stop), np.array(relevant, float)
    logits = np.zeros((*stop.shape, 2)) if frame_logits is None else frame_logits
    ids = tuple(f"v{i}" for i in range(len(stop)))
    return Predictions(ids, np.eye(2)[[0] * len(stop)], logits, stop, relevant, len(stop), {})


def test_relevance_by_hand():
    predictions = _create_predictions(
        [[0, 2, 2, 1, 2], [2, 0, 1, 0, 2]], [[1, 1, 1, 1, 0], [1, 0, 0, 0, 0]]
    )
    relevance = compute_relevance(predictions, _NAMES)
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
    relevance = compute_relevance(predictions, _NAMES, threshold=0.9, min_frames=2)
    assert relevance.share == 3 / 6
    assert relevance.precision == 1 / 2
    assert relevance.recall == 1 / 3
    assert relevance.inside == {"res1": 0, "res3": 1 / 3, "exit": 1 / 3, "used": 1 / 3}
    assert relevance.outside == {"res1": 1 / 3, "res3": 0, "exit": 1 / 3, "used": 1 / 3}
    # Without it all are.
    assert compute_relevance(predictions, _NAMES).recall == 2 / 3


def test_frames_of_unknown_relevance_do_not_count():
    stop = [[2, 0, 2, 1], [2, 2, 2, 0]]
    known = compute_relevance(_create_predictions(stop[:1], [[1, 1, 0, 0]]), _NAMES)
    relevant = [[1, 1, 0, 0], [_NAN] * 4]
    assert compute_relevance(_create_predictions(stop, relevant), _NAMES) == known


def test_nothing_annotated():
    assert compute_relevance(_create_predictions([[2, 0]], [[_NAN, _NAN]]), _NAMES) is None


def test_no_frame_to_take_a_share_of():
    # None is outside, and no frame of known relevance was kept.
    relevance = compute_relevance(_create_predictions([[0, 1, 2]], [[1, 1, _NAN]]), _NAMES)
    assert relevance.share == 1
    assert math.isnan(relevance.precision)
    assert relevance.recall == 0
    assert all(map(math.isnan, relevance.outside.values()))


def test_network_without_gates_uses_all_frames():
    relevance = compute_relevance(_create_predictions([[0, 0, 0, 0]], [[1, 0, 0, 0]]), ())
    assert relevance.precision == relevance.share == 1 / 4
    assert relevance.inside == relevance.outside == {"exit": 0, "used": 1}


@pytest.mark.parametrize("options", [{}, {"threshold": 0.8, "min_frames": 1}])
@pytest.mark.parametrize("seed", range(5))
def test_shares_add_to_one_and_agree_with_the_metrics(seed, options):
    rng = np.random.default_rng(seed)
    shape = 8, 6
    predictions = _create_predictions(
        rng.integers(0, 3, shape), rng.integers(0, 2, shape), 2 * rng.normal(size=(*shape, 2))
    )
    relevance = compute_relevance(predictions, _NAMES, **options)
    cost = Cost((1.0, 2.0), 4.0)
    metrics = compute_metrics(predictions, gate_names=_NAMES, costs=(cost, cost), **options)
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
