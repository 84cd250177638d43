"""Devices and processes. The only file that knows pmap.

State is replicated and a batch is split over all devices of all processes:
`pmap(step, "batch", in_axes=(None, 0), out_axes=None)` keeps replicated state without a leading
device axis, so the rest of the code reads as if there were one device.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


def pmap_train_step(step: Callable) -> Callable:
    """`step(state, batch) -> (state, metrics)` over all devices; the old state is given up."""
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)


def pmap_predict_step(step: Callable) -> Callable:
    """`step(variables, batch) -> predictions` over all devices, predictions split as the batch."""
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=0)


def put_batch(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Sends this process's part of a batch to its devices: [b, …] to [devices, b / devices, …]."""
    devices = jax.local_devices()
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))

    def put(x: np.ndarray) -> jax.Array:
        return jax.device_put(x.reshape(len(devices), -1, *x.shape[1:]), sharding)

    return {name: put(x) for name, x in batch.items()}


def replicate(tree: Any) -> Any:
    """Puts a copy of every leaf on each device of this process, as a step returns its state."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def mean_over_devices(tree: Any) -> Any:
    """Inside a step: the mean of every leaf over all devices."""
    return jax.lax.pmean(tree, AXIS)


def gather(array: np.ndarray) -> np.ndarray:
    """Stacks the arrays of all processes, equal in shape, along the first axis."""
    if jax.process_count() == 1:
        return array
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def gather_dict(mapping: Mapping[str, str]) -> dict[str, str]:
    """Merges a small dictionary of strings over all processes."""
    if jax.process_count() == 1:
        return dict(mapping)
    data = np.frombuffer(json.dumps(mapping).encode(), np.uint8)
    longest = int(gather(np.array([len(data)])).max())
    rows = gather(np.pad(data, (0, longest - len(data)), constant_values=ord(" "))[None])
    return {k: v for row in rows for k, v in json.loads(row.tobytes()).items()}


def to_host(tree: Any) -> Any:
    """Copies replicated arrays to this process's memory."""

    def copy(x: Any) -> Any:
        # A true copy: on a CPU, a view would be of memory that the next step reuses.
        return np.array(x.addressable_data(0)) if isinstance(x, jax.Array) else x

    return jax.tree.map(copy, tree)
