"""One video and stored scores of many end early at the same frame (Eq. 7)."""

import numpy as np
import pytest

from sofnet_jax.evaluation.metrics import compute_observed
from sofnet_jax.systems.early_exit import NEVER, Consensus, Rule


@pytest.mark.parametrize("min_frames", [0, 3])
def test_consensus_and_evaluation_end_at_the_same_frame(min_frames):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40, 8, 4)).astype(np.float32)
    kept = rng.random((40, 8)) < 0.6
    rule = Rule(0.7, min_frames)
    observed = []
    for video, keeps in zip(logits, kept, strict=True):
        consensus = Consensus(5, 4, rule)
        for frame, keep in zip(video, keeps, strict=True):
            consensus.keep(frame) if keep else consensus.stop(2)
            if consensus.ended:
                break
        observed.append(len(consensus.conclude().stop))
    expected = compute_observed(logits, kept, 0.7, min_frames)
    assert len(np.unique(expected)) > 4
    np.testing.assert_array_equal(observed, expected)


def test_both_bounds_are_exclusive():
    even = np.zeros(2, np.float32)  # a largest probability of exactly 1/2
    assert Rule(0.49, 2).ends(even, 3)
    assert not Rule(0.5, 2).ends(even, 3)
    assert not Rule(0.49, 3).ends(even, 3)
    assert not NEVER.ends(even, 100)
