"""The processes of a run: how they find each other, and how they end."""

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

from sofnet_jax.host.errors import LOST, LostError, UserError, choose_exit_code, first_line
from sofnet_jax.host.signals import Interrupted
from sofnet_jax.parallel import lifeline
from sofnet_jax.parallel.devices import gather_dict, require_devices

# Seconds after which JAX aborts a run with a silent process; the lifeline is sooner and says more.
_HEARTBEAT_TIMEOUT = int(lifeline.SILENCE) + 10
_JOINING_TIMEOUT = 300  # seconds for all processes to start
_MEETING_TIMEOUT = 60.0  # seconds for started processes to connect to process 0


@contextlib.contextmanager
def join_processes(coordinator: str, num_processes: int, process_id: int) -> Iterator[None]:
    """Make this process part of a run of several, for the arguments see `initialise_processes`.

    When a process dies, the others end within a minute with exit code `errors.LOST`; when one stops
    with an error, the others end with its exit code. Raises UserError.
    """
    initialise_processes(coordinator, num_processes, process_id)
    require_devices()
    if jax.process_count() == 1:
        yield
        return
    line = _hold_line()
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) and not isinstance(error, UserError | Interrupted):
            line.await_news()  # a sum over all processes fails when one has died
        if isinstance(error, Interrupted):
            line.conclude()
        else:
            code = choose_exit_code(error)
            line.conclude(failed=code)
            atexit.register(_leave, code)  # before JAX's own exit handler, which awaits the others
        raise
    line.conclude()


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _hold_line() -> lifeline.Lifeline:
    """Connect this process to process 0, or process 0 to all others."""
    me, count = jax.process_index(), jax.process_count()
    token = secrets.token_bytes(16)
    hub = lifeline.Hub(token) if me == 0 else None
    address = {"hub": f"{hub.port} {token.hex()}"} if hub else {}
    shared = gather_dict({str(me): socket.gethostname()} | address)
    try:
        if hub:
            lines = hub.accept(count - 1, _MEETING_TIMEOUT)
        else:
            port, token_hex = shared["hub"].split()
            host = str(distributed.global_state.coordinator_address).rpartition(":")[0].strip("[]")
            token = bytes.fromhex(token_hex)
            lines = {0: lifeline.connect(host, int(port), token, me, _MEETING_TIMEOUT)}
    except OSError as error:
        raise LostError(
            f"process {me} cannot connect to {'the others' if hub else 'process 0'} "
            f"({error.strerror or error}); processes must reach each other on any TCP port"
        ) from error
    return lifeline.Lifeline(me, {i: shared[str(i)] for i in range(count)}, lines)


def initialise_processes(coordinator: str, num_processes: int, process_id: int) -> None:
    """Join the processes of a run, if the configuration or the environment asks for it.

    Args:
        coordinator: `host:port` of process 0; "" consults the environment (JAX_COORDINATOR_ADDRESS,
            or a Slurm, Open MPI or TPU-pod job of several processes, which JAX detects).
        num_processes: number of processes; 0 consults the environment.
        process_id: index of this process; -1 consults the environment.

    Raises:
        UserError: a coordinator is given without the numbers, or numbers without a coordinator.
        LostError: the coordinator does not answer, or a process does not come.
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
    # JAX itself, after its timeout, aborts with pages of stack traces.
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
        raise LostError(f"could not join the run{at}: {first_line(error)}") from error
    finally:
        patience.cancel()
    if owns_all_devices(os.environ):  # JAX would use one per process of a launcher
        for platform in ("cuda", "rocm"):
            jax.config.update(f"jax_{platform}_visible_devices", "all")


def _give_up() -> None:
    lifeline.end(
        f"error: not all processes of this run came within {_JOINING_TIMEOUT} s; start all of "
        "them with the same coordinator and number of processes",
        LOST,
    )


def owns_all_devices(environment: Mapping[str, str]) -> bool:
    """Whether all GPUs visible to this process belong to it alone.

    They do if it is the only process on its machine, or if the launcher assigned GPUs to each, as
    Slurm does with `--gpus-per-task`: then a variable says so, or fewer GPUs than processes are
    visible. Otherwise all processes of a machine see the same GPUs and take one each, by index.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES", "")
    count = _count_processes_here(environment)
    own = any(name in environment for name in ("SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK"))
    return own or count == 1 or (visible != "" and len(visible.split(",")) < count)


def _count_processes_here(environment: Mapping[str, str]) -> int:
    """Number of the job's processes on this machine; 1 without a launcher."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        return int(environment["OMPI_COMM_WORLD_LOCAL_SIZE"])
    counts: list[int] = []  # per machine; Slurm writes "8(x2),4"
    for count, repeats in re.findall(
        r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    ):
        counts += [int(count)] * int(repeats or 1)
    return counts[int(environment.get("SLURM_NODEID", 0)) % len(counts)]


def _is_cluster_job(environment: Mapping[str, str]) -> bool:
    """Whether a launcher that JAX detects started more than one process."""
    counts = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    several = any(int(environment.get(name, "1")) > 1 for name in counts)
    # A job's script sees the job's variables, but is not one of its tasks.
    in_step = "SLURM_NTASKS" not in environment or "SLURM_STEP_NODELIST" in environment
    if (several and in_step) or "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return True
    # For a TPU machine set up by hand, the metadata server knows.
    clusters = (cloud_tpu_cluster.GkeTpuCluster, cloud_tpu_cluster.GceTpuCluster)
    return any(c.is_env_present() and c.get_process_count() > 1 for c in clusters)
