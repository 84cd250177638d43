"""Damaged videos: each is read or reported, within limits of time and memory, and nothing crashes.

They are read in child processes, so that a crash or a hang ends one file and not the test.
"""

import functools
import itertools
import json
import select
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from field_video import write_parameters
from numbered_frame import read_numbers

pytestmark = pytest.mark.slow

CASES = 56  # of each format
FRAMES = 32
SECONDS = 10  # for one file; sound ones take milliseconds
MEGABYTES = 700  # at most in the memory of the child that reads all of a format's files
ABSURD = (0, 1, 2**15 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)

X264 = {"g": "8"}
X265 = {"x265-params": "log-level=none:keyint=8"}
FASTSTART = {"movflags": "faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
FORMATS: dict[str, dict] = {
    "index_last.mp4": {"codec_options": X264},
    "index_first.mp4": {"codec_options": X264, "options": FASTSTART},
    "fragments.mp4": {"codec_options": X264, "options": FRAGMENTS},
    "hevc.mp4": {"codec": "libx265", "codec_options": X265, "options": FASTSTART},
    "h264.mkv": {"codec_options": X264},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": {"cpu-used": "8", "g": "8"}},
    "mpeg4.avi": {"codec": "mpeg4", "codec_options": {"g": "8"}},
    "h264.avi": {"codec_options": X264},
    "h264.ts": {"codec_options": X264},
    "mpeg2.mpg": {"codec": "mpeg2video", "codec_options": {"g": "8", "bf": "2"}},
    "h264.flv": {"codec_options": X264},
    "bare.h264": {"codec_options": X264},
}
# What fields follow in a file: names in MP4 and AVI, numbers of elements in Matroska.
MARKS: dict[str, tuple[bytes, ...]] = {
    "mp4": tuple(
        b"ftyp moov mvhd tkhd elst mdhd hdlr stsd avc1 hvc1 avcC hvcC stts ctts stss stsc stsz "
        b"stco mvex trex moof mfhd tfhd tfdt trun mdat".split()
    ),
    "avi": tuple(b"RIFF hdrl avih strl strh strf movi 00dc idx1".split()),
    "mkv": tuple(
        bytes.fromhex(number)
        for number in "1A45DFA3 18538067 1549A966 2AD7B1 4489 1654AE6B AE D7 B0 BA 63A2 "
        "1F43B675 E7 A3 1C53BB6B BB B3 F1".split()
    ),
}
MARKS["webm"] = MARKS["mkv"]

Damage = Callable[[bytearray, np.random.Generator], bytes]


def _truncate(data, rng):
    return data[: rng.integers(len(data))]


def _flip_bits(data, rng):
    for at in rng.integers(0, len(data), rng.integers(1, 40)):
        data[at] ^= 1 << rng.integers(8)
    return data


def _overwrite_bytes_at_either_end(data, rng):
    size = min(len(data) // 4, 1000)
    first = 0 if rng.random() < 0.5 else len(data) - size
    for at in rng.integers(first, first + size, rng.integers(1, 12)):
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    return data


def _move_a_piece(data, rng):
    a, b, c = sorted(rng.integers(0, len(data), 3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _repeat_a_piece(data, rng):
    a, b = sorted(rng.integers(0, len(data), 2))
    return data[:b] + data[a:]


def _blank_a_piece(data, rng):
    a, b = sorted(rng.integers(0, len(data), 2))
    data[a:b] = bytes([rng.choice([0, 0xFF])]) * (b - a)
    return data


def _cut_out_a_piece(data, rng):
    a = rng.integers(len(data))
    return data[:a] + data[a + rng.integers(1, 2000) :]


def _write_absurd_field(data, rng, marks):
    """A field after some mark: a dimension, a count, a duration, a time scale, a size."""
    places = [m for m in marks if m in data]
    for _ in range(rng.integers(1, 3)):
        mark = places[rng.integers(len(places))]
        at = data.find(mark, rng.integers(len(data)))  # not always the first one
        at = (data.find(mark) if at < 0 else at) + len(mark) + rng.integers(-8, 48)
        size = rng.choice([1, 2, 4, 4])
        field = int(rng.choice(ABSURD)).to_bytes(4, rng.choice(["big", "little"]))
        data[max(at, 0) : max(at, 0) + size] = field[:size]
    return data


ANYWHERE = [
    _truncate,
    _flip_bits,
    _overwrite_bytes_at_either_end,
    _move_a_piece,
    _repeat_a_piece,
    _blank_a_piece,
    _cut_out_a_piece,
]

CHILD = """
import json, pathlib, sys, warnings
import numpy as np
from sofnet_jax.data.video.decode import VideoError, read_frames

warnings.simplefilter("error")
for line in sys.stdin:
    path, wanted = json.loads(line)
    reply = {}
    try:
        choose = lambda count: np.unique(np.minimum(wanted, count - 1))
        frames, times = read_frames(path, choose, num_threads=2)
        np.save(path + ".npy", frames)
        reply["times"] = times.tolist()
    except VideoError as error:
        reply["error"] = str(error)
    except BaseException as error:
        reply["bug"] = repr(error)
    status = pathlib.Path("/proc/self/status").read_text()
    reply["megabytes"] = int(status.split("VmHWM:")[1].split()[0]) // 1024
    print(json.dumps(reply), flush=True)
"""


class Reader:
    """Reads videos in a child process, and in a new one after a crash or a hang."""

    def __init__(self, folder: Path):
        self._remarks = folder / "stderr"
        self._child: subprocess.Popen | None = None

    def read(self, path: Path, wanted: list[int]) -> dict:
        if self._child is None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
            with self._remarks.open("ab") as remarks:
                self._child = subprocess.Popen(
                    [sys.executable, "-c", CHILD], stderr=remarks, **pipes
                )
        self._child.stdin.write(json.dumps([str(path), wanted]).encode() + b"\n")
        ready, _, _ = select.select([self._child.stdout], [], [], SECONDS)
        line = self._child.stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        self.close()
        return {"bug": "crashed" if ready else f"not read within {SECONDS} seconds"}

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    @property
    def remarks(self) -> str:
        """What libav or Python wrote to standard error."""
        return self._remarks.read_text(errors="replace")


@pytest.fixture
def reader(tmp_path):
    reader = Reader(tmp_path)
    yield reader
    reader.close()


def _find_fault(path: Path, reply: dict) -> str | None:
    """What is wrong with the way in which a file was read or reported."""
    if "bug" in reply:
        return reply["bug"]
    if reply["megabytes"] > MEGABYTES:
        return f"took {reply['megabytes']:.0f} MB"
    if "error" in reply:
        error = reply["error"]
        sound = error.startswith(f"{path}: ") and len(error.splitlines()) == 1
        return None if sound else f"reported as {error!r}"
    frames, times = np.load(f"{path}.npy"), np.array(reply["times"])
    if frames.dtype != np.uint8 or frames.shape != (len(times), *frames.shape[1:3], 3):
        return f"frames of {frames.shape} {frames.dtype} for {len(times)} times"
    if not (np.all(np.isfinite(times)) and np.all(np.diff(times) >= 0)):
        return f"times {times}"
    return None


def _create_damages(name: str) -> list[Damage]:
    marks = MARKS.get(name.split(".")[1])
    if marks is None:
        return ANYWHERE
    return [*ANYWHERE, *4 * [functools.partial(_write_absurd_field, marks=marks)]]


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_videos_are_read_or_reported(name, reader, write_video, tmp_path):
    data = write_video(tmp_path / f"whole_{name}", range(FRAMES), **FORMATS[name]).read_bytes()
    damages = _create_damages(name)
    faults, outcomes = [], Counter()
    for case in range(CASES):
        rng = np.random.default_rng([case, *name.encode()])
        path = tmp_path / f"{case}_{name}"
        path.write_bytes(damages[case % len(damages)](bytearray(data), rng))
        reply = reader.read(path, [0, FRAMES // 3, FRAMES - 1])
        outcomes["reported" if "error" in reply else "read"] += 1
        if fault := _find_fault(path, reply):
            faults.append(f"{path}: {fault}")
    assert not faults, "\n".join(faults)
    assert outcomes["read"] and outcomes["reported"]
    assert not reader.remarks


@pytest.mark.parametrize("name", ["index_first.mp4", "fragments.mp4", "h264.mkv", "h264.ts"])
def test_damage_of_what_follows_spares_the_first_frames(name, reader, write_video, tmp_path):
    whole = write_video(tmp_path / f"whole_{name}", range(FRAMES), **FORMATS[name])
    with av.open(str(whole)) as container:
        part = [packet.pos for packet in container.demux(video=0) if packet.size][16]
    data, read = whole.read_bytes(), 0
    for case in range(12):
        rng = np.random.default_rng(case)
        damaged = (_flip_bits, _truncate, _blank_a_piece)[case % 3](bytearray(data[part:]), rng)
        path = tmp_path / f"{case}_{name}"
        path.write_bytes(data[:part] + damaged)
        reply = reader.read(path, list(range(6)))
        assert _find_fault(path, reply) is None
        if "times" in reply:
            read += 1
            assert read_numbers(np.load(f"{path}.npy")) == list(range(6))
    assert read >= 8


def test_the_head_of_one_format_on_the_body_of_another(reader, write_video, tmp_path):
    whole = {
        name: write_video(tmp_path / f"whole_{name}", range(FRAMES), **options).read_bytes()
        for name, options in FORMATS.items()
    }
    faults = []
    for (name, head), (_, body) in itertools.permutations(whole.items(), 2):
        path = tmp_path / name
        size = np.random.default_rng(len(body)).integers(8, 2000)
        path.write_bytes(head[:size] + body[size:])
        if fault := _find_fault(path, reader.read(path, [0, 1])):
            faults.append(f"{path}: {fault}")
    assert not faults, "\n".join(faults)


def _set_field(data: bytes, mark: bytes, offset: int, *numbers: int) -> bytes:
    """Overwrites 32-bit numbers so many bytes after the end of a mark."""
    at = data.index(mark) + len(mark) + offset
    new = b"".join(number.to_bytes(4, "big") for number in numbers)
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("count", [10**5, 5 * 10**7, 2**31 - 1])
@pytest.mark.parametrize("name", ["index_first.mp4", "fragments.mp4"])
def test_index_of_absurd_length(name, count, reader, write_video, tmp_path):
    path = write_video(tmp_path / name, range(FRAMES), **FORMATS[name])
    if name == "fragments.mp4":  # a run of so many samples, all like each other (14496-12, 8.8.8)
        data = _set_field(path.read_bytes(), b"trun", 0, 0, count)
    else:  # so many samples of a byte each, all in the first chunk (8.7.3, 8.7.4)
        data = _set_field(path.read_bytes(), b"stsz", 4, 1, count)
        data = _set_field(data, b"stsc", 12, count)
    path.write_bytes(data)
    reply = reader.read(path, [0])
    assert reply["error"] == f"{path}: its index promises more than the file holds"
    assert reply["megabytes"] < 200


def _box(kind: bytes, *content: bytes) -> bytes:
    data = b"".join(content)
    return (8 + len(data)).to_bytes(4, "big") + kind + data


def test_index_hidden_where_libav_finds_it(reader, write_video, tmp_path):
    data = write_video(tmp_path / "a.mp4", range(FRAMES), **FORMATS["index_last.mp4"]).read_bytes()
    data = _set_field(data, b"stsz", 4, 1, 10**7)
    data = _set_field(data, b"stsc", 12, 10**7)
    at = data.index(b"moov") - 4
    head, index = data[:at], data[at:]
    packed = len(index).to_bytes(4, "big") + zlib.compress(index)
    track = index[index.index(b"trak") - 4 :]
    hidden = {
        "compressed": _box(b"moov", _box(b"cmov", _box(b"dcom", b"zlib"), _box(b"cmvd", packed))),
        "under another name": _box(b"hoov", index[8:]),
        "in user data": _box(b"udta", index),
        "at the top": index[: index.index(b"trak") - 4] + track,
        "behind a mebibyte": _box(b"udta", _box(b"free", bytes(2**20 - 100)), index),
    }
    for name, boxes in hidden.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(head + boxes)
        reply = reader.read(path, [0])
        assert reply["error"] == f"{path}: its index promises more than the file holds", name
        assert reply["megabytes"] < 200


def test_text_that_looks_like_an_index(reader, write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", range(FRAMES), **FORMATS["index_last.mp4"])
    text = _box(b"free", b"A truncated trunk, cmov and stszzzzzzzzzzzz of an elephant")
    path.write_bytes(path.read_bytes() + text)
    assert "times" in reader.read(path, [0])


def test_index_that_gives_the_same_bytes_again_and_again(reader, write_video, tmp_path):
    path = write_video(tmp_path / "a.mp4", range(FRAMES), **FORMATS["index_last.mp4"])
    data = path.read_bytes()
    start, length = data.index(b"mdat") + 4, data.index(b"moov") - data.index(b"mdat") - 8
    # A chunk for each sample, each of them all of the data (ISO 14496-12, 8.7).
    at = data.index(b"stco") + 8
    assert data[at : at + 4] == (1).to_bytes(4, "big")
    data = data[: at + 4] + (FRAMES - 1) * start.to_bytes(4, "big") + data[at + 4 :]
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco"):
        size = int.from_bytes(data[data.index(box) - 4 : data.index(box)], "big")
        data = _set_field(data, box, -8, size + 4 * (FRAMES - 1))
    data = _set_field(data, b"stco", 4, FRAMES, start)
    data = _set_field(data, b"stsc", 12, 1)
    data = _set_field(data, b"stsz", 12, *FRAMES * [length])
    path.write_bytes(data)
    assert "promises more than the file holds" in reader.read(path, [0])["error"]


def test_frames_of_absurd_size(reader, tmp_path):
    # Blocks of which no more than the type of the first is there: libav makes up the others.
    picture = b"\0\0\0\1\x65" + bytes.fromhex("888400a0d0")
    path = tmp_path / "a.h264"
    path.write_bytes((write_parameters(8192, 8192, fields=False) + picture) * 20)
    reply = reader.read(path, [0])
    limit = "each may have at most 37,748,736 pixels"
    assert reply["error"] == f"{path}: no frame can be decoded; {limit}"
    assert reply["megabytes"] < 200
    path.write_bytes((write_parameters(1024, 1024, fields=False) + picture) * 20)
    assert "times" in reader.read(path, [0])
