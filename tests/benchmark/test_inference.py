"""The benchmark of inference measures what it says; how fast that is, is not a matter for tests."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from specimens import create_specimen

from sofnet_jax.benchmark import inference as benchmark
from sofnet_jax.benchmark import start as start_benchmark
from sofnet_jax.benchmark import stream as stream_benchmark
from sofnet_jax.benchmark import torch_network, workload
from sofnet_jax.benchmark.forced_gates import FIGURE_3, create_fates
from sofnet_jax.benchmark.workload import create_workload
from sofnet_jax.host.errors import UserError

SIZE = 48


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(workload, "BACKBONE", "tiny")
    monkeypatch.setattr(benchmark, "QUEUE", 4)


@pytest.fixture(scope="module")
def work():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workload, "BACKBONE", "tiny")
        return create_workload(SIZE, FIGURE_3)


def _cut(fate):
    """Where the frames stop of a video of these pictures: the sixth is kept, and ends it."""
    ends = np.flatnonzero(fate == 6)
    return np.minimum(fate[: ends[0] + 1] if len(ends) else fate, 5)


@pytest.mark.parametrize("shares", [FIGURE_3, (0.0,) * 5 + (100.0, 0.0), (5.0,) * 5 + (10.0, 65.0)])
def test_fates_have_the_shares(shares):
    fates = create_fates(shares, 16)
    assert fates.shape == (4, 16)
    looked = np.concatenate([_cut(fate) for fate in fates])
    counts = [*np.bincount(looked, minlength=6), fates.size - len(looked)]
    np.testing.assert_allclose(np.array(counts) / 64, np.array(shares) / 100, atol=1 / 64)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((50.0, 50.0), "seven shares"),
        ((15.4, 3.1, 1.5, 3.1, 9.2, 54.3, 3.4), "add to 100"),
        ((50.0, *[0.0] * 5, 50.0), "with a frame that is used"),
        ((*[0.0] * 5, 2.0, 98.0), "with a frame that is used"),
    ],
)
def test_shares_that_cannot_be(shares, message):
    with pytest.raises(UserError, match=message):
        create_fates(shares, 16)


@pytest.mark.slow
def test_every_program_decides_as_it_is_meant_to(work):
    rival = torch_network.TorchRecognizer(
        work.network,
        work.rule,
        torch_network.frozen,
        channels_last=True,
        example=work.videos[0][:1],
    )
    for video, fate, stop in zip(work.videos, create_fates(FIGURE_3, 16), work.stops, strict=True):
        theirs, logits = rival.recognize(video)
        program = workload.program(work.network, video, work.rule)
        assert stop.tolist() == theirs == _cut(fate).tolist()
        assert [s for s in np.asarray(program.stop).tolist() if s >= 0] == stop.tolist()
        np.testing.assert_allclose(logits, program.logits, rtol=1e-3)


@pytest.mark.slow
def test_frames_that_all_stop(monkeypatch):
    work = create_workload(SIZE, (100.0, *[0.0] * 6))
    rival = torch_network.TorchRecognizer(
        work.network, work.rule, torch_network.as_it_is, channels_last=False, example=work.videos[0]
    )
    assert [stop.tolist() for stop in work.stops] == [[0] * 15 + [5]] * 4  # the last is forwarded
    assert rival.recognize(work.videos[0])[0] == work.stops[0].tolist()
    np.testing.assert_allclose(work.shares, [93.75, 0, 0, 0, 0, 6.25, 0])


@pytest.mark.slow
def test_torchs_network_is_ours(work):
    rival = torch_network.TorchRecognizer(
        work.tsn, work.rule, torch_network.as_it_is, channels_last=False, example=work.videos[0]
    )
    video = work.videos[0]
    ours = workload.classify(work.tsn, video).mean(0)
    np.testing.assert_allclose(rival.classify(video), ours, rtol=1e-4, atol=1e-2)


@pytest.mark.slow
def test_reports_every_way(work, monkeypatch):
    rival = {"PyTorch SoF-Net, x": lambda: None}
    monkeypatch.setattr(benchmark, "_create_torch_programs", lambda _: (rival, ["  a remark"]))
    text = "\n".join(benchmark.benchmark_inference([work], 1))
    for way in (
        "TSN, a frame at a time",
        "TSN, 4 frames at a time",
        "TSN, 16 frames at a time",
        "TSN, one program on the device",
        "SoF-Net, the loop",
        "SoF-Net, one program on the device",
        "PyTorch SoF-Net, x",
        "TSN, many videos in batches",
        "SoF-Net, many videos in lockstep",
    ):
        assert re.search(rf"^    {way} +\d+\.\d ms a video$", text, re.M), way
    assert "54.7 % used" in text and "12.5 % never looked at" in text
    assert re.search(r"^  PyTorch's fastest loop takes \d+\.\d\d × ours$", text, re.M)
    assert re.search(r"of their gates: (\w+ \d+\.\d\d \+ -?\d+\.\d\d(, )?){6}$", text, re.M)
    assert "\n  a remark\n" in text


@pytest.mark.slow
def test_reports_a_stream(work, monkeypatch):
    monkeypatch.setattr(stream_benchmark, "MINUTE", 6)
    monkeypatch.setattr(stream_benchmark, "WINDOW", 1.0)
    heading, *rows, last = stream_benchmark.benchmark_stream(work, 4)
    assert "windows of 1 s with 16 frames each" in heading and len(rows) == 4
    for row in rows:
        assert len(re.findall(r" \d+\.\d\b", row)) == 10
    assert re.search(r"takes \d\.\d\d × the first's time a frame and \d\.\d{3} × its memory", last)


@pytest.mark.slow
def test_reports_the_start(monkeypatch):
    monkeypatch.setattr(start_benchmark, "REPEATS", 1)
    wait, cached = start_benchmark._wait_for_line, []

    def count(command, folder):
        seconds = wait(command, folder)
        cached.append(len(list(Path(folder, "cache").glob("*"))))
        return seconds

    monkeypatch.setattr(start_benchmark, "_wait_for_line", count)
    _, line = start_benchmark.benchmark_start(SIZE)
    assert len(re.findall(r"(\d+\.\d) s", line)) == 3
    first, later, _ = cached
    assert first == later > 0  # everything was compiled by the first start, and found by the second


def test_another_system_is_refused(monkeypatch):
    model = SimpleNamespace(network=create_specimen("frameexit").network)
    monkeypatch.setattr(workload, "load", lambda checkpoint, dtype: model)
    with pytest.raises(UserError, match="^run holds a network of another system than SoF-Net"):
        workload.load_workload("run", ["x.mp4"])
