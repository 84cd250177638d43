"""The quick way from JPEG to a crop gives what the plain way gives."""

import io

import numpy as np
import pytest
from PIL import Image

from sofnet_jax.data.prepared.record import Format, Task, create_record
from sofnet_jax.data.video.jpeg import JpegError, crop, decode_jpegs, encode_jpeg, to_rgb
from sofnet_jax.data.views import View, centre_view, finish, random_view, show


def _draw(height, width, seed=0):
    """A smooth picture with some edges, with colours as pale as a film's."""
    rng = np.random.default_rng(seed)
    grey, colour = rng.integers(20, 180, (6, 8, 1)), rng.integers(0, 50, (6, 8, 3))
    coarse = Image.fromarray((grey + colour).astype(np.uint8))
    image = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    image[height // 4 : height // 2, width // 3 : width // 2] = grey[0, 0] + colour[0, 0]
    return image


def _show(images, view):
    """What a view shows of JPEGs, the quick way."""
    return finish(crop(decode_jpegs(images), view.box, view.via or view.size), view)


def _decode_by_pillow(images):
    return np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in images])


def _differ(a, b):
    """Mean and largest difference, of 255."""
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    difference = np.abs(a.astype(int) - b)
    return difference.mean(), difference.max()


@pytest.mark.parametrize("size", [(256, 456), (256, 341), (97, 61), (144, 180), (64, 48), (1, 1)])
def test_frames_are_those_of_pillow(size):
    pictures = [_draw(*size, seed) for seed in range(3)]
    images = [encode_jpeg(picture, 90) for picture in pictures]
    mean, _ = _differ(to_rgb(decode_jpegs(images)), _decode_by_pillow(images))
    assert mean < 1.5


def test_quality_is_as_asked():
    picture = _draw(256, 456)
    sizes = [len(encode_jpeg(picture, quality)) for quality in (50, 90, 100)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2
    mean, _ = _differ(to_rgb(decode_jpegs([encode_jpeg(picture, 95)]))[0], picture)
    assert mean < 2


@pytest.mark.parametrize("source", [(256, 456), (256, 341), (455, 256), (144, 180), (97, 61)])
@pytest.mark.parametrize("size", [56, 112, 168, 192, 224])
def test_centre_is_that_of_the_plain_way(size, source):
    images = [encode_jpeg(_draw(*source), 90)]
    view = centre_view(*source, size)
    mean, _ = _differ(_show(images, view), show(_decode_by_pillow(images), view))
    assert mean < 1.5


@pytest.mark.parametrize("seed", range(40))
def test_random_crops_are_those_of_the_plain_way(seed):
    source = [(256, 456), (256, 341), (180, 144)][seed % 3]
    images = [encode_jpeg(_draw(*source, seed), 90)]
    size, rng = (168, 224)[seed % 2], np.random.default_rng(seed)
    view = random_view(*source, size, rng, scales=(1.0, 0.875, 0.75, 0.66), flip=True)
    fast = _show(images, view)
    mean, _ = _differ(fast, show(_decode_by_pillow(images), view))
    assert mean < 2
    left, top, right, bottom = view.box
    if not view.mirrored and right + 3 <= source[1]:  # another crop would be further away
        moved = View((left + 3, top, right + 3, bottom), size)
        assert _differ(fast, show(_decode_by_pillow(images), moved))[0] > mean


def test_a_view_may_go_by_way_of_another_size():
    images = [encode_jpeg(_draw(256, 456), 90)]
    view = centre_view(256, 456, 168, via=224)
    mean, _ = _differ(_show(images, view), show(_decode_by_pillow(images), view))
    assert mean < 1.5


def test_all_frames_are_shown_alike():
    frames = _show([encode_jpeg(_draw(120, 160), 90)] * 5, centre_view(120, 160, 112))
    assert frames.shape == (5, 112, 112, 3) and (frames == frames[:1]).all()


@pytest.mark.parametrize("data", [b"", b"no picture", encode_jpeg(_draw(16, 16), 90)[:40]])
def test_damaged_bytes_are_an_error_of_ours(data):
    with pytest.raises(JpegError, match="damaged JPEG"):
        decode_jpegs([data])


def test_frames_too_long_for_a_jpeg_are_a_problem_of_their_video(write_video, tmp_path):
    path = write_video(tmp_path / "a.mkv", range(2), codec="ffv1", size=(65536, 16))
    result = create_record(Task("a", (0,), str(path)), Format(2, 256, 90))
    [problem] = result.problems
    assert result.record is None and problem.kind == "unreadable"
    assert problem.detail == f"{path}: 65536×16 pixels; a JPEG has at most 65500 a side"
