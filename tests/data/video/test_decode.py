"""Frames tell their numbers, so the tests see which were read, or equal those of a full decode."""

import struct
import subprocess
import sys

import av
import numpy as np
import pytest
from field_video import write_field_video
from numbered_frame import draw_number, read_numbers
from PIL import Image

from sofnet_jax.data.video import container
from sofnet_jax.data.video.decode import VideoError, probe, read_frames
from sofnet_jax.data.video.reader import VideoReader


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
    "keyframes_all.avi": {"codec": "h263", "size": (176, 144)},  # so say its packets: one is
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


def _x264(**parameters):
    pairs = (f"{name.replace('_', '-')}={value}" for name, value in parameters.items())
    return {"codec_options": {"x264-params": ":".join(pairs)}}


_UNEVEN = np.cumsum(np.random.default_rng(0).integers(1, 30, 90)).tolist()
_MOVING = {
    "pyramid.mp4": _x264(keyint=40, bframes=7, b_adapt=2, b_pyramid="normal", ref=6),
    "strict_pyramid.mkv": _x264(keyint=40, bframes=5, b_pyramid="strict", ref=4),
    "temporal_direct.mp4": _x264(keyint=40, bframes=4, direct="temporal", ref=4),
    "open_gop.mp4": _x264(keyint=12, bframes=5, open_gop=1, ref=4),
    "open_gop.ts": _x264(keyint=12, bframes=5, open_gop=1, ref=4),
    "gradual_refresh.mkv": _x264(keyint=12, intra_refresh=1),
    "field_macroblocks.mp4": _x264(keyint=24, bframes=3, tff=1),
    "field_macroblocks.ts": _x264(keyint=24, bframes=3, bff=1),
    "no_b_frames.flv": _x264(keyint=24, bframes=0),
    "close_keyframes.mp4": _x264(keyint=2, bframes=3),  # the next is decoded when this is shown
    "fragments.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}, **_x264(keyint=12)},
    "uneven.mp4": {"ticks": _UNEVEN, **_x264(keyint=12)},
    "uneven.mkv": {"ticks": _UNEVEN, **_x264(keyint=12)},
    "cut.mp4": {"ticks": range(-20, 70), **_x264(keyint=12)},  # an edit list hides 20 frames
    "before_zero.mkv": {"ticks": range(-20, 70), **_x264(keyint=12)},
    "late.ts": {"ticks": range(100, 190), **_x264(keyint=12)},
    "turned.mp4": {"rotation": 90, **_x264(keyint=12)},
    "hevc.mp4": {"codec": "libx265", "codec_options": {"x265-params": "log-level=0:keyint=24"}},
    "hevc_layers.mp4": {
        "codec": "libx265",
        "codec_options": {"x265-params": "log-level=0:keyint=24:b-adapt=0:temporal-layers=3"},
    },
    "mpeg1.mpg": {"codec": "mpeg1video", "codec_options": {"bf": "2", "g": "15"}},
    "interlaced.ts": {
        "codec": "mpeg2video",
        "codec_options": {"bf": "2", "g": "15", "flags": "+ildct+ilme"},
    },
    "b_frames_of_mpeg4.mp4": {"codec": "mpeg4", "codec_options": {"bf": "2", "g": "30"}},
    "b_frames_of_mpeg4.mkv": {"codec": "mpeg4", "codec_options": {"bf": "2", "g": "30"}},
    "h264.avi": _x264(keyint=24, bframes=3),
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8", "g": "24"}},
    "av1.mkv": {"codec": "libsvtav1", "codec_options": {"preset": "12", "g": "24"}},
}


_READ_IN_ORDER = {  # packets do not tell all, or a keyframe does not suffice
    "gradual_refresh.mkv",
    "field_macroblocks.mp4",
    "field_macroblocks.ts",
    "b_frames_of_mpeg4.mkv",
    "h264.avi",
}


def _draw_scene(i, width, height):
    """Texture that moves and changes its direction, before it a square of another grey."""
    rng = np.random.default_rng(7)
    texture = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).resize((400, 300))
    y, x = int(90 + 80 * np.sin(i / 9)), int(140 + 130 * np.sin(i / 14 + i // 50))
    frame = np.array(texture)[y : y + height, x : x + width]
    frame[i * 3 % height :, i * 5 % width :][:12, :12] = i * 37 % 256
    return frame


def _write_scene(
    path,
    ticks=range(90),
    *,
    codec="libx264",
    pix_fmt="yuv420p",
    size=(96, 64),
    rotation=None,
    codec_options=None,
    options=None,
):
    with av.open(str(path), "w", options=options or {}) as target:
        stream = target.add_stream(codec, rate=25)
        stream.width, stream.height = size
        stream.pix_fmt, stream.options = pix_fmt, codec_options or {}
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(_draw_scene(i, *size), format="rgb24")
            frame.pts = tick
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


def _decode_everything(path):
    """Every frame as it comes out, upright RGB, and its time: the straightforward way."""
    with av.open(str(path)) as source:
        stream = source.streams.video[0]
        stream.codec_context.thread_count = 1
        frames = list(source.decode(stream))
        images = [np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90) for f in frames]
        stamps = np.sort([f.pts for f in frames]) * float(stream.time_base)
        return np.stack(images), stamps - source.start_time / av.time_base


def _assert_equals_full_decode(path, monkeypatch):
    everything, all_times = _decode_everything(path)
    rng = np.random.default_rng(0)
    for threads, gap in [(1, 1 << 20), (1, 0), (3, 0)]:
        monkeypatch.setattr(container, "_GAP", gap)  # with 0, every gap is left out by a seek
        for size in (1, 1, 1, 2, 5, 16, 200):
            chosen = np.sort(rng.integers(0, len(everything), size))
            counts = []
            frames, times = read_frames(
                path, lambda n, c=chosen, s=counts: s.append(n) or c, num_threads=threads
            )
            assert set(counts) == {len(everything)}
            assert np.array_equal(frames, everything[chosen])
            assert np.allclose(times, all_times[chosen], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", _MOVING)
def test_equals_decoding_every_frame(name, tmp_path, monkeypatch):
    path = _write_scene(tmp_path / name, **_MOVING[name])
    if name not in _READ_IN_ORDER:
        monkeypatch.setattr(container.Video, "read_times", lambda _: pytest.fail("not needed"))
    _assert_equals_full_decode(path, monkeypatch)
    assert len(_decode_everything(path)[0]) == (70 if name == "cut.mp4" else 90)


@pytest.mark.parametrize("packets_per_frame", [1, 2])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_fields_coded_as_pictures(suffix, packets_per_frame, tmp_path, monkeypatch):
    lumas = [draw_number(i, 96, 96)[:, :, 0] for i in range(24)]
    path = tmp_path / f"fields.{suffix}"
    write_field_video(path, lumas, packets_per_frame=packets_per_frame)
    assert read_numbers(_decode_everything(path)[0]) == list(range(24))
    _assert_equals_full_decode(path, monkeypatch)


def test_decodes_no_more_than_it_must(tmp_path, monkeypatch):
    # No B frame is a reference. In decode order: 0 4 1 2 3 8 5 6 7 12 …; a keyframe is due at 24.
    options = _x264(keyint=24, min_keyint=24, scenecut=0, bframes=3, b_adapt=0, b_pyramid="none")
    path = _write_scene(tmp_path / "a.mp4", **options)
    packets, frames = [], []
    decode = container.Video._decode_packet

    def spy(self, packet):
        result = decode(self, packet)
        packets.extend([packet] if packet else [])
        frames.extend(frame.pts * self._stream.time_base * 25 for frame in result)
        return result

    monkeypatch.setattr(container.Video, "_decode_packet", spy)
    read_frames(path, _pick(0))
    assert (len(packets), len(frames)) == (1, 1)
    packets.clear(), frames.clear()
    read_frames(path, _pick(24 + 6, 24 + 7, 48))
    assert frames == [24, 28, 30, 31, 32, 48]
    assert len(packets) == 9 + 1


def test_streams_that_start_after_the_sound(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as target:
        sound, picture = target.add_stream("aac", rate=8000), target.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 96, 96, "yuv420p"
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 32000), np.float32), "fltp", "mono")
        samples.rate = 8000
        target.mux(sound.encode(samples) + sound.encode())
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(draw_number(i, 96, 96), format="rgb24")
            frame.pts = 50 + i
            target.mux(picture.encode(frame))
        target.mux(picture.encode())
    frames, times = read_frames(path, _all)
    assert read_numbers(frames) == list(range(50))
    assert np.allclose(times, 2 + np.arange(50) / 25, atol=0.13)  # AAC begins 1024 samples early
    assert read_numbers(read_frames(path, _pick(3), start=times[20])[0]) == [23]


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


def test_time_goes_on_where_one_file_was_put_behind_another(write_video, tmp_path):
    part = write_video(tmp_path / "a.ts").read_bytes()  # 64 frames at 25 a second
    (tmp_path / "b.ts").write_bytes(part + part)
    frames, times = read_frames(tmp_path / "b.ts", _all)
    assert read_numbers(frames) == [*range(64), *range(64)]
    assert np.allclose(times - times[0], np.arange(128) / 25, rtol=0, atol=0.001)
    frames, times = read_frames(tmp_path / "b.ts", _all, start=times[66], end=times[68])
    assert read_numbers(frames) == [2, 3]
    later = write_video(tmp_path / "c.ts", range(64, 128), ticks=range(500, 564)).read_bytes()
    (tmp_path / "b.ts").write_bytes(later + part)  # no time stamp occurs twice
    frames, times = read_frames(tmp_path / "b.ts", _all)
    assert read_numbers(frames) == [*range(64, 128), *range(64)]
    assert np.allclose(times - times[0], np.arange(128) / 25, rtol=0, atol=0.001)


@pytest.mark.parametrize("begins", [(0, 0, 0), (25_000, 0, 10)], ids=["short", "far"])
def test_time_goes_on_however_short_the_files_or_far_their_clocks(begins, write_video, tmp_path):
    """A part is shorter than the frames a codec may reorder; a step is longer than a minute."""
    parts = [
        write_video(
            tmp_path / "part.ts", range(20 * i, 20 * i + 20), ticks=range(begin, begin + 20)
        ).read_bytes()
        for i, begin in enumerate(begins)
    ]
    (tmp_path / "all.ts").write_bytes(b"".join(parts))
    frames, times = read_frames(tmp_path / "all.ts", _all)
    assert read_numbers(frames) == list(range(60))
    assert np.allclose(times - times[0], np.arange(60) / 25, rtol=0, atol=0.001)


@pytest.mark.parametrize("bf", ["0", "3"])
def test_time_goes_on_where_time_stamps_reach_their_last(bf, write_video, tmp_path):
    """Those of MPEG have 33 bits; reordered frames pass the last one before they are decoded."""
    begin = 2**33 // 3600 - 50  # 90,000 a second
    path = write_video(
        tmp_path / "a.ts", range(60), ticks=range(begin, begin + 60), codec_options={"bf": bf}
    )
    frames, times = read_frames(path, _all)
    assert read_numbers(frames) == list(range(60))
    assert np.allclose(times - times[0], np.arange(60) / 25, rtol=0, atol=0.001)


def test_a_colon_in_a_name_is_no_protocol(write_video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4", range(2))
    for name in ("12:30.mp4", "pipe:0.mp4", "file:a.mp4"):
        path = write_video(tmp_path / "sub/written.mp4", range(5)).rename(tmp_path / name)
        assert path.exists() and len(read_frames(name, _all)[0]) == 5


# Display matrices (ISO 14496-12, tkhd: x' = a x + c y, y' = b x + d y), and what
# they make of a picture. Telephones held upright write the clockwise turn.
_ORIENTATIONS = {
    "upright": ((1, 0, 0, 1), lambda image: image),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "upside down": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "counter-clockwise": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "left to right": ((-1, 0, 0, 1), np.fliplr),
    "top to bottom": ((1, 0, 0, -1), np.flipud),
    "about the diagonal": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "about the other diagonal": (
        (0, -1, -1, 0),
        lambda image: np.rot90(image, 2).transpose(1, 0, 2),
    ),
}


def _orient(path, a, b, c, d):
    """Give an MP4 a display matrix instead of the identity."""
    one, unit = 1 << 16, 1 << 30
    identity = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, unit)
    matrix = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, unit)
    data = path.read_bytes()
    track = data.index(b"tkhd")
    assert identity in data[track : track + 100]
    path.write_bytes(data[:track] + data[track:].replace(identity, matrix, 1))


@pytest.mark.parametrize("name", _ORIENTATIONS)
def test_the_display_matrix_makes_the_image_upright(name, tmp_path):
    path = _write_scene(tmp_path / "a.mp4", range(3), size=(96, 64))
    plain = read_frames(path, _all)[0]
    matrix, show = _ORIENTATIONS[name]
    _orient(path, *matrix)
    oriented = read_frames(path, _all)[0]
    expected = [show(image) for image in plain]
    assert np.array_equal(oriented, expected)
    height, width = expected[0].shape[:2]
    assert probe(path)[1:] == (width, height)
    with VideoReader(path, short_side=32) as reader:  # as predictions and preparation read
        footage = reader.read_footage(_all)
    small = [Image.fromarray(x).resize(footage.frames.shape[2:0:-1]) for x in expected]
    assert (footage.width, footage.height) == (width, height)
    assert abs(footage.frames - np.stack(small).astype(int)).mean() < 5


def test_frames_of_another_size_are_scaled_to_the_first(write_video, tmp_path):
    small = write_video(tmp_path / "small.h264", range(8), size=(48, 48))
    large = write_video(tmp_path / "large.h264", range(8, 16))
    path = tmp_path / "both.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames, _ = read_frames(path, _all)
    assert frames.shape == (16, 48, 48, 3)
    assert read_numbers(frames) == list(range(16))


@pytest.mark.parametrize("num_threads", [1, 4])
def test_the_first_frame_sets_the_size_whoever_decodes_it(num_threads, write_video, tmp_path):
    parts = [
        write_video(tmp_path / "0.ts", range(16), size=(48, 32), codec_options={"g": "4"}),
        write_video(
            tmp_path / "1.ts", range(16, 32), ticks=range(16, 32), codec_options={"g": "4"}
        ),
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _ = read_frames(path, _pick(1, 14, 18, 29), num_threads=num_threads)
    assert frames.shape == (4, 32, 48, 3)
    assert read_numbers(frames) == [1, 14, 18, 29]


@pytest.mark.parametrize(
    ("size", "rotation", "short_side", "shape"),
    [
        ((320, 180), None, 100, (100, 178)),  # 177.8
        ((320, 180), None, 45, (45, 80)),
        ((180, 320), None, 101, (180, 101)),  # 179.6
        ((320, 180), 90, 100, (178, 100)),
        ((98, 98), None, 40, (40, 40)),
        ((320, 180), None, 180, (180, 320)),
        ((320, 180), None, 500, (180, 320)),  # never up
        ((320, 180), None, 0, (180, 320)),
        ((400, 20), None, 1, (1, 20)),
    ],
)
def test_short_side(size, rotation, short_side, shape, tmp_path):
    path = _write_scene(tmp_path / "a.mp4", range(3), size=size, rotation=rotation)
    full = read_frames(path, _all)[0]
    frames = read_frames(path, _all, short_side=short_side)[0]
    assert frames.shape == (3, *shape, 3)
    for frame, whole in zip(frames, full, strict=True):
        image = Image.fromarray(whole).resize(shape[::-1], Image.Resampling.BILINEAR)
        difference = frame.astype(int) - np.asarray(image)
        # Of 255. At full size chroma is repeated, and fractions are cut off: 1 in the mean.
        assert abs(difference).mean() < 3
        assert abs(difference.mean()) < 1.5


def test_scaling_down_is_antialiased(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv444p"
        stripes = np.zeros((256, 256, 3), np.uint8)
        stripes[:, ::2] = 255
        target.mux(stream.encode(av.VideoFrame.from_ndarray(stripes, format="rgb24")))
        target.mux(stream.encode())
    frame = read_frames(path, _all, short_side=32)[0][0].astype(int)
    assert np.abs(frame[:, 2:-2] - 127.5).max() < 4


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


def _replace(path, new_path, packets):
    """Copies a video, with other data for some packets."""
    with av.open(str(path)) as source, av.open(str(new_path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for n, old in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet = av.Packet(packets(n, bytes(old)))
            packet.pts, packet.dts, packet.time_base = old.pts, old.dts, old.time_base
            packet.is_keyframe, packet.stream = old.is_keyframe, stream
            target.mux(packet)
    return new_path


def test_frames_made_for_reference_alone_are_not_counted(write_video, tmp_path, monkeypatch):
    def hide(n, data):  # show_frame: RFC 6386, 9.1
        return bytes([data[0] & ~0x10]) + data[1:] if n in (5, 20, 40) else data

    path = write_video(tmp_path / "a.webm", codec="libvpx", codec_options={"g": "16"})
    path = _replace(path, tmp_path / "b.webm", hide)
    assert len(_decode_everything(path)[0]) == 61
    _assert_equals_full_decode(path, monkeypatch)


def test_pictures_that_are_not_coded_are_not_counted(write_video, tmp_path, monkeypatch):
    def drop(n, data):  # ISO 14496-2, 6.2.5: a P picture at n/25 s, vop_coded 0, stuffing
        bits = f"01 0 1 {n % 25:05b} 1 0 01111".replace(" ", "")
        return b"\0\0\1\xb6" + int(bits, 2).to_bytes(2, "big") if n in (7, 19) else data

    path = write_video(tmp_path / "a.avi", codec="mpeg4", codec_options={"g": "100"})
    path = _replace(path, tmp_path / "b.avi", drop)
    assert len(_decode_everything(path)[0]) == 62
    _assert_equals_full_decode(path, monkeypatch)


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


def _write_pictures(path):
    """An animation, which is read as a picture at best."""
    images = [Image.new("RGB", (64, 64), (i, i, i)) for i in range(0, 200, 50)]
    images[0].save(path, save_all=True, append_images=images[1:])


def _write_large(path):
    with av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8190, 5000, "yuv420p"
        target.mux(stream.encode(av.VideoFrame(8190, 5000, "yuv420p")))
        target.mux(stream.encode())


_UNUSUAL = "a picture, a playlist or an unusual format; convert it to MP4"


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("missing.mp4", lambda path: None, "no such file"),
        ("folder.mp4", lambda path: path.mkdir(), "not a plain file"),
        ("empty.mp4", lambda path: path.write_bytes(b""), "not a readable video"),
        ("text.mp4", lambda path: path.write_text("hello\n" * 99), "not a readable video"),
        ("playlist.m3u8", lambda path: path.write_text(_PLAYLIST), _UNUSUAL),
        ("animated.webp", _write_pictures, _UNUSUAL),
        ("animated.png", _write_pictures, _UNUSUAL),
        ("large.mp4", _write_large, "at most 37,748,736 pixels"),
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
    code = "import numpy as n; from sofnet_jax.data.video.decode import read_frames as read; "
    code += f"read({str(path)!r}, n.arange)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout + result.stderr == b""
