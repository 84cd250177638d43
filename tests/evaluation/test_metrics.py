import dataclasses
import math
import warnings

import numpy as np
import pytest

from sofnet_jax.evaluation.metrics import (
    compute_answer,
    compute_fates,
    compute_map,
    compute_metrics,
    compute_observed,
    compute_top_k,
)
from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.base import Action, Prices
from sofnet_jax.systems.tsn import KEPT

_PRICES = Prices(np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 40.0]))
_ACTIONS = (Action("res1", False, False), Action("res3", False, False), KEPT)


def _create_predictions(labels, logits, action, relevant=None):
    """Of a network of two gates; action 2 is kept."""
    labels, action = np.array(labels, float), np.array(action)
    relevant = np.full(action.shape, np.nan) if relevant is None else np.array(relevant, float)
    return Predictions(
        ids=tuple(f"v{i}" for i in range(len(action))),
        labels=labels,
        logits=np.array(logits, float),
        time=np.tile(np.arange(action.shape[1]), (len(action), 1)),
        action=action,
        relevant=relevant,
        total=len(action) + 2,
        errors={"x": "y", "z": "y"},
        actions=_ACTIONS,
        pooling="mean",
    )


def _create_kept(logits, kept):
    """Predictions in which frames are kept, or stopped by the first gate or the second."""
    kept = np.array(kept)
    action = np.where(kept, 2, np.arange(kept.shape[1]) % 2)
    return _create_predictions(np.eye(logits.shape[2])[[0] * len(kept)], logits, action)


def _create_random(seed, videos=7, frames=6, classes=5):
    """Videos of random decisions with at least one kept frame each, all with relevance."""
    rng = np.random.default_rng(seed)
    action = rng.integers(0, 3, (videos, frames))
    action[np.arange(videos), rng.integers(0, frames, videos)] = 2
    labels = np.eye(classes)[rng.permutation(videos) % classes]
    logits = 3 * rng.normal(size=(videos, frames, classes))
    return _create_predictions(labels, logits, action, rng.random((videos, frames)) < 0.5)


def _measure(predictions, **options):
    return compute_metrics(predictions, prices=_PRICES, **options)


def _one_class(*probabilities):
    """Logits of two classes, (v, t, 2), that give the first this probability."""
    return np.array([[[math.log(p / (1 - p)), 0.0] for p in row] for row in probabilities])


def test_answer_by_hand():
    # Frame 1 was stopped; its scores, however large, do not count.
    logits = np.array([[[1.0, 0.0], [1e9, -1e9], [3.0, 1.0]]])
    p = _create_kept(logits, [[True, False, True]])
    fates = compute_fates(p)
    np.testing.assert_allclose(compute_answer(p, fates), [[2.0, 0.5]])
    # Frame 2 came after the end.
    ended = fates._replace(seen=np.array([[True, True, False]]))
    np.testing.assert_allclose(compute_answer(p, ended), [[1.0, 0.0]])


def test_answer_of_a_video_without_a_used_frame_is_zero():
    p = _create_kept(np.ones((1, 2, 3)), [[False, False]])
    np.testing.assert_array_equal(compute_answer(p, compute_fates(p)), [[0.0, 0.0, 0.0]])


def test_early_termination_waits_for_more_than_the_fewest_frames():
    # Sure from the first frame on. T̄ > 3: the fourth frame is the first that may end the video.
    logits = _one_class([0.99] * 6)
    p = _create_kept(logits, np.ones((1, 6), bool))
    for min_frames, observed in ((0, 1), (1, 2), (3, 4), (5, 6), (6, 6)):
        assert compute_observed(p, 0.9, min_frames) == [observed]


def test_early_termination_counts_stopped_frames_and_follows_kept_ones():
    logits = _one_class([0.99] * 6)
    kept = np.array(
        [
            # The third frame passes T_min = 2 but is not kept, neither is the fourth.
            [True, False, False, False, True, True],
            # The first kept frame is the third: T̄ = 3 counts the stopped ones.
            [False, False, True, True, True, True],
            # Nothing is kept after the second frame: to the end.
            [True, True, False, False, False, False],
        ]
    )
    observed = compute_observed(_create_kept(np.repeat(logits, 3, 0), kept), 0.9, 2)
    np.testing.assert_array_equal(observed, [5, 3, 6])


def test_early_termination_is_by_the_mean_of_kept_logits():
    # Log-odds log 1 = 0, then log 81, log 81: their means are 0, log 9 (0.9), 2/3 log 81 (0.949).
    # A frame that was stopped adds nothing.
    logits = _one_class([0.5, 81 / 82, 1e-9, 81 / 82, 0.5])
    p = _create_kept(logits, [[True, True, False, True, True]])
    for threshold, observed in ((0.4, 1), (0.89, 2), (0.91, 4), (0.94, 4), (0.96, 5)):
        assert compute_observed(p, threshold, 0) == [observed]


def test_probability_at_the_threshold_does_not_end_a_video():
    p = _create_kept(np.zeros((1, 3, 2)), np.ones((1, 3), bool))  # exactly 1/2
    assert compute_observed(p, 0.5, 0) == [3]
    assert compute_observed(p, float(np.nextafter(0.5, 0)), 0) == [1]


def test_top_k_by_hand():
    logits = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [3.0, 1.0, 2.0]])
    labels = np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 1, 1]])
    # Ranks of the best label: 1, 3, 2, 2 (the last video has two labels).
    assert compute_top_k(logits, labels, 1) == 1 / 4
    assert compute_top_k(logits, labels, 2) == 3 / 4
    assert compute_top_k(logits, labels, 5) == 1


def test_top_k_of_ties_takes_the_lower_class():
    logits = np.zeros((3, 3))
    assert compute_top_k(logits, np.eye(3), 1) == 1 / 3
    assert compute_top_k(logits, np.eye(3), 2) == 2 / 3


def test_map_by_hand():
    scores = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.5], [0.7, 0.3, 0.5]])
    # First class, best first: + - +, precision 1 and 2/3 at its positives. Second: - - +, so 1/3.
    # Third: none is positive, so it does not count.
    labels = np.array([[1.0, 1, 0], [0, 0, 0], [1, 0, 0]])
    assert compute_map(scores, labels) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 3) / 2)


def test_map_of_tied_scores():
    # Two positives among four equal scores: whatever the order, precision is 1/2 at that score.
    labels = np.array([[1.0], [0], [0], [1]])
    assert compute_map(np.full((4, 1), 0.3), labels) == pytest.approx(1 / 2)
    assert compute_map(np.full((4, 1), 0.3), labels[::-1]) == pytest.approx(1 / 2)


def test_map_ranks_probabilities():
    # The second video has the lower logit of the first class, yet is surer of it: 0.73 against 0.5.
    predictions = _create_predictions([[0, 1], [1, 0]], [[[10.0, 10.0]], [[1.0, 0.0]]], [[2], [2]])
    assert _measure(predictions)["map"] == 1


def test_metrics_by_hand():
    # Two videos of three frames; action 2 is kept. Answers: the first video's is that of its last
    # two frames, (1, 2, 0); the second's that of its only kept frame, (0, 3, 0).
    logits = [[[9, 0, 0], [2, 0, 0], [0, 4, 0]], [[9, 9, 0], [0, 3, 0], [7, 7, 9]]]
    predictions = _create_predictions(
        [[1, 0, 0], [0, 1, 0]], logits, [[0, 2, 2], [1, 2, 0]], [[1, 1, np.nan], [0, 1, 0]]
    )
    metrics = _measure(predictions)
    assert metrics == pytest.approx(
        {
            "top1": 1 / 2,
            "top5": 1.0,
            # First class: probabilities 0.24 (+) and 0.05. Second: 0.91 (+) and 0.67.
            "map": 1.0,
            "gflops_per_video": ((1 + 4 + 4) + (2 + 4 + 1)) / 2,
            "gflops_per_frame": 16 / 6,
            "gflops_per_video_full": 160 / 2,
            "gflops_per_frame_full": 160 / 6,
            "usage": 3 / 6,
            "exit": 0.0,
            "stop/res1": 2 / 6,
            "stop/res3": 1 / 6,
            # Of five frames of known relevance three are relevant, and both of the kept ones.
            "relevant": 3 / 5,
            "kept_relevant": 1.0,
            "evaluated": 2,
            "total": 4,
        }
    )


def test_metrics_with_early_termination_by_hand():
    # The first video is sure after its second frame (0.993 > 0.9); its third frame, which would
    # turn it to the second class, is never looked at. The second video never is that sure.
    logits = [[[0, 0], [5, 0], [0, 99]], [[1, 0], [0, 0], [0, 0]]]
    predictions = _create_predictions(
        [[1, 0], [1, 0]], logits, [[0, 2, 2], [2, 0, 1]], [[1, 0, 1], [1, 1, 1]]
    )
    metrics = _measure(predictions, threshold=0.9, min_frames=1)
    assert metrics["top1"] == 1
    assert metrics["gflops_per_video"] == ((1 + 4) + (4 + 1 + 2)) / 2
    assert metrics["gflops_per_frame"] == 12 / 6
    shares = {"usage": 2, "exit": 1, "stop/res1": 2, "stop/res3": 1}
    for name, count in shares.items():
        assert metrics[name] == pytest.approx(count / 6), name
    assert metrics["relevant"] == pytest.approx(5 / 6)  # a property of the data: of all frames
    assert metrics["kept_relevant"] == 1 / 2
    assert _measure(predictions)["top1"] == 1 / 2


def test_no_relevance_without_annotation():
    predictions = _create_predictions([[1, 0]], [[[1, 0]]], [[2]])
    assert not {"relevant", "kept_relevant"} & set(_measure(predictions))


def test_every_frame_is_kept_or_stopped_or_never_looked_at():
    exits = []
    for seed in range(20):
        for options in ({}, {"threshold": 0.8, "min_frames": 1}):
            metrics = _measure(_create_random(seed), **options)
            names = ("usage", "exit", "stop/res1", "stop/res3")
            assert min(metrics[name] for name in names) >= 0
            assert sum(metrics[name] for name in names) == pytest.approx(1)
        exits.append(metrics["exit"])
    assert max(exits) > 0.2


@pytest.mark.parametrize("seed", range(5))
def test_stricter_termination_never_looks_at_fewer_frames(seed):
    p = _create_random(seed)
    observed = [compute_observed(p, rho, 1) for rho in (0.5, 0.8, 0.99)]
    assert (np.diff(observed, axis=0) >= 0).all()
    # A probability never exceeds 1: no termination.
    assert _measure(p, threshold=1.0, min_frames=0) == pytest.approx(_measure(p))


@pytest.mark.parametrize("seed", range(5))
def test_order_of_the_videos_does_not_matter(seed):
    p = _create_random(seed)
    order = np.random.default_rng(seed).permutation(len(p.ids))
    arrays = {name: x[order] for name, x in vars(p).items() if isinstance(x, np.ndarray)}
    shuffled = dataclasses.replace(p, ids=tuple(p.ids[i] for i in order), **arrays)
    assert arrays.keys() == {"labels", "logits", "time", "action", "relevant"}
    options = {"threshold": 0.8, "min_frames": 1}
    assert _measure(shuffled, **options) == pytest.approx(_measure(p, **options))


def test_no_kept_frame_of_known_relevance():
    # Nothing can be said of the kept frames then; it is not a warning from a mean of nothing.
    predictions = _create_predictions([[1, 0]], [[[1, 0], [1, 0]]], [[0, 2]], [[1, np.nan]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = _measure(predictions)
    assert metrics["relevant"] == 1
    assert math.isnan(metrics.get("kept_relevant", math.nan))


@pytest.mark.parametrize("seed", range(5))
def test_order_in_which_frames_are_looked_at_does_not_matter_without_early_exit(seed):
    p = _create_random(seed)
    order = np.random.default_rng(seed).permuted(p.time, axis=1)
    videos = np.arange(len(order))[:, None]
    arrays = {"logits": p.logits[videos, order], "action": p.action[videos, order], "time": order}
    assert _measure(dataclasses.replace(p, **arrays)) == pytest.approx(_measure(p))


# A system that looks at frames out of order and answers with its last answer's logits; it sums up
# what it saw, so that there is no answer after `next`, and ends a video when it decides `exit`.
_LAST = (
    Action("first", True, True),
    Action("next", True, False),
    Action("exit", True, True),
    Action("last", True, True),
)
_LAST_PRICES = Prices(np.array([1.0, 2.0, 4.0, 8.0]), np.array([10.0, 20.0, 40.0, 80.0]))


def _create_last():
    """Two videos of four frames: one ends by itself after three, the other goes to the end.

    The largest probabilities are 0.79, -, 0.91 in the first and 0.58, -, -, 0.79 in the second;
    what has no answer, and what came after the end, would be surer.
    """
    none = [0.0, 0.0, 99.0]
    return Predictions(
        ids=("a", "b"),
        labels=np.array([[0.0, 1, 0], [1, 0, 0]]),
        logits=np.array(
            [
                [[2.0, 0, 0], none, [0, 3, 0], none],
                [[1.0, 0, 0], none, none, [0, 0, 2]],
            ]
        ),
        time=np.array([[0, 3, 1, 2], [3, 0, 2, 1]]),
        action=np.array([[0, 1, 2, -1], [0, 1, 1, 3]]),
        relevant=np.array([[0.0, 1, 1, 0], [0, 0, 0, 1]]),
        total=2,
        errors={},
        actions=_LAST,
        pooling="last",
    )


def test_observed_steps_where_the_last_answer_counts():
    for threshold, min_frames, observed in (
        (0.5, 0, [1, 1]),
        (0.7, 0, [1, 4]),
        (0.5, 1, [3, 4]),  # no answer after the second step and, in the second video, the third
        (0.5, 3, [3, 4]),
        (0.95, 0, [3, 4]),  # neither is that sure; the first has ended by itself
    ):
        np.testing.assert_array_equal(
            compute_observed(_create_last(), threshold, min_frames), observed
        )
    fates = compute_fates(_create_last())
    np.testing.assert_array_equal(fates.observed, [3, 4])
    for steps in (fates.used, fates.seen):
        np.testing.assert_array_equal(steps, [[True, True, True, False], [True] * 4])


def test_answer_is_the_last_one_where_that_counts():
    p = _create_last()
    for options, answer in (
        ({}, [[0, 3, 0], [0, 0, 2]]),
        ({"threshold": 0.7}, [[2, 0, 0], [0, 0, 2]]),
        ({"threshold": 0.5}, [[2, 0, 0], [1, 0, 0]]),
    ):
        np.testing.assert_array_equal(compute_answer(p, compute_fates(p, **options)), answer)
    # Cut short after its second step, a video has the answer of the first.
    fates = compute_fates(p)
    cut = fates._replace(seen=fates.seen & (np.arange(4) < 2))
    np.testing.assert_array_equal(compute_answer(p, cut), [[2, 0, 0], [1, 0, 0]])
    unanswered = dataclasses.replace(p, action=np.array([[1, 1, -1, -1], [1, 1, 1, 1]]))
    answer = compute_answer(unanswered, compute_fates(unanswered))
    np.testing.assert_array_equal(answer, np.zeros((2, 3)))


def test_metrics_where_the_last_answer_counts_by_hand():
    metrics = compute_metrics(_create_last(), prices=_LAST_PRICES)
    assert metrics == pytest.approx(
        {
            # The first video is recognised, the second is taken for the third class.
            "top1": 1 / 2,
            "top5": 1.0,
            # First class: probabilities 0.05 and 0.11 (+). Second: 0.91 (+) and 0.11.
            "map": 1.0,
            "gflops_per_video": ((1 + 2 + 4) + (1 + 2 + 2 + 8)) / 2,
            "gflops_per_frame": 20 / 8,
            "gflops_per_video_full": 200 / 2,
            "gflops_per_frame_full": 200 / 8,
            "usage": 7 / 8,  # every frame that was looked at
            "exit": 1 / 8,
            "relevant": 3 / 8,
            # Frames 0, 3, 1 of the first video, of which one is relevant; all of the second.
            "kept_relevant": 2 / 7,
            "evaluated": 2,
            "total": 2,
        }
    )
    early = compute_metrics(_create_last(), prices=_LAST_PRICES, threshold=0.7, min_frames=0)
    assert early["top1"] == 0
    assert early["gflops_per_video"] == (1 + (1 + 2 + 2 + 8)) / 2
    assert early["gflops_per_frame"] == 14 / 8
    assert (early["usage"], early["exit"]) == (5 / 8, 3 / 8)
    assert early["relevant"] == 3 / 8
    assert early["kept_relevant"] == 1 / 5
