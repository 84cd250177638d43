from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from sofnet_jax.data.views import (
    centre_box,
    centre_view,
    multi_scale_box,
    random_view,
    regular_indices,
    resize,
    segment_indices,
    show,
)

_SCALES = (1.0, 0.875, 0.75, 0.66)


def _gradient(height, width, frames=2):
    """Red is the column, green the row, blue the frame."""
    rows, columns = np.mgrid[:height, :width]
    blue = np.zeros_like(rows)
    return np.stack([np.stack([columns, rows, blue + t], -1) for t in range(frames)]).astype(
        np.uint8
    )


def _centre(frames, size, via=0):
    return show(frames, centre_view(*frames.shape[1:3], size, via))


def _augment(frames, size, seed, **options):
    rng = np.random.default_rng(seed)
    return show(frames, random_view(*frames.shape[1:3], size, rng, **options))


def test_resize_of_a_gradient():
    # Each of 4 output columns covers 10 columns of the box, which begins at column 20. The filter
    # is symmetric, so the mean of the columns 20..29 comes out: 24.5, then 34.5, ...
    out = resize(_gradient(100, 120), (20, 40, 60, 80), 4)
    assert out.shape == (2, 4, 4, 3) and out.dtype == np.uint8
    assert abs(out[0, 0, :, 0] - np.array([24.5, 34.5, 44.5, 54.5])).max() <= 0.5
    assert abs(out[1, :, 2, 1] - np.array([44.5, 54.5, 64.5, 74.5])).max() <= 0.5
    assert (out[1, ..., 2] == 1).all()


def test_resize_is_antialiased():
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 200
    assert abs(resize(stripes, (16, 16, 48, 48), 4).astype(int) - 100).max() <= 3


def test_multi_scale_boxes_are_those_of_tsn():
    # 100 x 160: the short side is 100, the sides of a crop 100, 87, 75, 66 and neighbours of these.
    # The offsets are multiples of a quarter of the room left: (160 - 87) // 4 = 18 for width 87.
    rng = np.random.default_rng(0)
    boxes = [multi_scale_box(100, 160, _SCALES, rng) for _ in range(5000)]
    sizes = Counter((bottom - top, right - left) for left, top, right, bottom in boxes)
    sides = (100, 87, 75, 66)
    assert set(sizes) == {
        (a, b) for a in sides for b in sides if abs(sides.index(a) - sides.index(b)) <= 1
    }
    # Ten pairs of sides, 500 expected of each, deviation 21.
    assert all(abs(count - 500) < 110 for count in sizes.values())
    corners = {(x, y) for x, y, right, bottom in boxes if (right - x, bottom - y) == (87, 87)}
    # Room 73 and 13: steps 18 and 3. Corners and centre, middles of sides, centres of quarters.
    assert corners == {
        *((0, 0), (72, 0), (0, 12), (72, 12), (36, 6)),
        *((0, 6), (72, 6), (36, 12), (36, 0)),
        *((18, 3), (54, 3), (18, 9), (54, 9)),
    }


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 500), (97, 61), (240, 320)])
def test_multi_scale_boxes_lie_inside(height, width):
    rng = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = multi_scale_box(height, width, _SCALES, rng)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_centre_box():
    # 240 x 320 to 168: the short side becomes 192, the long side 256. Of 192 x 256 the rows 12..180
    # and columns 44..212 stay: times 240 / 192 = 1.25 these are the rows 15..225, columns 55..265.
    assert centre_box(240, 320, 168) == (55, 15, 265, 225)


@pytest.mark.parametrize(("height", "width"), [(240, 320), (361, 203), (97, 61), (50, 50)])
def test_centre_crop_equals_resizing_then_cropping(height, width):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (height, width, 3), np.uint8)
    scaled = [round(side * 64 / min(height, width)) for side in (width, height)]
    left, top = ((side - 56) // 2 for side in scaled)
    image = Image.fromarray(frame).resize(scaled, Image.Resampling.BILINEAR)
    expected = np.asarray(image.crop((left, top, left + 56, top + 56)))
    assert abs(_centre(frame[None], 56)[0].astype(int) - expected).max() <= 1  # of 255: rounding


def test_augment_treats_all_frames_alike():
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 60, 80, 3), np.uint8), 5, 0)
    for seed in range(8):
        out = _augment(frames, 32, seed, scales=_SCALES, flip=True)
        assert out.shape == (5, 32, 32, 3) and out.dtype == np.uint8
        assert (out == out[:1]).all()


def test_flip_mirrors_half_of_the_videos():
    frames = _gradient(60, 80)
    out = [_augment(frames, 16, s, scales=(1.0,), flip=True) for s in range(400)]
    mirrored = [bool(o[0, 8, 0, 0] > o[0, 8, -1, 0]) for o in out]
    assert 150 < sum(mirrored) < 250  # 200 expected, deviation 10
    for seed in range(20):
        straight = _augment(frames, 16, seed, scales=(1.0,), flip=False)
        expected = straight[:, :, ::-1] if mirrored[seed] else straight
        assert np.array_equal(out[seed], expected)


def _resize_in_pytorch(square, size):
    pixels = torch.from_numpy(square.copy()).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(pixels, size=(size, size), mode="nearest")
    return resized.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("size", [160, 168, 192, 224])
def test_nearest_pixels_of_a_square_are_those_of_pytorch(size):
    frames = np.random.default_rng(0).integers(0, 256, (2, 256, 340, 3)).astype(np.uint8)
    square = _centre(frames, 224)
    np.testing.assert_array_equal(_centre(frames, size, via=224), _resize_in_pytorch(square, size))
    for seed in range(4):  # some of them mirrored
        options = {"scales": (1.0, 0.75), "flip": True}
        square = _augment(frames, 224, seed, **options)
        nearest = _augment(frames, size, seed, **options, via=224)
        np.testing.assert_array_equal(nearest, _resize_in_pytorch(square, size))


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
