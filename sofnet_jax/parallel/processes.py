"""The processes of a run: how they find each other, and how they leave."""

import atexit
import contextlib
import os
import re
import secrets
import socket
import sys
import threading
from collections.abc import Iterator, Mapping

import jax
from jax._src import distributed  # for the coordinator's address where JAX found it by itself
from jax._src.clusters import cloud_tpu_cluster

from sofnet_jax.host.errors import LOST, LostError, UserError, choose_exit_code
from sofnet_jax.host.signals import Interrupted
from sofnet_jax.parallel import lifeline
from sofnet_jax.parallel.devices import gather_dict

# Seconds after which JAX takes a process to be dead, and aborts; the lifeline, which says more, is
# sooner.
_HEARTBEAT_TIMEOUT = int(lifeline.SILENCE) + 10


_JOINING_TIMEOUT = 300  # seconds for all processes to be started


_MEETING_TIMEOUT = 60.0  # seconds for the processes, all of which are there, to find each other


@contextlib.contextmanager
def join_processes(coordinator: str, num_processes: int, process_id: int) -> Iterator[None]:
    """Inside, this is a process of a run of several, which end together (`initialise_processes`).

    Where one dies, the others end within a minute with exit code `errors.LOST`; where one stops
    with an error, so do they, with its exit code. Raises UserError.
    """
    initialise_processes(coordinator, num_processes, process_id)
    if jax.process_count() == 1:
        yield
        return
    line = _hold_line()
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, UserError | Interrupted):
            line.await_news()  # where another process died, a sum over all of them fails
        if isinstance(error, Interrupted):
            line.conclude()
        else:
            code = choose_exit_code(error)
            line.conclude(failed=code)
            atexit.register(_leave, code)  # what JAX does at exit would wait for the others
        raise
    line.conclude()


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _hold_line() -> lifeline.Lifeline:
    """Connects this process with process 0, or process 0 with all."""
    me, count = jax.process_index(), jax.process_count()
    token = secrets.token_bytes(16)
    hub = lifeline.Hub(token) if me == 0 else None
    told = gather_dict(
        {str(me): socket.gethostname()} | ({"hub": f"{hub.port} {token.hex()}"} if hub else {})
    )
    try:
        if hub:
            lines = hub.accept(count - 1, _MEETING_TIMEOUT)
        else:
            port, token_hex = told["hub"].split()
            host = str(distributed.global_state.coordinator_address).rpartition(":")[0].strip("[]")
            token = bytes.fromhex(token_hex)
            lines = {0: lifeline.connect(host, int(port), token, me, _MEETING_TIMEOUT)}
    except OSError as error:
        raise LostError(
            f"process {me} cannot talk to {'the others' if hub else 'process 0'} "
            f"({error.strerror or error}); they need to reach each other on any TCP port"
        ) from error
    return lifeline.Lifeline(me, {i: told[str(i)] for i in range(count)}, lines)


def initialise_processes(coordinator: str, num_processes: int, process_id: int) -> None:
    """Joins the processes of one run, if the configuration or the environment asks for it.

    Args:
        coordinator: `host:port` of process 0; "" looks at the environment (JAX_COORDINATOR_ADDRESS,
            or a Slurm, Open MPI or TPU-pod job of several processes, which JAX recognises).
        num_processes: how many there are; 0 with an environment that knows.
        process_id: this one; -1 with an environment that knows.

    Raises:
        UserError: a coordinator without the numbers, or the numbers without one.
        LostError: a coordinator that does not answer, or another process that does not come.
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
    # JAX, when it has waited for long enough, aborts with pages of stacks.
    patience = threading.Timer(_JOINING_TIMEOUT, _give_up)
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            coordinator or None,
            num_processes or None,
            process_id if process_id >= 0 else None,
            initialization_timeout=2 * _JOINING_TIMEOUT,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
        )
    except RuntimeError as error:
        at = f" at {coordinator}" if coordinator else ""
        raise LostError(
            f"could not join the processes of this run{at}: {_first_line(error)}"
        ) from error
    finally:
        patience.cancel()
    if owns_all_devices(os.environ):  # else JAX takes one for each process of a launcher's
        for platform in ("cuda", "rocm"):
            jax.config.update(f"jax_{platform}_visible_devices", "all")


def _give_up() -> None:
    lifeline.end(
        f"error: not all processes of this run came within {_JOINING_TIMEOUT} s; start all of "
        "them, with the same coordinator and number of processes",
        LOST,
    )


def owns_all_devices(environment: Mapping[str, str]) -> bool:
    """Whether all GPUs that this process of a launcher sees are its own.

    They are where it is the only process on its machine, or where the launcher gave each its own,
    as Slurm does with `--gpus-per-task`; then it sees fewer than there are processes, or says so.
    Otherwise the processes of a machine see the same ones, and take the one of their number.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    count = _count_processes_here(environment)
    own = any(name in environment for name in ("SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK"))
    return own or count == 1 or (visible != "" and len(visible.split(",")) < count)


def _count_processes_here(environment: Mapping[str, str]) -> int:
    """Of a launcher's job, on this machine; 1 without a launcher."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        return int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"])
    counts: list[int] = []  # of the machines of the job, of which Slurm writes "8(x2),4"
    for count, repeats in re.findall(
        r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    ):
        counts += [int(count)] * int(repeats or 1)
    return counts[int(environment.get("SLURM_NODEID", 0)) % len(counts)]


def _is_cluster_job(environment: Mapping[str, str]) -> bool:
    """Whether a launcher that JAX recognises started more than one process."""
    counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    several = any(int(environment.get(name, "1")) > 1 for name in counts)
    # A job's script sees the job's numbers, but is none of its tasks.
    in_step = "SLURM_NTASKS" not in environment or "SLURM_STEP_NODELIST" in environment
    if (several and in_step) or "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return True
    # Of a TPU machine that was set up by hand its metadata server tells.
    clusters = (cloud_tpu_cluster.GkeTpuCluster, cloud_tpu_cluster.GceTpuCluster)
    return any(c.is_env_present() and c.get_process_count() > 1 for c in clusters)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
