"""Every frame tells its number, so the tests see exactly which frames were read."""

import struct
import subprocess
import sys

import av
import numpy as np
import pytest
from conftest import read_numbers

from sofnet_jax.data.decode import VideoError, read_frames


def _all(count):
    return np.arange(count)


def _pick(*indices):
    return lambda count: np.array(indices)


_FORMATS = {
    "b_frames.mp4": {},
    "b_frames.mkv": {},
    "b_frames.ts": {},
    "open_gop.mp4": {"codec_options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}},
    "gradual_refresh.mkv": {"codec_options": {"x264-params": "intra-refresh=1:keyint=12"}},
    "packed.avi": {"codec": "mpeg4", "codec_options": {"bf": "2"}},
    "numbered_packets.avi": {},  # H.264 in AVI: its stamps are those of decoding
    "no_time_stamps.h264": {},
    "some_time_stamps.mpg": {"codec": "mpeg2video"},
    "hevc.mp4": {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}},
    "ten_bits.mp4": {"pix_fmt": "yuv420p10le"},
    "ten_bits.mkv": {"codec": "ffv1", "pix_fmt": "yuv422p10le"},
    "alpha.mov": {"codec": "png", "pix_fmt": "rgba"},
    "alpha.webm": {
        "codec": "libvpx-vp9",
        "pix_fmt": "yuva420p",
        "codec_options": {"cpu-used": "8"},
    },
    "odd.mp4": {"pix_fmt": "yuv444p", "size": (97, 61)},
}


@pytest.mark.parametrize("name", _FORMATS)
def test_reads_exactly_the_chosen_frames(name, write_video, tmp_path):
    path = write_video(tmp_path / name, **_FORMATS[name])
    width, height = _FORMATS[name].get("size", (96, 96))
    frames, times = read_frames(path, _all)
    assert frames.shape == (64, height, width, 3) and frames.dtype == np.uint8
    assert read_numbers(frames) == list(range(64))
    # To a frame: MPEG program streams stamp some frames alone.
    assert np.allclose(times - times[0], np.arange(64) / 25, rtol=0, atol=0.041)
    for chosen in ([0], [63], [11, 12, 13, 14], [23], [35, 61], [5, 5, 40]):
        frames, times_chosen = read_frames(path, _pick(*chosen))
        assert read_numbers(frames) == chosen
        assert np.allclose(times_chosen, times[chosen])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate_keeps_order_and_true_times(suffix, write_video, tmp_path):
    ticks = [0, 1, 2, 50, 51, 75, 100, 125]  # of 1/25 s
    path = write_video(tmp_path / f"a.{suffix}", range(8), ticks=ticks)
    frames, times = read_frames(path, _all)
    assert read_numbers(frames) == list(range(8))
    assert np.allclose(times, np.array(ticks) / 25)
    frames, times = read_frames(path, _all, start=2.0, end=4.0)  # 2, 2.04, 3 s; not 4 s
    assert read_numbers(frames) == [3, 4, 5]


def test_start_and_end_bound_the_frames_available(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    frames, times = read_frames(path, _all, start=1.0, end=1.2)
    assert read_numbers(frames) == [25, 26, 27, 28, 29]
    assert np.allclose(times, [1.0, 1.04, 1.08, 1.12, 1.16])
    assert read_numbers(read_frames(path, _all, start=2.5)[0]) == [63]
    assert read_numbers(read_frames(path, _all, end=0.05)[0]) == [0, 1]
    assert len(read_frames(path, _all, end=3.5)[0]) == 64  # within the tolerance of a second
    for part, reason in [
        ({"start": 3.0}, "no frame from start=3.0 to end=None s; the video lasts 2.56 s"),
        ({"start": 1.01, "end": 1.02}, "no frame from start=1.01 to end=1.02 s"),
        ({"start": 1.0, "end": 30.0}, "end is 30 s, but the video lasts 2.56 s"),
    ]:
        with pytest.raises(VideoError, match=reason):
            read_frames(path, _all, **part)


def test_times_count_from_the_beginning_of_the_file(write_video, tmp_path):
    path = write_video(tmp_path / "a.ts")  # MPEG transport streams start at 1.4 s or so
    with av.open(str(path)) as container:
        assert container.start_time > 0
    assert read_frames(path, _all)[1][0] == pytest.approx(0)


def test_rotation_makes_the_image_upright(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", [1, 1, 1], size=(96, 64))
    plain = read_frames(path, _all)[0]
    assert plain[:, :, :11].mean() > 200 and plain[:, :, 13:].mean() < 40  # the left stripe is lit
    # What telephones held upright write (ISO 14496-12, tkhd): x' = -y, y' = x, a clockwise turn.
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    track = data.index(b"tkhd")
    assert identity in data[track : track + 100]
    path.write_bytes(data[:track] + data[track:].replace(identity, clockwise, 1))
    turned = read_frames(path, _all)[0]
    assert turned.shape == (3, 96, 64, 3)
    assert np.array_equal(turned[0], np.rot90(plain[0], -1))
    assert turned[:, :11].mean() > 200  # what was left is above


def test_frames_of_another_size_are_scaled_to_the_first(write_video, tmp_path):
    small = write_video(tmp_path / "small.h264", range(8), size=(48, 48))
    large = write_video(tmp_path / "large.h264", range(8, 16))
    path = tmp_path / "both.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames, _ = read_frames(path, _all)
    assert frames.shape == (16, 48, 48, 3)
    assert read_numbers(frames) == list(range(16))


def test_single_frame(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", [7])
    assert read_numbers(read_frames(path, lambda count: np.zeros(4, int))[0]) == [7] * 4


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.ts", "faststart.mp4"])
def test_truncated_file_gives_the_frames_that_are_there(name, write_video, tmp_path):
    codec = {"codec": "mpeg4"} if name == "a.avi" else {}
    path = write_video(tmp_path / name, **codec, options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    counts = []
    frames, _ = read_frames(path, lambda count: counts.append(count) or np.arange(count))
    assert 5 < len(frames) == counts[-1] < 64
    sound = len(frames) - 2  # the last packet is cut
    assert read_numbers(frames)[:sound] == list(range(sound))


def _damage(path, packets):
    """Overwrites the data of some packets with noise."""
    with av.open(str(path)) as container:
        spans = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(path.read_bytes())
    for position, size in (spans[i] for i in packets):
        data[position : position + size] = np.random.default_rng(0).bytes(size)
    path.write_bytes(bytes(data))


def test_frames_that_cannot_be_decoded_are_not_available(write_video, tmp_path):
    path = write_video(tmp_path / "a.mov", codec="png", pix_fmt="rgb24")
    _damage(path, [20, 21])
    counts = []
    frames, times = read_frames(path, lambda count: counts.append(count) or np.arange(count))
    assert counts == [64, 62]  # asked again when two of those promised did not come
    assert read_numbers(frames) == [i for i in range(64) if i not in (20, 21)]
    assert times[20] == pytest.approx(22 / 25)
    assert read_numbers(read_frames(path, _pick(3, 40))[0]) == [3, 40]


def test_damage_elsewhere_does_not_matter(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", codec_options={"g": "8", "bf": "0"})
    _damage(path, [30])
    assert read_numbers(read_frames(path, _pick(3, 29, 50))[0]) == [3, 29, 50]


def test_nothing_can_be_decoded(write_video, tmp_path):
    path = write_video(tmp_path / "a.mov", codec="png", pix_fmt="rgb24")
    _damage(path, range(64))
    with pytest.raises(VideoError, match="no frame can be decoded"):
        read_frames(path, _all)


def _write_audio(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_no_frames(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 96
        container.start_encoding()


_PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n"


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("missing.mp4", lambda path: None, "no such file"),
        ("folder.mp4", lambda path: path.mkdir(), "no such file"),
        ("empty.mp4", lambda path: path.write_bytes(b""), "not a readable video"),
        ("text.mp4", lambda path: path.write_text("hello\n" * 99), "not a readable video"),
        ("playlist.m3u8", lambda path: path.write_text(_PLAYLIST), "not a readable video"),
        ("audio.mp4", _write_audio, "no video stream"),
        ("no_frames.avi", _write_no_frames, "."),
        ("no_frames.mkv", _write_no_frames, "."),
        ("no_frames.mp4", _write_no_frames, "."),
    ],
)
def test_unreadable_files(name, write, reason, tmp_path):
    path = tmp_path / name
    write(path)
    with pytest.raises(VideoError, match=reason) as caught:
        read_frames(path, _all)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_truncated_mp4_without_its_index(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match="not a readable video"):
        read_frames(path, _all)


@pytest.mark.parametrize("seed", range(20))
def test_noise_raises_nothing_but_video_error(seed, write_video, tmp_path):
    rng = np.random.default_rng(seed)
    name, codec = [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")][seed % 3]
    path = write_video(tmp_path / name, range(24), codec=codec)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    places = rng.integers(0, len(data), 10 * (seed + 1))
    data[places] = rng.integers(0, 256, len(places))
    path.write_bytes(data.tobytes())
    try:
        frames, times = read_frames(path, lambda count: np.array([0, count // 2, count - 1]))
    except VideoError:
        return
    assert frames.shape == (3, *frames.shape[1:3], 3) and times.shape == (3,)


def test_mistakes_of_the_caller_are_not_taken_for_bad_videos(write_video, tmp_path):
    def choose(count):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        read_frames(write_video(tmp_path / "a.mp4", range(4)), choose)


def test_libav_is_silent(write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", codec_options={"g": "8"})
    _damage(path, [9, 20, 30])
    code = f"import numpy, sofnet_jax.data.decode as d; d.read_frames({str(path)!r}, numpy.arange)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout + result.stderr == b""
