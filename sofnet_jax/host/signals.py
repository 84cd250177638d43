"""SIGTERM and Ctrl-C as requests to stop at the next suitable moment."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

# On preemption, Slurm sends SIGTERM twice within milliseconds.
SECONDS_OF_ONE_REQUEST = 1.0
_PAUSE = 0.01  # seconds


class Interruption:
    """Turn SIGTERM and Ctrl-C into a request that a loop honours after the current step.

    The request is acknowledged at once, since a step or its compilation may take a while. A second
    signal acts immediately, unless it follows within `SECONDS_OF_ONE_REQUEST`.
    """

    def __init__(self):
        self.signum = 0
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._previous[signum] = signal.signal(signum, self._request)
        return self

    def _request(self, signum: int, _) -> None:
        now = time.monotonic()
        if not self.signum:
            self.signum, self._since = signum, now
            # Not `sys.stderr`, which the signal may have interrupted.
            with contextlib.suppress(OSError):  # nobody may read it
                os.write(2, b"stopping after this step and saving; repeat to stop immediately\n")
        elif now - self._since > SECONDS_OF_ONE_REQUEST:
            self._restore()
            signal.raise_signal(signum)

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def __exit__(self, *_) -> None:
        self._restore()


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Let Ctrl-C end the process at once, while there is nothing to lose.

    Some libraries turn a KeyboardInterrupt during their import into an ImportError.
    """

    def leave(*_) -> None:
        with contextlib.suppress(OSError):  # nobody may read it
            os.write(2, b"interrupted\n")
        os._exit(128 + signal.SIGINT)

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, for example
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def repeating_interrupts() -> Iterator[None]:
    """Repeat a Ctrl-C that comes where Python drops it, as in JAX's part of garbage collection."""
    hook = sys.unraisablehook

    def repeat(odd: Any) -> None:
        if isinstance(odd.exc_value, KeyboardInterrupt):
            main = threading.main_thread().ident
            timer = threading.Timer(_PAUSE, signal.pthread_kill, (main, signal.SIGINT))
            timer.daemon = True
            timer.start()
        else:
            hook(odd)

    sys.unraisablehook = repeat
    try:
        yield
    finally:
        sys.unraisablehook = hook


class Interrupted(Exception):
    """Training stopped on request, with its state saved."""

    def __init__(self, step: int, signum: int):
        super().__init__(f"stopped at step {step}; run the same command to resume")
        self.exit_code = 128 + (signum or signal.SIGTERM)
