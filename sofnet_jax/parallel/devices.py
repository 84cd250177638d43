"""Data-parallel computation on all devices of all processes. The only file that uses pmap.

State is replicated, and each batch is split over all devices:
`pmap(step, "batch", in_axes=(None, 0), out_axes=None)` keeps replicated state without a leading
device axis, so the rest of the code reads as if for one device.
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sofnet_jax.host.errors import UserError, first_line

AXIS = "batch"


def require_devices() -> None:
    """Starts JAX on its devices. Raises UserError if those of JAX_PLATFORMS are missing."""
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # the former without the device's plug-in
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = f" ({first_line(error)})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS is '{asked}', which JAX cannot use on this machine{reason}; unset it, "
            "or install JAX for that device (pip install '.[cuda]' for an NVIDIA GPU)"
        ) from error


def hides_bar() -> bool | None:
    """`disable` of a progress bar: process 0 shows it (None: on a terminal only), no other does."""
    return jax.process_index() > 0 or None


def pmap_train_step(step: Callable) -> Callable:
    """`step(state, batch) -> (state, metrics)` over all devices; donates the old state."""
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None, donate_argnums=0)


def pmap_predict_step(step: Callable) -> Callable:
    """`step(variables, batch) -> predictions` over all devices, split like the batch."""
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=0)


def put_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Send this process's part of a batch to its devices: [b, …] to [devices, b / devices, …]."""
    devices = jax.local_devices()
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))

    def put(x: np.ndarray) -> jax.Array:
        return jax.device_put(x.reshape(len(devices), -1, *x.shape[1:]), sharding)

    return jax.tree.map(put, dict(batch))


def fetch(x: jax.Array) -> np.ndarray:
    """What `pmap_predict_step` returns, this process's part: [devices, b, …] to [devices·b, …]."""
    shards = sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)
    return np.concatenate([np.asarray(s.data)[0] for s in shards])


def replicate(tree: Any) -> Any:
    """Copy every leaf to each device of this process, with the sharding that a step returns."""
    mesh = Mesh(np.array(jax.local_devices()), (AXIS,))
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def mean_over_devices(tree: Any) -> Any:
    """Mean of every leaf over all devices; for use inside a step."""
    return jax.lax.pmean(tree, AXIS)


def gather(array: np.ndarray) -> np.ndarray:
    """Concatenate equally shaped arrays of all processes along the first axis."""
    if jax.process_count() == 1:
        return array
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def gather_dict(mapping: Mapping[str, str]) -> dict[str, str]:
    """Merge small dictionaries of strings of all processes."""
    if jax.process_count() == 1:
        return dict(mapping)
    data = np.frombuffer(json.dumps(mapping).encode(), np.uint8)
    longest = int(gather(np.array([len(data)])).max())
    rows = gather(np.pad(data, (0, longest - len(data)), constant_values=ord(" "))[None])
    return {k: v for row in rows for k, v in json.loads(row.tobytes()).items()}


def to_host(tree: Any) -> Any:
    """Copy replicated arrays to host memory."""

    def copy(x: Any) -> Any:
        # Copied, since on a CPU a view would share memory that the next step overwrites.
        return np.array(x.addressable_data(0)) if isinstance(x, jax.Array) else x

    return jax.tree.map(copy, tree)
