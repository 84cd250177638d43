"""The benchmark of inference measures what it says; how fast that is, is not a matter for tests."""

import re

import jax
import numpy as np
import pytest

from sofnet_jax import inference_benchmark as benchmark
from sofnet_jax import torch_network
from sofnet_jax.forced_network import EXIT, RULE, SKIPPED, USED, create_videos
from sofnet_jax.inference.online import Recognizer


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "BACKBONE", "tiny")
    monkeypatch.setattr(benchmark, "SIZES", (48,))
    monkeypatch.setattr(benchmark, "QUEUE", 4)


def test_fates_are_the_papers_shares():
    fates = create_videos(16)
    assert fates.shape == (4, 16)
    looked = np.concatenate([benchmark._meant(fate) for fate in fates])
    assert np.bincount(looked).tolist() == [*SKIPPED, USED]
    assert fates.size - len(looked) == EXIT
    shares = np.array([USED, sum(SKIPPED), EXIT]) / 64
    np.testing.assert_allclose(shares, [0.543, 0.323, 0.134], atol=0.01)


def test_every_program_decides_as_it_is_meant_to():
    work = benchmark.create_workload(48)
    recognizer = Recognizer(work.sofnet, RULE)
    plain = benchmark.create_workload(48, winograd=False)
    rival = torch_network.TorchRecognizer(
        plain.sofnet, RULE, torch_network.frozen, channels_last=True, size=48
    )
    for video, fate in zip(work.videos, work.fates, strict=True):
        ours = benchmark.recognize_online(recognizer, video)
        theirs = rival.recognize(video)
        program = benchmark._program(work.sofnet, video, RULE)
        meant = benchmark._meant(fate).tolist()
        assert ours.stop.tolist() == theirs.stop.tolist() == meant
        assert [s for s in np.asarray(program.stop).tolist() if s >= 0] == meant
        np.testing.assert_allclose(theirs.logits, ours.logits, rtol=1e-3)


def test_torchs_network_is_ours():
    work = benchmark.create_workload(48, winograd=False)
    rival = torch_network.TorchRecognizer(
        work.tsn, RULE, torch_network.as_it_is, channels_last=False, size=48
    )
    _, pooled = work.tsn.spans[0](jax.numpy.asarray(work.pictures))
    ours = np.asarray(work.tsn.head(pooled)).mean(0)
    np.testing.assert_allclose(rival.classify(work.pictures), ours, rtol=1e-4, atol=1e-2)


def test_reports_every_way(monkeypatch):
    rival = {"PyTorch SoF-Net, x": lambda: None}
    monkeypatch.setattr(benchmark, "_create_torch_programs", lambda *_: (rival, ["  a remark"]))
    text = "\n".join(benchmark.benchmark_inference(1))
    for way in (
        "TSN, a frame at a time",
        "TSN, 4 frames at a time",
        "TSN, 16 frames at a time",
        "SoF-Net, the loop",
        "SoF-Net, one program on the device",
        "PyTorch SoF-Net, x",
        "TSN, 4 videos in batches",
        "SoF-Net, 4 videos in lockstep",
    ):
        assert re.search(rf"^    {way} +\d+\.\d ms a video$", text, re.M), way
    assert "54.7 % used" in text and "12.5 % never looked at" in text
    assert re.search(r"^  PyTorch's fastest loop takes \d+\.\d\d × ours$", text, re.M)
    assert text.endswith("  a remark")
