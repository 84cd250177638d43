"""Layers of several frames at once: the loop's decisions, and what it costs."""

import jax
import numpy as np
import pytest
from gated_network import FRAMES, SIZE, draw_videos
from laws import TOLERANCE, VIDEOS, read, run_ahead, run_online
from specimens import create_specimen

from sofnet_jax.inference.lookahead import LookAhead
from sofnet_jax.systems.early_exit import NEVER, Rule


@pytest.fixture(scope="module")
def network():
    return create_specimen("sofnet").network


@pytest.mark.parametrize("length", [1, 3, FRAMES, 20])
def test_any_chunk_decides_as_the_loop(network, length):
    whole = draw_videos(VIDEOS)
    for videos in (whole, whole[:, :1]):  # the only frame is kept, even where a gate stops it
        for rule in (NEVER, Rule(0.0, 3)):
            expected = list(run_online(network, videos, rule))
            found = list(run_ahead(network, videos, rule, length))
            logits, steps = read(found)
            expected_logits, expected_steps = read(expected)
            assert steps == expected_steps
            np.testing.assert_allclose(logits, expected_logits, atol=TOLERANCE)
            assert [r.ended for r in found] == [r.ended for r in expected]


def test_with_one_frame_layers_run_as_often_as_in_the_loop(network):
    videos = draw_videos(VIDEOS)
    ahead = LookAhead(network, NEVER, 1)
    for video in videos:
        result, computed = ahead.recognize(video, len(video))
        expected = [(result.trace.action >= k).sum() for k in range(network.num_gates + 1)]
        assert computed.tolist() == expected


def test_no_frame_after_the_end_of_a_chunk_is_read(network):
    rule = Rule(0.0, 0)
    video = next(v for v in draw_videos(20) if len(next(run_online(network, [v], rule)).trace) < 3)
    read_so_far = []

    def count():
        for pixels in video:
            read_so_far.append(pixels)
            yield pixels

    LookAhead(network, rule, 4).recognize(count())
    assert len(read_so_far) == 4


def test_nothing_compiles_after_the_warm_up(network):
    compiled = []

    def listen(event, duration, **_):
        if "compile" in event:
            compiled.append(event)

    ahead = LookAhead(network, NEVER, 3)
    ahead.warm_up(SIZE, SIZE)
    ahead.recognize(draw_videos(1)[0])
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for video in draw_videos(5):
            ahead.recognize(video)
        assert not compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_what_is_no_video_is_refused(network):
    ahead = LookAhead(network, NEVER, 2)
    with pytest.raises(ValueError, match="no frame was looked at"):
        ahead.recognize([])
    with pytest.raises(ValueError, match="make them one"):
        ahead.recognize([np.zeros((SIZE, SIZE, 3), np.uint8), np.zeros((SIZE, 8, 3), np.uint8)])
    with pytest.raises(ValueError, match="float"):
        ahead.recognize(draw_videos(1)[0].astype(float))
