"""A request to stop, as a process is sent it."""

import os
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

from sofnet_jax.host.signals import SECONDS_OF_ONE_REQUEST, Interruption

PROGRAM = """
import time
from sofnet_jax.host.signals import Interruption
with Interruption() as interruption:
    print("ready", flush=True)
    while not interruption.signum:
        time.sleep(0.001)
    print(interruption.signum, flush=True)
    time.sleep(60)
"""


def test_signal_is_heeded_when_nobody_reads_standard_error(monkeypatch):
    monkeypatch.setattr(os, "write", Mock(side_effect=BrokenPipeError))
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGTERM)
    assert interruption.signum == signal.SIGTERM


def test_two_signals_at_once_are_one_request_and_a_later_one_acts_immediately():
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stderr.readline().startswith(b"stopping after this step")
        time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"15\n"
        time.sleep(SECONDS_OF_ONE_REQUEST + 0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS_OF_ONE_REQUEST + 10) == -signal.SIGTERM
