"""The benchmark of training runs and reports every part; speed is not a matter for tests."""

import re

import pytest

from sofnet_jax.benchmark.training import benchmark_training
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.config import create_default


@pytest.fixture
def config(tmp_path, write_video):
    for i in range(8):
        write_video(tmp_path / f"class{i % 2}" / f"{i}.mp4", range(4), size=(32, 32))
    c = create_default()
    c.model.backbone, c.model.width, c.model.hidden = "tiny", 4, 8
    c.data.train = c.data.val = str(tmp_path)
    c.data.num_frames, c.data.size, c.data.num_workers = 2, 32, 0
    c.train.batch_size = 4
    return c


@pytest.mark.slow
def test_reports_every_part_of_a_step(config):
    lines = benchmark_training(config, repeats=1)
    text = "\n".join(lines)
    assert "4 videos × 2 frames × 32×32, float32, 4 × cpu" in lines[0]
    assert re.search(r"^joint step +\d+\.\d ms +1\.000$", text, re.M)  # the others' unit
    for name in ("step without gates", "gate scan, forward and backward"):
        assert re.search(rf"^{name} +\d+\.\d ms +\d+\.\d{{3}}$", text, re.M)
    idle = re.search(r"idle for want of input: (\d+\.\d) %", text)
    assert idle and 0 <= float(idle.group(1)) < 100
    assert re.search(r"peak memory: \d+\.\d\d GiB on the host", text)


def test_without_gates_there_is_no_share_to_measure(config):
    config.model.system = "tsn"
    with pytest.raises(UserError, match="no gates"):
        benchmark_training(config, repeats=1)
