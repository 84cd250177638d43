"""Standard streams whose other end is missing: work goes on without them."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from sofnet_jax.host.errors import UserError


class LastingStream:
    """A stream that drops what is written once that fails, with a note on standard error."""

    def __init__(self, stream: Any, title: str):
        """Write to `stream`, a file of text, which the note calls `title`."""
        self.stream, self._title = stream, title

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        self._attempt(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._attempt(self.stream.flush)

    def _attempt(self, write: Any, *arguments: str) -> None:
        try:
            write(*arguments)
        except OSError as error:
            discard(self.stream)
            reason = error.strerror or error
            print(f"note: cannot write to {self._title}: {reason}; continuing", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def discard(stream: Any) -> None:
    """Send to /dev/null what a stream holds and what is still written to it."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """Make standard output and standard error of this process `LastingStream`s.

    Those that were closed from the start become /dev/null, lest a file that is opened later takes
    their descriptor and with it what libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # as they are numbered
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    with (
        contextlib.redirect_stderr(LastingStream(sys.stderr, "standard error")),
        contextlib.redirect_stdout(LastingStream(sys.stdout, "standard output")),
    ):
        try:
            yield
        finally:
            sys.stdout.flush()  # Python, which does so when it ends, would fail


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Stop quietly once nobody reads standard output; raise UserError if writing it fails."""
    with contextlib.redirect_stdout(getattr(sys.stdout, "stream", sys.stdout)):
        try:
            yield
            print(end="", flush=True)  # sys.stdout is None if it was closed from the start
        except OSError as error:
            if error.filename is not None:  # it is about a file
                raise
            discard(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                reason = error.strerror or error
                raise UserError(f"cannot write to standard output: {reason}") from error
