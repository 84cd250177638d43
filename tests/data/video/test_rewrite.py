"""Copies of a video with every frame drawn upon."""

from pathlib import Path

import numpy as np
import pytest

from sofnet_jax.data.video.decode import VideoError, read_frames
from sofnet_jax.data.video.rewrite import rewrite


def _copy(pixels, _):
    return pixels


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (96, 64)])
def test_odd_sizes_become_even(size, write_video, tmp_path):
    source = write_video(tmp_path / "a.mkv", range(3), codec="ffv1", pix_fmt="bgr0", size=(96, 96))
    width, height = size
    rewrite(source, tmp_path / "b.mp4", lambda p, _: p[:height, :width], short_side=0)
    frames, _ = read_frames(tmp_path / "b.mp4", np.arange)
    assert frames.shape == (3, height + height % 2, width + width % 2, 3)


def test_a_colon_in_the_name_of_a_copy(write_video, tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.mp4", range(3))
    monkeypatch.chdir(tmp_path)
    rewrite(source, Path("12:30.mp4"), _copy, short_side=0)
    assert len(read_frames("12:30.mp4", np.arange)[0]) == 3


def test_a_copy_does_not_replace_its_video(write_video, tmp_path):
    source = write_video(tmp_path / "a.mp4", range(3))
    before = source.read_bytes()
    with pytest.raises(VideoError, match="the copy would replace its video; give another name"):
        rewrite(source, source, _copy, short_side=0)
    assert source.read_bytes() == before
