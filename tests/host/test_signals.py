"""A request to stop, as a process is sent it."""

import os
import signal
import subprocess
import sys
import time
from unittest.mock import Mock

import pytest
from program import ROOT

from sofnet_jax.host.signals import (
    SECONDS_OF_ONE_REQUEST,
    Interruption,
    repeating_interrupts,
    starting,
)

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


def test_ctrl_c_in_the_start_ends_it_at_once():
    program = """
import os, signal
from sofnet_jax.host.signals import starting
signal.signal(signal.SIGINT, signal.default_int_handler)
with starting():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"interrupted\n")


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_after_the_start_ctrl_c_is_as_before(handler, set_handler):
    set_handler(handler)
    with starting():
        pass
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_that_python_drops_comes_again(set_handler):
    class Odd:
        def __del__(self):
            raise KeyboardInterrupt

    set_handler(signal.default_int_handler)
    hook = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), repeating_interrupts():
        Odd()
        time.sleep(5)
    assert sys.unraisablehook is hook
