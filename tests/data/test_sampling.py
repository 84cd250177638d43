import numpy as np
import pytest

from sofnet_jax.data.views import regular_indices, segment_indices


@pytest.mark.parametrize(
    ("num_available", "num_frames", "expected"),
    [
        # Segments of 64 / 8 = 8 frames: their centres are 4, 12, ...
        (64, 8, [4, 12, 20, 28, 36, 44, 52, 60]),
        # Segments of 2.5: centres 1.25, 3.75, 6.25, 8.75.
        (10, 4, [1, 3, 6, 8]),
        (4, 4, [0, 1, 2, 3]),
        (3, 1, [1]),
        # Fewer frames than asked, segments of 3 / 4: centres .375, 1.125, 1.875, 2.625.
        (3, 4, [0, 1, 1, 2]),
        (1, 5, [0, 0, 0, 0, 0]),
    ],
)
def test_centres(num_available, num_frames, expected):
    assert segment_indices(num_available, num_frames, None).tolist() == expected


@pytest.mark.parametrize("num_available", [1, 2, 3, 7, 16, 17, 100, 1001])
@pytest.mark.parametrize("num_frames", [1, 3, 8, 16])
def test_random_frames_lie_in_their_segments(num_available, num_frames):
    rng = np.random.default_rng(0)
    edges = np.arange(num_frames + 1) * num_available / num_frames
    for _ in range(50):
        indices = segment_indices(num_available, num_frames, rng)
        assert indices.shape == (num_frames,) and indices.dtype == np.int64
        assert (indices >= np.floor(edges[:-1])).all() and (indices < edges[1:]).all()
        assert (np.diff(indices) >= 0).all()


def test_every_frame_of_a_segment_is_equally_likely():
    rng = np.random.default_rng(0)
    draws = np.stack([segment_indices(12, 3, rng) for _ in range(4000)])
    counts = np.bincount(draws.ravel(), minlength=12)  # 1000 expected, deviation 27
    assert (abs(counts - 1000) < 130).all()


def test_rounding_up_never_leaves_the_video():
    class Last(np.random.Generator):
        def random(self, size):
            return np.full(size, np.nextafter(1.0, 0.0))

    rng = Last(np.random.PCG64(0))
    assert segment_indices(7, 10**6, rng)[-1] == 6


@pytest.mark.parametrize(
    ("times", "start", "end", "expected"),
    [
        (np.arange(40) / 10, 0.0, 4.0, [5, 15, 25, 35]),  # the centres are at 0.5, 1.5, 2.5, 3.5 s
        (np.arange(40) / 10, 1.05, 3.05, [16, 26]),  # 1.55 and 2.55 s
        (np.arange(40) / 10, 0.0, 3.2, [5, 15, 25, 35]),  # of the last second only a part
        (np.arange(4) * 2.0, 0.0, 8.0, [1, 2, 3]),  # a frame for two centres; none after 6 s
        (np.arange(40) / 10 + 100, 100.0, 104.0, [5, 15, 25, 35]),
        (np.arange(3) / 10, 0.0, 0.3, []),
    ],
)
def test_regular_indices_are_those_from_the_centres_on(times, start, end, expected):
    assert regular_indices(times, start, end, 1.0).tolist() == expected


def test_regular_indices_of_intervals_that_no_float_is():
    # 16 intervals of a 16th of ten seconds, wherever they begin.
    times = np.arange(4000) / 30
    for start in np.arange(0, 100, 0.7):
        end = start + 10.0
        assert len(regular_indices(times, start, end, (end - start) / 16)) == 16
