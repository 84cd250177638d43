import subprocess
import sys

import pytest

from sofnet_jax.host.errors import LOST, UserError
from sofnet_jax.parallel import processes


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "n[1-2]"}, True),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),  # the script of a job, not a task
        ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "host0,host1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_cluster_jobs_are_recognised(environment, expected):
    assert processes._is_cluster_job(environment) is expected


def test_tpu_machines_set_up_by_hand_are_recognised(monkeypatch):
    cluster = processes.cloud_tpu_cluster.GceTpuCluster
    monkeypatch.setattr(cluster, "is_env_present", classmethod(lambda cls: True))
    for count, expected in ((1, False), (2, True)):
        monkeypatch.setattr(cluster, "get_process_count", classmethod(lambda cls, n=count: n))
        assert processes._is_cluster_job({}) is expected


SIX = {"SLURM_STEP_TASKS_PER_NODE": "2(x2),1,4(x3)"}  # machines


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        (SIX | {"SLURM_NODEID": "1"}, False),
        (SIX | {"SLURM_NODEID": "2"}, True),
        (SIX | {"SLURM_NODEID": "5"}, False),
        (SIX | {"SLURM_NODEID": "5", "SLURM_GPUS_PER_TASK": "2"}, True),
        (SIX | {"SLURM_NODEID": "5", "CUDA_VISIBLE_DEVICES": "0"}, True),
        (SIX | {"SLURM_NODEID": "5", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, False),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, False),
    ],
)
def test_a_process_owns_the_gpus_that_no_other_one_sees(environment, expected):
    assert processes.owns_all_devices(environment) is expected


@pytest.mark.parametrize(("count", "process"), [(0, 0), (2, 2), (2, -1)])
def test_coordinator_without_sensible_numbers_is_refused(count, process):
    with pytest.raises(UserError, match=r"parallel\.num_processes"):
        processes.initialise_processes("127.0.0.1:1", count, process)


def test_waiting_for_a_process_that_never_comes_ends_in_a_line():
    program = """
from sofnet_jax.parallel import processes
processes._JOINING_TIMEOUT = 1
processes.initialise_processes("127.0.0.1:1", 2, 1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == LOST
    assert "error: not all processes of this run came within 1 s; start all" in done.stderr


def test_numbers_without_a_coordinator_are_refused():
    with pytest.raises(UserError, match=r"no parallel\.coordinator"):
        processes.initialise_processes("", 2, 1)
