import numpy as np
import pytest

from sofnet_jax.systems.frameexit.architecture import (
    EXIT,
    FIRST,
    LAST,
    NEXT,
    Architecture,
    create_architecture,
)

_SMALL = Architecture(
    3, "basic", (1, 1, 1, 1), 4, 3, num_frames=4, features=6, gate_features=(5, 2)
)


def test_published_cost():
    """ResNet-50 at 224 pixels, 200 classes: 26.1 GFLOPs are 6.335 frames, 19.7 are 4.782."""
    a = create_architecture("resnet50", num_classes=200, num_frames=10)
    paper = a.count_parts(224, full=False)
    mlp = 2048 * 4096 + 2 * 4096  # the linear layer alone is 0.00839
    assert round(2048 * 4096 / 1e9, 5) == 0.00839
    assert round(paper.frame - mlp / 1e9, 4) == 4.1095
    assert round(paper.gate, 5) == 0.00107
    assert round(paper.classifier, 5) == 0.00082
    first, next_, exit_, _ = paper.by_action
    for frames, published in ((6.335, 26.09), (4.782, 19.70)):
        assert round(first + (frames - 2) * next_ + exit_, 2) == published
    whole = a.prices(224).spend(np.array([FIRST, *[NEXT] * 8, LAST]))
    assert whole.paper == pytest.approx(41.2, abs=0.05)


def test_counts_by_hand():
    # The backbone's macs, BatchNorm and pointwise operations are those of SoF-Net's test: macs of
    # res1…res5, two per output element, ReLUs with sums and max-pool, the pool of 1×1×32.
    macs, norm, pool = 27648 + 18432 + 3 * 14336, 2 * (1024 + 512 + 384 + 192 + 96), 2 * 32
    pointwise = 1024 + 9 * 256 + 768 + 384 + 192 + 96
    mlp, classifier = 32 * 6 + 2 * 6, 6 * 3
    gate = 2 * (6 * 5 + 2 * 5 + 5 * 2 + 2 * 2) + 4
    paper, full = (_SMALL.count_parts(32, full=full) for full in (False, True))
    assert paper.frame == pytest.approx((macs + norm + pool + mlp) / 1e9, rel=1e-12)
    assert paper.gate == pytest.approx(gate / 1e9, rel=1e-12)
    assert paper.classifier == pytest.approx(classifier / 1e9, rel=1e-12)
    # ReLU and running maximum; ReLUs and sigmoid; softmax.
    assert full.frame == pytest.approx(paper.frame + (pointwise + 2 * 6) / 1e9, rel=1e-12)
    assert full.gate == pytest.approx((gate + 2 * (5 + 2) + 1) / 1e9, rel=1e-12)
    assert full.classifier == pytest.approx((classifier + 3) / 1e9, rel=1e-12)


def test_price_of_a_video_by_hand():
    # The gate of the last position is never asked, nor one at the first.
    trace = np.array([FIRST, NEXT, NEXT, LAST])
    for full, spent in zip((False, True), _SMALL.prices(32).spend(trace), strict=True):
        frame, gate, classifier = _SMALL.count_parts(32, full=full)
        assert spent == pytest.approx(4 * frame + 2 * gate + 2 * classifier)
    spent = _SMALL.prices(32).spend(np.array([FIRST, EXIT]))
    frame, gate, classifier = _SMALL.count_parts(32, full=False)
    assert spent.paper == pytest.approx(2 * frame + gate + 2 * classifier)
