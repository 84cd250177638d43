"""The benchmark of decoding runs, and sees a wrong frame; how fast is not a matter for tests."""

import re

import pytest

from sofnet_jax.benchmark import decoding as benchmark
from sofnet_jax.benchmark.videos import write_video


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "SECONDS", 2)
    monkeypatch.setattr(benchmark, "WIDTH", 64)
    monkeypatch.setattr(benchmark, "HEIGHT", 64)
    monkeypatch.setattr(benchmark, "CHOSEN", 4)
    ours = benchmark._read_by_us
    programs = {
        benchmark.OURS: ours,
        "late": lambda path, chosen, n: ours(path, [i + 1 for i in chosen], n),
        **benchmark._create_ffmpeg_ways(),
    }
    monkeypatch.setattr(benchmark, "_find_programs", lambda: (programs, ["x was not measured"]))


def test_reports_every_program_and_wrong_frames():
    text = "\n".join(benchmark.benchmark_decoding(repeats=1))
    assert text.startswith("x was not measured\n4 frames of 2 s, 64×64")
    assert re.search(r"^    sofnet_jax +\d+ ms +1\.00$", text, re.M)  # the others' unit
    assert re.search(r"^    late +\d+ ms +\d+\.\d\d  4 WRONG FRAMES$", text, re.M)
    assert re.search(r"^    the whole file, by PyAV +\d+ ms +\d+\.\d\d$", text, re.M)
    for line in text.splitlines():
        assert "ffmpeg" not in line or "WRONG" not in line


def test_missing_frames_are_wrong(tmp_path):
    path = str(write_video(tmp_path / "a.mp4", frames=60, width=64, height=64))
    neighbours = benchmark._decode_neighbours(path, [5, 20])
    images = benchmark._read_by_us(path, [5, 20], 1)
    assert benchmark._count_wrong(images, neighbours) == 0
    assert benchmark._count_wrong(images[:1], neighbours) == 2
