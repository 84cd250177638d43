"""Frames read one by one are those read at once, and none is decoded that nobody asks for."""

import av
import numpy as np
import pytest
from numbered_frame import read_number, read_numbers

from sofnet_jax.data.video import reader as reader
from sofnet_jax.data.video.decode import VideoError, read_frames
from sofnet_jax.data.video.reader import VideoReader
from sofnet_jax.data.views import segment_indices

_FORMATS = {
    "b_frames.mp4": {},
    "open_gop.mp4": {"codec_options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}},
    "close_keyframes.mkv": {"codec_options": {"x264-params": "keyint=2:bframes=3"}},
    "turned.mp4": {"rotation": 90, "size": (96, 64)},
    "hevc.mp4": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none:keyint=20"}},
    # Read in order, for the packets do not tell the frames or their times, or no keyframe suffices.
    "packed.avi": {"codec": "mpeg4", "codec_options": {"bf": "2"}},
    "no_time_stamps.h264": {},
    "some_time_stamps.mpg": {"codec": "mpeg2video"},
    "gradual_refresh.mkv": {"codec_options": {"x264-params": "intra-refresh=1:keyint=12"}},
}  # fmt: skip


def _choices(count):
    rng = np.random.default_rng(0)
    yield from (segment_indices(count, n, None) for n in (1, 5, 16, 100))
    yield from (np.sort(rng.integers(0, count, n)) for n in (2, 9))


@pytest.mark.parametrize("name", _FORMATS)
def test_frames_are_those_read_at_once(name, write_video, tmp_path):
    path = write_video(tmp_path / name, **_FORMATS[name])
    with VideoReader(path, short_side=48) as opened:
        for chosen in _choices(64):
            expected, expected_times = read_frames(path, lambda n, c=chosen: c, short_side=48)
            frames, times = zip(*opened.read(lambda n, c=chosen: c), strict=True)
            np.testing.assert_array_equal(np.stack(frames), expected)
            np.testing.assert_array_equal(times, expected_times)


@pytest.mark.parametrize("bounds", [(0.5, 1.5), (None, 0.4), (2.0, None)])
def test_part_of_a_video(bounds, write_video, tmp_path):
    path = write_video(tmp_path / "video.mp4")
    part = {"start": bounds[0], "end": bounds[1]}
    expected, _ = read_frames(path, lambda n: segment_indices(n, 4, None), **part)
    with VideoReader(path) as opened:
        frames = [
            pixels for pixels, _ in opened.read(lambda n: segment_indices(n, 4, None), **part)
        ]
    np.testing.assert_array_equal(np.stack(frames), expected)


def test_decodes_no_further_than_asked(write_video, tmp_path, decoded):
    # One keyframe, nothing reordered: n + 1 packets hold what frame n depends on.
    options = {"x264-params": "keyint=250:scenecut=0:bframes=0"}
    path = write_video(tmp_path / "video.mp4", range(200), codec_options=options)
    with VideoReader(path) as opened:
        assert not decoded
        frames = opened.read(lambda n: np.arange(10, n, 10))
        for number in (10, 20, 30):
            assert read_number(next(frames)[0]) == number
            assert len(decoded) == number + 1
        frames.close()
        assert len(decoded) == 31


def test_frames_that_are_not_read_are_passed_over(write_video, tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(reader, "_AHEAD", 5)
    options = {"x264-params": "keyint=10:scenecut=0:bframes=0"}
    path = write_video(tmp_path / "video.mp4", range(200), codec_options=options)
    with VideoReader(path) as opened:
        numbers = []
        for n, (time, read) in enumerate(opened.scan(np.arange(200))):
            assert time == pytest.approx(n / 25)
            if n % 50 < 3:
                numbers.append(read_number(read()))
    assert numbers == [0, 1, 2, 50, 51, 52, 100, 101, 102, 150, 151, 152]
    assert len(decoded) <= 4 * 5  # a keyframe begins at each; 5 are planned at a time


def test_all_frames_by_scanning(write_video, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_AHEAD", 7)
    for name in ("b_frames.mp4", "packed.avi"):
        path = write_video(tmp_path / name, **_FORMATS[name])
        with VideoReader(path) as opened:
            frames = [read() for _, read in opened.scan(np.arange(0, 64, 2))]
        assert read_numbers(np.stack(frames)) == list(range(0, 64, 2))


@pytest.mark.parametrize("name", ["video.mkv", "video.ts"])
@pytest.mark.parametrize("place", [0.4, 0.6])
def test_damage_is_met_on_the_way(place, name, write_video, tmp_path):
    path = write_video(tmp_path / name, range(100), codec_options={"g": "10"})
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    data[at : at + 2000] = bytes(2000)
    path.write_bytes(data)
    with VideoReader(path) as opened:
        frames = list(opened.read(lambda n: segment_indices(n, 20, None)))
    assert len(frames) == 20
    assert np.all(np.diff([time for _, time in frames]) >= 0)
    with VideoReader(path) as opened:
        chosen = np.arange(0, len(opened.times), 3)
        assert len([read() for _, read in opened.scan(chosen)]) == len(chosen)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv"])
def test_a_file_that_is_cut_off_tells_how_much_is_missing(name, write_video, tmp_path):
    codec = "flv1" if name == "a.flv" else "mpeg4"
    path = write_video(tmp_path / name, range(128), codec=codec, options={"movflags": "faststart"})
    data = path.read_bytes()
    with VideoReader(path) as reader:
        assert reader.missing == 0
    path.write_bytes(data[: len(data) // 2])
    with VideoReader(path) as reader:
        missing = 128 - len(reader.times)
        assert missing > 25 and reader.missing == pytest.approx(missing / 25, abs=0.05)


def test_a_last_frame_that_is_shown_long_is_not_missing(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", range(3), codec="mpeg4")
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                packet.duration *= 1 if packet.pts < 2 * packet.duration else 100
                target.mux(packet)
    with VideoReader(tmp_path / "b.mp4") as reader:
        assert reader._video.promised[1] > 2 and reader.missing == 0


def test_no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "link.mp4").symlink_to("link.mp4")
    for name, reason in (
        ("none.mp4", "no such file"),
        ("text.mp4", "not a readable video"),
        ("link.mp4", "cannot be read .Too many levels of symbolic links"),
        ("text.mp4/1.mp4", "cannot be read .Not a directory"),
        ("a\0b.mp4", "cannot be read .embedded null byte"),
    ):
        with pytest.raises(VideoError, match=f"{name}: {reason}"):
            VideoReader(tmp_path / name)
