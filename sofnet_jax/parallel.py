"""Devices and processes. The only file that knows pmap.

State is replicated and a batch is split over all devices of all processes:
`pmap(step, "batch", in_axes=(None, 0), out_axes=None)` keeps replicated state without a leading
device axis, so the rest of the code reads as if there were one device.
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sofnet_jax.errors import UserError

AXIS = "batch"


def initialise_processes(coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins the processes of one run, if the configuration or the environment asks for it.

    Args:
        coordinator: `host:port` of process 0; "" looks at the environment (JAX_COORDINATOR_ADDRESS,
            or a Slurm, Open MPI or TPU-pod job of several processes, which JAX recognises).
        num_processes: how many there are; 0 with an environment that knows.
        process_id: this one; -1 with an environment that knows.

    Raises:
        UserError: a coordinator without the numbers, the numbers without one, or one that does
            not answer.
    """
    if jax.distributed.is_initialized():
        return
    coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if not coordinator and not _is_cluster_job(os.environ):
        if num_processes > 1 or process_id > 0:
            raise UserError(
                f"parallel.num_processes is {num_processes} and parallel.process_id {process_id}, "
                "but there is no parallel.coordinator; give host:port of process 0"
            )
        return
    if coordinator:
        num_processes = num_processes or int(os.environ.get("JAX_NUM_PROCESSES", 0))
        process_id = process_id if process_id >= 0 else int(os.environ.get("JAX_PROCESS_ID", -1))
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"a coordinator ({coordinator}) needs parallel.num_processes and "
                f"parallel.process_id below it; got {num_processes} and {process_id}"
            )
    try:
        jax.distributed.initialize(
            coordinator or None,
            num_processes or None,
            process_id if process_id >= 0 else None,
        )
    except RuntimeError as error:
        raise UserError(
            f"could not join the processes of this run: {_first_line(error)}"
        ) from error


def _is_cluster_job(environment: Mapping[str, str]) -> bool:
    """Whether a launcher that JAX recognises started more than one process."""
    counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    several = any(int(environment.get(name, "1")) > 1 for name in counts)
    in_step = "SLURM_NTASKS" not in environment or "SLURM_PROCID" in environment
    return (several and in_step) or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


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
