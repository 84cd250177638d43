import dataclasses

import numpy as np
import pytest
from scipy.special import softmax
from sweep_folder import VIDEOS, create_base, write_method

from sofnet_jax.evaluation.metrics import compute_map, compute_top_k
from sofnet_jax.host.errors import UserError
from sofnet_jax.report.bootstrap import (
    Difference,
    Scored,
    compute_difference,
    compute_weighted_accuracy,
)
from sofnet_jax.report.collection import choose_collection, load_collections

_METRICS = ("top1", "map")


def _name(count):
    return tuple(f"v{i:04}" for i in range(count))


def _create_scored(seed, videos=30, classes=4, tied=False):
    """Videos of one to three labels; some classes may be without."""
    rng = np.random.default_rng(seed)
    labels = np.eye(classes)[rng.integers(0, classes, (videos, 3))].max(1)
    logits = 2 * rng.normal(size=(videos, classes)) + labels
    if tied:
        logits = rng.integers(0, 2, (videos, classes)).astype(float)
    return Scored(_name(videos), labels, logits)


def _create_correct(correct):
    """Videos of two classes by turns, of which these are classified correctly."""
    labels = np.eye(2)[np.arange(len(correct)) % 2]
    logits = np.where(np.array(correct)[:, None], labels, 1 - labels)
    return Scored(_name(len(correct)), labels, logits)


def _reorder(scored, order):
    ids = tuple(scored.ids[i] for i in order)
    return Scored(ids, scored.labels[order], scored.logits[order])


def _draw_weights(seed, rows, videos):
    """Fractions; a third of them 0."""
    rng = np.random.default_rng(seed)
    return rng.random((rows, videos)) * rng.integers(0, 3, (rows, videos))


def _compute_by_definition(truth, scores, weights):
    """Σ (R_i - R_{i-1}) P_i over distinct thresholds, every video counted by its weight."""
    ap = recall = 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = (scores >= threshold) * weights
        if found.sum():
            now = found @ truth / (weights @ truth)
            ap += (now - recall) * (found @ truth) / found.sum()
            recall = now
    return ap


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_map_is_its_definition_with_weights(seed, tied):
    scored, weights = _create_scored(seed, tied=tied), _draw_weights(seed, 6, 30)
    scores = softmax(scored.logits, axis=-1)
    expected = []
    for row in weights:
        present = [c for c in range(4) if row @ scored.labels[:, c] > 0]
        each = [_compute_by_definition(scored.labels[:, c], scores[:, c], row) for c in present]
        expected.append(np.mean(each))
    np.testing.assert_allclose(
        compute_weighted_accuracy(scored, weights, "map"), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_weight_is_a_number_of_copies(seed, tied):
    # Weights of 1 among them: then the accuracies are those of the metrics. More rows than are
    # worked on at a time.
    scored = _create_scored(seed, tied=tied)
    copies = np.random.default_rng(seed).integers(0, 4, (150, 30))
    copies[0] = 1
    top1, mean_ap = (compute_weighted_accuracy(scored, copies.astype(float), m) for m in _METRICS)
    for i in (0, 1, 127, 128, 149):
        logits, labels = (np.repeat(x, copies[i], axis=0) for x in (scored.logits, scored.labels))
        assert top1[i] == pytest.approx(compute_top_k(logits, labels, 1), abs=1e-12)
        expected = compute_map(softmax(logits, axis=-1), labels)
        assert mean_ap[i] == pytest.approx(expected, abs=1e-12)


def test_accuracy_by_hand():
    labels = np.array([[1.0, 0], [0, 1], [1, 0]])
    logits = np.array([[3.0, 0], [2, 0], [1, 0]])
    weights = np.array([[1.0, 1, 1], [1, 3, 2], [1, 2, 0], [0, 4, 0]])
    scored = Scored(_name(3), labels, logits)
    top1 = compute_weighted_accuracy(scored, weights, "top1")
    np.testing.assert_allclose(top1, [2 / 3, 3 / 6, 1 / 3, 0])
    # First class, best first: + - +. Its precisions at the positives are 1 and 2/3; with weights
    # 1, 3, 2 they are 1 and 3/6, of which the second counts twice; then only the first is left,
    # then none. Second class, best first: - + -, where the first of these is the third video.
    expected = [
        ((1 + 2 / 3) / 2 + 1 / 2) / 2,
        ((1 + 2 * 3 / 6) / 3 + 3 / 5) / 2,
        (1 + 1) / 2,
        1,
    ]
    np.testing.assert_allclose(compute_weighted_accuracy(scored, weights, "map"), expected)


def test_map_where_no_label_has_weight():
    scored = Scored(_name(2), np.array([[1.0, 0], [0, 0]]), np.zeros((2, 2)))
    weights = np.array([[0.0, 2], [1, 1]])
    np.testing.assert_array_equal(compute_weighted_accuracy(scored, weights, "map"), [np.nan, 0.5])


@pytest.mark.parametrize("early", [False, True])
def test_scored_are_the_videos_of_the_metrics(early, tmp_path):
    base = create_base(**{"eval.threshold": 0.8, "eval.min_frames": 1})
    write_method(tmp_path, "sofnet", base=base)
    [run] = choose_collection(load_collections(tmp_path)).find("sofnet")
    assert run.metrics(True)["exit"] > 0
    for metric in _METRICS:
        accuracy = compute_weighted_accuracy(run.score(early), np.ones((1, VIDEOS)), metric)
        assert accuracy == pytest.approx(run.metrics(early)[metric])


def test_difference_is_that_of_the_means_over_seeds():
    # 3/4 and 1/4, so 1/2 on average, against 1/4.
    a = [_create_correct([1, 1, 1, 0]), _create_correct([0, 0, 0, 1])]
    difference = compute_difference(a, [_create_correct([1, 0, 0, 0])], "top1")
    assert difference.mean == 1 / 4
    assert difference.low < 1 / 4 < difference.high


@pytest.mark.parametrize("metric", _METRICS)
def test_methods_change_sides(metric):
    a, b = [_create_scored(0)], [dataclasses.replace(_create_scored(0), logits=np.eye(30, 4))]
    there, back = compute_difference(a, b, metric), compute_difference(b, a, metric)
    values = (there.mean, there.low, there.high)
    assert values == pytest.approx((-back.mean, -back.high, -back.low))


@pytest.mark.parametrize("metric", _METRICS)
def test_method_does_not_differ_from_itself(metric):
    # Both are measured on the same resamples, so that not even the interval has a width.
    a = [_create_scored(0)]
    difference = compute_difference(a, a, metric)
    assert difference == Difference(0.0, 0.0, 0.0)


def test_width_is_that_of_a_paired_difference():
    # Of 500 videos 60 are correct only in `a`, 25 only in `b`: the difference of a video is 1, -1
    # or 0, with mean 35/500 and variance 85/500 - (35/500)².
    correct = np.arange(500)
    a = _create_correct((correct < 60) | (correct >= 200))
    b = _create_correct(((correct >= 60) & (correct < 85)) | (correct >= 200))
    difference = compute_difference([a], [b], "top1", resamples=4000)
    error = np.sqrt((85 / 500 - (35 / 500) ** 2) / 500)
    assert difference.mean == pytest.approx(35 / 500)
    assert difference.low == pytest.approx(35 / 500 - 1.96 * error, abs=0.1 * error)
    assert difference.high == pytest.approx(35 / 500 + 1.96 * error, abs=0.1 * error)
    assert difference.low > 0


def test_interval_covers_the_true_difference_in_95_of_100_samples():
    # A video is equally hard for both methods: `a` has 0.1 more in the whole population. The
    # standard deviation of the share that is covered is √(0.95 · 0.05 / 400) = 0.011.
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        ease = rng.random(80) * 0.9
        a, b = (_create_correct(rng.random(80) < p) for p in (ease + 0.1, ease))
        difference = compute_difference([a], [b], "top1", resamples=200)
        covered.append(difference.low <= 0.1 <= difference.high)
    assert 0.90 < np.mean(covered) < 0.98


@pytest.mark.parametrize("metric", _METRICS)
def test_order_of_the_videos_does_not_matter(metric):
    a, b = _create_scored(0), dataclasses.replace(_create_scored(0), logits=np.eye(30, 4))
    shuffled = [_reorder(b, np.random.default_rng(seed).permutation(30)) for seed in (1, 2)]
    assert compute_difference([a], shuffled, metric) == compute_difference([a], [b, b], metric)


@pytest.mark.parametrize("metric", _METRICS)
def test_only_common_videos_count(metric):
    a, b = _create_scored(0), dataclasses.replace(_create_scored(0), logits=np.eye(30, 4))
    common = np.arange(5, 20)
    expected = compute_difference([_reorder(a, common)], [_reorder(b, common)], metric)
    runs = [_reorder(a, np.arange(20))], [_reorder(b, np.arange(5, 30)), b]
    assert compute_difference(*runs, metric) == expected


def test_seed_decides_the_interval():
    a, b = [_create_scored(0)], [dataclasses.replace(_create_scored(0), logits=np.eye(30, 4))]
    first, again, other = (compute_difference(a, b, "map", seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.mean == other.mean
    assert (first.low, first.high) != (other.low, other.high)


def test_what_cannot_be_compared():
    a = _create_correct([1, 0, 1])
    with pytest.raises(UserError, match="the runs have no video in common"):
        compute_difference([a], [dataclasses.replace(a, ids=("x", "y", "z"))], "top1")
    with pytest.raises(UserError, match="the labels of 'v0000' differ"):
        compute_difference([a], [dataclasses.replace(a, labels=1 - a.labels)], "top1")
    with pytest.raises(UserError, match="have 2 and 4 classes"):
        compute_difference([a], [_create_scored(0)], "top1")
