"""The benchmark of reading runs and reports every part; speed is not a matter for tests."""

import re

import pytest

from sofnet_jax.benchmark import reading


@pytest.mark.slow
def test_reports_every_part_of_reading(monkeypatch):
    monkeypatch.setattr(reading, "KINDS", ((1, 340, 256, 23),))
    text = "\n".join(reading.benchmark_pipeline(repeats=1, num_videos=200))
    assert re.search(r"1 s,  340×256, .* \d+\.\d\d s +\d+\.\d\d MB; a thousand", text)
    assert re.search(r"^  the codec alone, to RGB +\d+ frames/s +1\.00 × the codec", text, re.M)
    for size in (168, 224):
        for use in ("testing", "training"):
            assert re.search(rf"^  read, cropped to {size} for {use} +\d+ frames/s", text, re.M)
    rates = re.search(r"^  frames/s ((?: +\d+){10})$", text, re.M)
    assert rates and all(int(rate) > 0 for rate in rates[1].split())
    assert re.search(r"^  MiB      ((?: +\d+){10})$", text, re.M)
