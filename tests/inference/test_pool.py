"""Videos in a pool on the device: as in the loop, whatever else is in the pool."""

import jax
import numpy as np
import pytest
from gated_network import FRAMES, SIZE, draw_videos
from laws import TOLERANCE, VIDEOS, read, run_lockstep, run_online, run_pool
from specimens import create_specimen

from sofnet_jax.inference import batch_size as batch_size_module
from sofnet_jax.inference import many
from sofnet_jax.inference.batch_size import choose_batch_size
from sofnet_jax.inference.lockstep import Lockstep
from sofnet_jax.inference.pool import Pool
from sofnet_jax.systems.early_exit import NEVER, Rule

WAYS = (1, 1), (3, 5), (16, 64)  # frames that pass a span, and videos that arrive, together


@pytest.fixture(scope="module")
def network():
    return create_specimen("sofnet").network


def check(network, videos, rule, *way):
    found = run_pool(network, videos, rule, *way)
    expected = list(run_online(network, videos, rule))
    logits, steps = read(found)
    expected_logits, expected_steps = read(expected)
    assert steps == expected_steps
    np.testing.assert_allclose(logits, expected_logits, atol=TOLERANCE)
    for result, other in zip(found, expected, strict=True):
        assert result.ended == (other.ended and len(other.trace) < FRAMES)
        np.testing.assert_allclose(result.scores, other.scores, atol=TOLERANCE)
    return steps


@pytest.mark.parametrize("way", WAYS)
def test_company_changes_nothing(network, way):
    videos = list(draw_videos(3 * VIDEOS))
    for rule in (NEVER, Rule(0.0, 3)):  # to the end, and ended at the first allowed frame
        steps = check(network, videos, rule, *way)
        actions = {action for own in steps for _, action in own}
        assert actions == set(range(network.num_gates + 1))


def test_videos_of_different_lengths(network):
    lengths = [1, 5, 2, 8, 1, 3, 8, 8, 4, 1, 7]
    videos = [video[:n] for video, n in zip(draw_videos(11), lengths, strict=True)]
    for order in (videos, sorted(videos, key=len)):  # later, longer ones need more room
        found = run_pool(network, order, NEVER, 3, 3)
        for result, other in zip(found, run_lockstep(network, order, NEVER), strict=True):
            assert result.trace.action.tolist() == other.trace.action.tolist()
            np.testing.assert_allclose(result.logits, other.logits, atol=TOLERANCE)
    assert [len(result.trace) for result in found] == sorted(lengths)


def test_the_last_frame_is_kept_if_no_other_was(network):
    steps = check(network, list(draw_videos(VIDEOS)[:, :1]), NEVER, 3, 5)
    assert steps == [[(0, 5)]] * VIDEOS


def test_results_come_as_videos_arrive(network):
    read_so_far = []

    def give():
        for number, video in enumerate(draw_videos(20)):
            read_so_far.append(number)
            yield video

    results = Pool(network, batch_size=2, group_size=4).recognize(give())
    next(results)
    assert len(read_so_far) < 20


def test_nothing_compiles_after_the_warm_up(network):
    compiled = []

    def listen(event, duration, **_):
        if "compile" in event:
            compiled.append(event)

    pool = Pool(network, batch_size=3, group_size=4)
    pool.warm_up(SIZE, SIZE, FRAMES)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        assert len(dict(pool.recognize(draw_videos(9)))) == 9
        assert not compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_what_is_no_video_is_refused(network):
    pool = Pool(network, batch_size=2, group_size=2)
    assert not dict(pool.recognize([]))
    videos = draw_videos(3)
    with pytest.raises(ValueError, match="video 1 has no frames"):
        dict(pool.recognize([videos[0], []]))
    with pytest.raises(ValueError, match="make them one"):
        dict(pool.recognize([videos[0], videos[1][:, 1:]]))
    with pytest.raises(ValueError, match="make them one"):
        dict(pool.recognize([*videos, videos[1][:, 1:]]))
    with pytest.raises(ValueError, match="float"):
        dict(pool.recognize([videos[0].astype(float)]))
    assert len(dict(pool.recognize(videos))) == 3


def test_the_fastest_batch_size_is_kept_for_this_network_only(network, tmp_path, monkeypatch):
    measured = []

    def measure(network, shape, size):
        measured.append(size)
        return {2: 3.0, 4: 1.0, 8: 2.0}[size]

    monkeypatch.setattr(batch_size_module, "_measure", measure)
    monkeypatch.setattr(batch_size_module, "_find_folder", lambda: tmp_path)
    shape = (SIZE, SIZE, 3)
    for _ in range(2):
        assert choose_batch_size(network, shape, (2, 4, 8)) == 4
    assert measured == [2, 4, 8]
    assert choose_batch_size(create_specimen("tsn").network, shape, (2, 4, 8)) == 4
    assert choose_batch_size(network, (64, 64, 3), (2, 4, 8)) == 4
    assert measured == [2, 4, 8] * 3
    for path in tmp_path.iterdir():
        path.write_text("{")
    assert choose_batch_size(network, shape, (2, 4, 8)) == 4
    assert len(measured) == 12
    monkeypatch.setattr(batch_size_module, "_find_memory", lambda device: 10)
    assert choose_batch_size(network, shape, (2, 4, 8)) == 2  # the least, if none fits


def test_batches_are_measured(network):
    assert choose_batch_size(network, (SIZE, SIZE, 3), (1, 2)) in (1, 2)


def test_accelerators_get_a_pool(network, monkeypatch):
    assert isinstance(many.create_recognizer(network), Lockstep)
    monkeypatch.setattr(many, "find_device", lambda network: jax.ShapeDtypeStruct)
    monkeypatch.setattr(jax.ShapeDtypeStruct, "platform", "gpu", raising=False)
    assert isinstance(many.create_recognizer(network), Pool)
