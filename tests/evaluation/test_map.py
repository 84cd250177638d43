"""Mean average precision against its definition and the authors' released formula.

The released formula agrees with ours unless

- a class has no positives: its average precision is 0 there, and it does not count here, so that
  the classes of the split do not limit what a perfect network can reach;
- classes are absent: the labels that occur are renumbered 0, 1, 2, … there, but the columns of the
  scores are not, so that every class after an absent one is compared with the scores of another;
- scores tie: they are ranked one by one there, in whatever order the videos come, and are one
  threshold here, so that the order of the videos does not matter.
"""

import dataclasses

import numpy as np
import pytest

from sofnet_jax.evaluation.metrics import compute_map


@dataclasses.dataclass(frozen=True)
class _Case:
    """Class probabilities (v, n) and a row of up to three classes, padded with -1, per video."""

    scores: np.ndarray
    rows: np.ndarray

    @property
    def labels(self):
        return (self.rows[..., None] == np.arange(self.scores.shape[1])).any(1).astype(float)

    @property
    def present(self):
        return self.labels.any(0)

    @property
    def is_empty(self):
        return not self.present.all()

    @property
    def is_tied(self):
        return any(len(set(column)) < len(column) for column in self.scores.T)

    @property
    def reversed(self):
        return _Case(self.scores[::-1], self.rows[::-1])


def _create_case(rng):
    videos, classes = rng.integers(1, 41), rng.integers(2, 13)
    scores = rng.dirichlet(np.ones(classes), videos)
    if rng.random() < 1 / 3:
        scores = scores.round(1)
    # Some classes of every third case are left out on purpose; few videos leave out more by chance.
    used = rng.permutation(classes)
    if rng.random() < 1 / 3:
        used = used[: rng.integers(1, classes)]
    rows = np.full((videos, 3), -1)
    for row in rows:
        count = min(rng.integers(1, 4), len(used))
        row[:count] = rng.choice(used, count, replace=False)
    return _Case(scores, rows)


def _create_cases():
    rng = np.random.default_rng(0)
    return [_create_case(rng) for _ in range(1000)]


_CASES = _create_cases()
_EMPTY = np.array([case.is_empty for case in _CASES])
_TIED = np.array([case.is_tied for case in _CASES])


def _compute_ours(case):
    return compute_map(case.scores, case.labels)


def _compute_by_definition(case):
    """Mean over the classes with positives of Σ (R_i - R_{i-1}) P_i over distinct thresholds."""
    precisions = []
    for scores, truth in zip(case.scores.T, case.labels.T, strict=True):
        if not truth.any():
            continue
        ap = recall = 0.0
        for threshold in sorted(set(scores), reverse=True):
            found = scores >= threshold
            hits = truth[found].sum()
            ap += (hits / truth.sum() - recall) * hits / found.sum()
            recall = hits / truth.sum()
        precisions.append(ap)
    return sum(precisions) / len(precisions)


def _compute_released(case, renumber=True):
    """The authors' formula; of tied scores, the earlier video comes first."""
    rows = case.rows
    if renumber:
        occurring = np.unique(rows[rows >= 0])
        rows = np.where(rows >= 0, np.searchsorted(occurring, rows), -1)
    precisions = []
    for k, scores in enumerate(case.scores.T):
        truth = (rows == k).any(1)[np.argsort(-scores, kind="stable")]
        precision = truth.cumsum() / np.arange(1, len(truth) + 1)
        precisions.append(precision[truth].sum() / max(truth.sum(), 1))
    return np.mean(precisions)


def _compute_each(compute, chosen=None, **options):
    chosen = range(len(_CASES)) if chosen is None else np.flatnonzero(chosen)
    return np.array([compute(_CASES[i], **options) for i in chosen])


def _assert_equal(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def ours():
    return _compute_each(_compute_ours)


def test_cases_are_of_every_kind():
    # Otherwise the laws below would say little.
    for empty in (_EMPTY, ~_EMPTY):
        for tied in (_TIED, ~_TIED):
            assert (empty & tied).sum() > 100
    assert (~_EMPTY & ~_TIED).sum() > 200
    assert sum((case.labels.sum(1) > 1).any() for case in _CASES) > 800


def test_map_is_its_definition(ours):
    _assert_equal(ours, _compute_each(_compute_by_definition))


def test_map_is_the_released_one_without_empty_classes_and_ties(ours):
    plain = ~_EMPTY & ~_TIED
    _assert_equal(ours[plain], _compute_each(_compute_released, plain))


def test_empty_class_counts_as_zero_in_the_released_map(ours):
    # Without ties this is all: theirs is ours times the share of the classes with positives.
    chosen = _EMPTY & ~_TIED
    share = _compute_each(lambda case: case.present.mean(), chosen)
    _assert_equal(ours[chosen] * share, _compute_each(_compute_released, chosen, renumber=False))


def test_absent_class_shifts_the_others_in_the_released_map():
    # The first class is absent; both videos are surest of their class, and surer than the other.
    case = _Case(np.array([[0.1, 0.8, 0.1], [0.2, 0.1, 0.7]]), np.array([[1, -1, -1], [2, -1, -1]]))
    assert _compute_ours(case) == 1
    # One class of three counts as 0.
    assert _compute_released(case, renumber=False) == pytest.approx((0 + 1 + 1) / 3)
    # Class 1 is ranked by the scores of class 0, 0.1 (+) and 0.2, and class 2 by those of class 1,
    # 0.8 and 0.1 (+): the positive comes second in both. Nothing is left for the last column.
    assert _compute_released(case) == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


def test_order_of_tied_videos_changes_the_released_map():
    # A network that says the same of all videos: precision is the share of positives, whatever the
    # order, and we say so. In this order the ranks are + - - and - + +, reversed - - + and + + -.
    case = _Case(np.full((3, 2), 0.5), np.array([[0, -1, -1], [1, -1, -1], [1, -1, -1]]))
    for ordered in (case, case.reversed):
        assert _compute_ours(ordered) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert _compute_released(case) == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)
    assert _compute_released(case.reversed) == pytest.approx((1 / 3 + 1) / 2)


def test_order_of_the_videos_matters_only_to_the_released_map_and_only_with_ties(ours):
    _assert_equal(ours[_TIED], _compute_each(lambda case: _compute_ours(case.reversed), _TIED))
    theirs = _compute_each(_compute_released)
    theirs_reversed = _compute_each(lambda case: _compute_released(case.reversed))
    _assert_equal(theirs[~_TIED], theirs_reversed[~_TIED])
    assert (abs(theirs - theirs_reversed)[_TIED] > 1e-3).mean() > 0.5
