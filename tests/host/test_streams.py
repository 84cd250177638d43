"""Standard streams that nobody reads, that are full, or that were closed from the start."""

import os
import subprocess
import sys

import pytest
from program import ROOT

from sofnet_jax.host.streams import LastingStream, lasting_streams, printing


def open_broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize(
    "open_stream, reason",
    [
        (open_broken_pipe, "Broken pipe"),
        (lambda: open("/dev/full", "w"), "No space left on device"),
    ],
)
def test_stream_that_fails_is_told_of_once_and_then_discarded(open_stream, reason, capsys):
    with open_stream() as file:
        stream = LastingStream(file, "standard output")
        assert stream.fileno() == file.fileno()
        for _ in range(2):
            assert stream.write("abc") == 3
            stream.flush()
    said = f"note: cannot write to standard output: {reason}; continuing\n"
    assert capsys.readouterr().err == said


def test_what_is_left_at_the_end_does_not_fail_either(monkeypatch, capsys):
    with open_broken_pipe() as file:
        monkeypatch.setattr(sys, "stdout", file)
        with lasting_streams():
            print("abc")
        assert sys.stdout is file
    assert "note: cannot write to standard output" in capsys.readouterr().err


CLOSED = """
import os, sys
from sofnet_jax.host.streams import lasting_streams
with lasting_streams():
    print("out", flush=True)
    print("err", file=sys.stderr, flush=True)
    assert sys.stdin.read() == ""
    assert os.open(sys.argv[0], os.O_RDONLY) > 2
    os.write(1, b"a library"), os.write(2, b"a library")
    os._exit(9)
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_replaced_and_lend_no_descriptor(closed, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(CLOSED)
    done = subprocess.run(f"{sys.executable} {script} {closed} </dev/null", shell=True, cwd=ROOT)
    assert done.returncode == 9


def test_an_error_about_a_file_is_not_one_of_standard_output():
    with pytest.raises(FileNotFoundError, match="/nothing"), printing():
        open("/nothing")
