from unittest.mock import Mock

import jax
import numpy as np
import pytest

from sofnet_jax.host.errors import DamagedError, UserError
from sofnet_jax.parallel import devices
from sofnet_jax.parallel.processes import join_processes
from sofnet_jax.run.checkpoint import Checkpoints
from sofnet_jax.run.config import check_config, create_default
from sofnet_jax.systems.tsn import Architecture
from sofnet_jax.weights.load import create_shapes


def test_batch_is_split_in_order_over_the_devices():
    count = jax.local_device_count()
    assert count > 1
    x = np.arange(2 * count * 3).reshape(2 * count, 3)
    put = devices.put_batch({"x": x})["x"]
    assert put.shape == (count, 2, 3)
    for shard in put.addressable_shards:
        i = shard.index[0].start
        assert shard.device == jax.local_devices()[i]
        np.testing.assert_array_equal(shard.data[0], x[2 * i : 2 * i + 2])


@pytest.mark.parametrize("process, hidden", [(0, None), (1, True)])
def test_only_process_0_shows_a_progress_bar(process, hidden, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: process)
    assert devices.hides_bar() is hidden


def test_state_stays_replicated_and_the_batch_is_averaged():
    def step(state, batch):
        mean = devices.mean_over_devices(batch["x"].mean())
        return state + mean, mean

    x = np.arange(8, dtype=np.float32)
    state = devices.replicate(np.float32(1))
    state, mean = devices.pmap_train_step(step)(state, devices.put_batch({"x": x}))
    assert float(mean) == 3.5
    assert float(state) == 4.5
    assert len({shard.device for shard in state.addressable_shards}) == jax.device_count()


USES = {
    "a training": lambda _: join_processes("", 0, -1).__enter__(),
    "a configuration": lambda _: check_config(create_default()),
    "a checkpoint": lambda folder: Checkpoints(folder, metric="map"),
    "weights": lambda _: create_shapes(Architecture(2, "basic", (1, 1, 1, 1), 4)),
}


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize …")])
@pytest.mark.parametrize("use", USES)
def test_missing_device_is_named_and_nothing_is_called_damaged(use, error, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "devices", Mock(side_effect=error))
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(
        UserError, match="^JAX_PLATFORMS is 'cuda', .*; unset it, or install"
    ) as told:
        USES[use](tmp_path)
    assert not isinstance(told.value, DamagedError)
