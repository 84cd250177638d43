import jax
import numpy as np

from sofnet_jax.parallel import devices


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
