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
    rule = Rule(0.8, min_frames)
    observed = []
    for video, keeps in zip(logits, kept, strict=True):
        consensus = Consensus(5, 4, rule)
        for frame, keep in zip(video, keeps, strict=True):
            consensus.keep(frame) if keep else consensus.stop(2)
            if consensus.ended:
                break
        observed.append(len(consensus.conclude().stop))
    expected = compute_observed(logits, kept, 0.8, min_frames)
    assert len(np.unique(expected)) > 4
    np.testing.assert_array_equal(observed, expected)


def test_both_bounds_are_exclusive():
    logits = np.log(np.float32([0.75, 0.25]))
    assert not Rule(0.75, 2).ends(np.float32([0, 0]), 3)
    assert Rule(0.7, 2).ends(logits, 3)
    assert not Rule(0.7, 3).ends(logits, 3)
    assert not Rule(0.5, 0).ends(np.float32([0, 0]), 3)
    assert not NEVER.ends(logits, 100)
