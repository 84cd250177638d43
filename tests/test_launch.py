"""The shell scripts of launch/: their syntax, and when a Slurm job goes back into the queue."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(path.name for path in (ROOT / "launch").glob("*.sh"))
# What Slurm's commands do here: `srun` begins by saving a checkpoint, if it is told of one. Seconds
# are short, or nothing.
STAND_INS = {
    "srun": 'printf "%s\\n" "$@" >arguments\n[[ -z $SAVED ]] || mkdir -p "run/checkpoints/$SAVED"\n'
    'eval "$FIRST"\nprintf "$REPORT" >&2\nexit "$CODE"\n',
    "sleep": "[[ -n $FIRST ]] || exec /bin/sleep 0.02\n",
    "squeue": 'echo "$STATE"\n',
    "scontrol": 'echo "$@" >>requeued\n',
}
KILLED = "srun: error: node2: task 1: Killed\\nsrun: error: node1: task 0: Terminated\\n"
STOPPED = "srun: error: node1: tasks 0-1: Exited with exit code 143\\n"
MOURNED = "srun: error: node1: task 0: Exited with exit code 75\\n"


@pytest.mark.parametrize("name", SCRIPTS)
def test_bash_can_parse(name):
    subprocess.run(["bash", "-n", ROOT / "launch" / name], check=True)


@pytest.mark.parametrize(
    "name", ["processes.sh", "slurm.sh", "sweep.sh", "sweep_array.sh", "workstation.sh"]
)
def test_without_arguments_a_script_says_how_it_is_used(name):
    ended = subprocess.run([ROOT / "launch" / name], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: ") and "CONFIG WORKDIR [FLAG…]" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


class Job:
    """A Slurm job of `launch/slurm.sh` in a folder, among stand-ins for Slurm's commands."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "bin"
        self.path.mkdir()
        for name, text in STAND_INS.items():
            file = self.path / name
            file.write_text("#!/usr/bin/env bash\n" + text)
            file.chmod(0o755)

    def start(
        self, code: int, report: str = "", *, saved: str = "", first: str = "", state="RUNNING"
    ) -> tuple[int, bool, str]:
        """The script's exit code, whether it went back into the queue, and its last line."""
        requeued = self.folder / "requeued"
        requeued.unlink(missing_ok=True)
        slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "sofnet", "SLURM_CPUS_PER_TASK": "3"}
        told = {"CODE": str(code), "REPORT": report, "SAVED": saved, "FIRST": first, "STATE": state}
        ended = subprocess.run(
            [ROOT / "launch" / "slurm.sh", "configs/c.py", "run", "--config.seed=1 2"],
            env=slurm
            | told
            | {"PATH": f"{self.path}:{os.environ['PATH']}", "PYTHON": "python"}
            | {"SLURM_SUBMIT_DIR": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        again = requeued.exists() and requeued.read_text() == "requeue 7\n"
        return ended.returncode, again, ended.stdout.splitlines()[-1]


@pytest.fixture
def job(tmp_path) -> Job:
    return Job(tmp_path)


def test_every_process_of_a_slurm_job_gets_the_command_and_a_log(job):
    code, again, last = job.start(0)
    assert (code, again) == (0, False)
    assert last.endswith("job 7: finished; the result is in run/result.json")
    arguments = (job.folder / "arguments").read_text().splitlines()
    assert "--output=run/slurm/sofnet-7-%t.log" in arguments
    assert arguments[arguments.index("python") :] == [
        *("python", "-m", "sofnet_jax.main", "--config", "configs/c.py"),
        *("--workdir", "run", "--config.seed=1 2"),
    ]


@pytest.mark.parametrize("report", [STOPPED, KILLED, "srun: error: Node failure on node2\\n", ""])
def test_a_job_that_was_stopped_or_lost_a_process_goes_back_into_the_queue(job, report):
    _, again, last = job.start(143, report, saved="12")
    assert again and "requeued at step 12" in last


def test_a_mistake_of_one_process_ends_the_job_though_srun_kills_the_others(job):
    report = "srun: error: node2: task 1: Exited with exit code 1\\n"
    code, again, last = job.start(137, report + "srun: error: node1: task 0: Killed\\n", saved="12")
    assert (code, again) == (1, False) and "failed at step 12 with code 1" in last


def test_a_process_that_mourns_a_killed_one_makes_no_mistake(job):
    report = KILLED + "srun: error: node1: task 0: Exited with exit code 1\\n"
    assert job.start(137, report)[1]


@pytest.mark.parametrize("on_sigterm", ["-", "''"])  # `trap`'s words for ending and for deafness
def test_srun_that_waits_for_a_lost_node_is_ended(job, on_sigterm):
    first = f'printf "$REPORT" >&2; trap {on_sigterm} TERM; exec /bin/sleep 30'
    code, again, last = job.start(0, MOURNED, saved="12", first=first)
    assert code == {"-": 143, "''": 137}[on_sigterm]
    assert again and "requeued at step 12 (Exited with exit code 75)" in last


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING"])
def test_a_script_that_gets_sigterm_waits_for_the_processes_to_save(job, state):
    first = "kill -TERM $PPID; /bin/sleep 0.1; mkdir -p run/checkpoints/12"
    code, again, last = job.start(143, STOPPED, first=first, state=state)
    assert (code, again) == (143, state == "RUNNING") and "at step 12" in last


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", ""])
def test_what_slurm_ends_itself_is_left_to_slurm(job, state):
    code, again, last = job.start(143, STOPPED, state=state)
    assert (code, again) == (143, False) and last.endswith("ended by Slurm at step 0")


def test_three_starts_without_a_new_checkpoint_end_the_job(job):
    def starts(*saved: str) -> list[bool]:
        return [job.start(137, KILLED, saved=step)[1] for step in saved]

    assert starts("", "") == [True, True]
    assert starts("9", "10", "10", "10", "10") == [True, True, True, True, False]
    assert starts("10", "2", "11") == [True, True, True]  # by hand again; step 2 is not the newest
