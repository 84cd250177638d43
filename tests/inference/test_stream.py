"""Windows of a stream are videos of their own, and nothing is read or computed for nothing."""

import gc
import tracemalloc

import numpy as np
import pytest
from gated_network import create_network, draw_videos

from sofnet_jax.inference import stream
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.inference.stream import Windows
from sofnet_jax.systems.early_exit import NEVER, Rule
from sofnet_jax.systems.sofnet.folded import deploy

T = 4


@pytest.fixture(scope="module")
def network():
    architecture, _, variables = create_network()
    return deploy(architecture, variables)


@pytest.fixture(scope="module")
def frames():
    return draw_videos(1, 40)[0]


def _run(windows, frames, rate=1.0, start=0.0):
    """All windows of a stream with a frame every 1 / rate seconds."""
    found = []
    for i, frame in enumerate(frames):
        found += windows.step(start + i / rate, frame)
    return found + windows.conclude()


def _recognize(network, rule, frames):
    recognizer = Recognizer(network, rule)
    for frame in frames:
        if recognizer.step(frame):
            break
    return recognizer.result()


@pytest.mark.parametrize("rule", [NEVER, Rule(0.9, 1)], ids=["never", "early"])
@pytest.mark.parametrize("every", [1, 3, 4, 7])
def test_a_window_is_a_video(every, rule, network, frames):
    # A frame a second and T seconds a window: frame i is in the centre of the segment from
    # i - 0.5 to i + 0.5, if the first window begins half a second before the first frame.
    windows = Windows(network, rule, num_frames=T, seconds=float(T), every=every, start=-0.5)
    found = sorted(_run(windows, frames), key=lambda window: window.start)
    assert [w.start for w in found] == [i - 0.5 for i in range(0, len(frames), every)]
    ended = 0
    for window in found:
        first = int(window.start + 0.5)
        expected = _recognize(network, rule, frames[first : first + T])
        assert window.num_frames == min(T, len(frames) - first)
        assert window.end == window.start + window.num_frames
        np.testing.assert_array_equal(window.result.trace.action, expected.trace.action)
        np.testing.assert_allclose(window.result.scores, expected.scores, atol=1e-6)
        assert window.times == tuple(range(first, first + len(expected.trace)))
        ended += expected.ended
    assert (ended > 0) == (rule is not NEVER)


def test_windows_share_their_frames(network, frames, monkeypatch):
    made = []

    class Counted(stream.Frame):
        def __init__(self, network, pixels):
            made.append(pixels)
            super().__init__(network, pixels)

    monkeypatch.setattr(stream, "Frame", Counted)
    found = _run(Windows(network, num_frames=T, seconds=float(T), every=1, start=-0.5), frames)
    assert len(found) == len(made) == len(frames)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        # Windows of 2 s in 4 segments, whose centres are at 0.25, 0.75, 1.25, 1.75 s, and so on.
        (4.0, [[1, 3, 5, 7], [9, 11, 13, 15]]),  # centres are at frames
        (3.0, [[1, 3, 4, 6], [7, 9, 10, 12]]),  # 0.33, 1.0, 1.33, 2.0; 2.33, 3.0, 3.33, 4.0 s
        (1.0, [[1, 2], [3, 4]]),  # fewer frames than segments: 1 s is from 0.75 s on, 2 s from 1.75
    ],
)
def test_frames_are_the_first_from_the_centre_of_a_segment(rate, expected, network, frames):
    found = _run(Windows(network, num_frames=4, seconds=2.0), frames[: int(4 * rate) + 1], rate)
    assert [[round(t * rate) for t in window.times] for window in found] == expected


def test_only_frames_that_a_window_wants_are_read(network, frames):
    # Every tenth second a window of eight; a rule that any kept frame fulfils.
    read = []
    windows = Windows(network, Rule(0.0, 0), num_frames=8, seconds=8.0, every=10, start=-0.5)
    found = []
    for i, frame in enumerate(frames):
        found += windows.step(float(i), lambda i=i, frame=frame: read.append(i) or frame)
    expected = []
    for first in range(0, len(frames), 10):
        stop = _recognize(network, Rule(0.0, 0), frames[first : first + 8]).trace.action
        expected += range(first, first + len(stop))
    assert read == expected and len(read) < 4 * 8
    assert [window.start for window in found] == [-0.5, 9.5, 19.5, 29.5]


def test_a_gap_ends_the_windows_that_it_covers(network, frames):
    windows = Windows(network, num_frames=T, seconds=4.0, every=2, start=-0.5)
    times = [0.0, 1.0, 2.0, 100.0, 101.0]
    found = [
        w for time, frame in zip(times, frames, strict=False) for w in windows.step(time, frame)
    ]
    found += windows.conclude()
    assert [(w.start, w.end, w.times) for w in found] == [
        (-0.5, 3.5, (0.0, 1.0, 2.0)),
        (1.5, 5.5, (2.0,)),
        (97.5, 101.5, (100.0, 101.0)),
        (99.5, 101.5, (100.0, 101.0)),
    ]


def test_after_a_conclusion_windows_begin_anew(network, frames):
    windows = Windows(network, num_frames=T, seconds=4.0)
    first = _run(windows, frames[:9])
    second = _run(windows, frames[:9], start=50.0)
    assert [w.start + 50 for w in first] == [w.start for w in second]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.result.trace.action, other.result.trace.action)


def test_what_is_left_of_a_window_where_the_stream_ends(network, frames):
    # Windows of 4 s in 4 segments, a frame in the centre of each; the third has 2.2 s of its 4.
    for rule in (NEVER, Rule(0.0, 0)):
        windows = Windows(network, rule, num_frames=4, seconds=4.0, start=-0.5, end=9.7)
        found = _run(windows, frames[:10])
        assert [(w.start, w.end, w.num_frames) for w in found] == [
            (-0.5, 3.5, 4), (3.5, 7.5, 4), (7.5, 9.7, 2)
        ]  # fmt: skip


def test_a_window_of_few_frames_has_no_more(network, frames):
    # Eight segments of 0.25 s, and a frame a second: that at 0 s is before the first centre.
    found = _run(Windows(network, num_frames=8, seconds=2.0), frames[:5])
    assert [(w.num_frames, w.times) for w in found] == [(2, (1.0, 2.0)), (2, (3.0, 4.0))]


def test_frames_after_an_early_exit_are_those_that_there_are(network, frames):
    """Segments of 0.25 s, and a frame a second; a window ends with its first kept frame."""
    options = {"num_frames": 32, "seconds": 8.0, "start": 0.0, "end": 33.0}
    found = _run(Windows(network, Rule(0.0, 0), times=np.arange(33.0), **options), frames[:33])
    unknown = _run(Windows(network, Rule(0.0, 0), **options), frames[:33])
    ended = [w.result.ended for w in unknown]
    assert [w.num_frames for w in found] == [8] * 4 and any(ended)
    assert [w.num_frames for w in unknown] == [32 if early else 8 for early in ended]


def test_no_frames_no_windows(network, frames):
    windows = Windows(network, num_frames=T, seconds=4.0)
    assert windows.conclude() == []
    assert windows.step(0.0, frames[0]) == windows.conclude() == []  # before the first centre


@pytest.mark.slow
def test_memory_does_not_grow(network, frames):
    windows = Windows(network, num_frames=T, seconds=4.0, every=2)

    def watch(first, count):
        for i in range(first, first + count):
            windows.step(float(i), frames[i % len(frames)])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    watch(0, 100)
    tracemalloc.start()
    before = watch(100, 100)
    after = watch(200, 300)
    tracemalloc.stop()
    assert after - before < 300 * 200  # bytes; a frame has 3072


def test_a_frame_that_cannot_be_read_leaves_all_as_it_was(network, frames):
    def fail():
        raise OSError("unreadable")

    fields = {"num_frames": T, "seconds": float(T), "every": 3, "start": 0.0}
    windows, other = Windows(network, **fields), Windows(network, **fields)
    found, expected = [], []
    for i, frame in enumerate(frames[:10]):
        if i in (0, 3, 5):  # also where a window begins
            with pytest.raises(OSError, match="unreadable"):
                windows.step(i + 0.5, fail)
        for steps, results in ((windows, found), (other, expected)):
            results += steps.step(i + 0.5, frame)
    found, expected = found + windows.conclude(), expected + other.conclude()
    assert len(found) == len(expected) > 2
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.result.logits, two.result.logits)
        assert one.times == two.times
