"""Real processes, of which one dies; without JAX, so that they start at once."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from sofnet_jax.host.errors import LOST
from sofnet_jax.parallel import lifeline
from sofnet_jax.parallel.lifeline import Hub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COUNT = 3
PROCESS = """
import sys
from sofnet_jax.parallel import lifeline
lifeline._BEAT, lifeline.SILENCE, lifeline._GRACE = 0.1, 1.0, 0.3
process, count = int(sys.argv[1]), int(sys.argv[2])
token = bytes(16)
if process == 0:
    hub = lifeline.Hub(token)
    print(hub.port, flush=True)
    lines = hub.accept(count - 1, 20)
else:
    lines = {0: lifeline.connect("127.0.0.1", int(sys.argv[3]), token, process, 20)}
names = {i: f"machine{i}" for i in range(count)}
line = lifeline.Lifeline(process, names, lines)
print("watching", flush=True)
line.conclude(int(input()))
"""


@pytest.fixture
def processes():
    """All of them, watching each other."""
    command = [sys.executable, "-c", PROCESS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    hub = subprocess.Popen([*command, "0", str(COUNT)], cwd=ROOT, text=True, **pipes)
    port = hub.stdout.readline().strip()
    others = [
        subprocess.Popen([*command, str(i), str(COUNT), port], cwd=ROOT, text=True, **pipes)
        for i in range(1, COUNT)
    ]
    started = [hub, *others]
    for process in started:
        assert process.stdout.readline() == "watching\n"
    yield started
    for process in started:
        with process:  # which closes its pipes
            process.kill()


def end(process: subprocess.Popen) -> tuple[int, str]:
    """Waits for its end: the exit code and what it said."""
    process.wait(20)
    return process.returncode, process.stderr.read().strip()


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_the_others_end_when_a_process_is_killed(victim, processes):
    processes[victim].kill()
    for i in {0, 1, 2} - {victim}:
        code, said = end(processes[i])
        assert code == LOST
        assert said == (
            f"error: process {victim} of 3 (machine{victim}) died; run the same command to resume "
            "from the last checkpoint"
        )


@pytest.mark.parametrize("victim", [0, 2])
def test_the_others_end_when_a_process_is_not_heard_from(victim, processes):
    processes[victim].send_signal(signal.SIGSTOP)
    for i in {0, 1, 2} - {victim}:
        code, said = end(processes[i])
        assert code == LOST and f"process {victim} of 3 (machine{victim})" in said
        assert processes[victim].poll() is None  # it has not died


@pytest.mark.parametrize("victim", [0, 1])
def test_the_others_follow_a_process_that_stops_with_an_error(victim, processes):
    processes[victim].stdin.write("70\n")
    processes[victim].stdin.close()
    for i in {0, 1, 2} - {victim}:
        code, said = end(processes[i])
        assert code == 70
        assert said == (
            f"error: process {victim} of 3 (machine{victim}) stopped with an error, see its "
            "output; so does this one"
        )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_processes_that_are_done_end_nobody(order, processes):
    for i in order:
        assert [process.poll() for process in processes].count(None) >= 1
        processes[i].stdin.write("0\n")
        processes[i].stdin.close()
        assert end(processes[i]) == (0, "")


def test_a_stranger_is_no_process_of_the_run():
    token = os.urandom(16)
    hub = Hub(token)
    lines = []
    for greeting in (b"GET / HTTP/1.1\r\n\r\n" * 3, bytes(20), token + (7).to_bytes(4)):
        lines.append(socket.create_connection(("127.0.0.1", hub.port)))
        lines[-1].sendall(greeting)
    accepted = hub.accept(1, 20.0)
    assert list(accepted) == [7]
    for line in (*lines, *accepted.values()):
        line.close()


def test_waiting_for_a_process_that_never_comes_ends():
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        Hub(bytes(16)).accept(1, 0.1)
    assert time.monotonic() - start < 20


def test_process_ends_when_nobody_reads_standard_error(monkeypatch):
    monkeypatch.setattr(os, "write", Mock(side_effect=BrokenPipeError))
    ended = Mock(side_effect=SystemExit)  # it must not return
    monkeypatch.setattr(os, "_exit", ended)
    with pytest.raises(SystemExit):
        lifeline.end("error: it died", LOST)
    ended.assert_called_once_with(LOST)
