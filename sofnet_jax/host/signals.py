"""SIGTERM and Ctrl-C, as a request to stop at the next good moment."""

import os
import signal
import time
from typing import Any

# Slurm, when it preempts a job, sends SIGTERM twice within milliseconds.
SECONDS_OF_ONE_REQUEST = 1.0


class Interruption:
    """Turns SIGTERM and Ctrl-C into a request that the loop honours after the step at hand.

    It says so at once, since a step, or its compilation, may take a while. A second signal acts
    immediately, unless it comes with the first.
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
            # Not through `sys.stderr`, in whose middle the signal may have come.
            os.write(2, b"stopping after this step, saving; once more to stop immediately\n")
        elif now - self._since > SECONDS_OF_ONE_REQUEST:
            self._restore()
            signal.raise_signal(signum)

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def __exit__(self, *_) -> None:
        self._restore()


class Interrupted(Exception):
    """Training was asked to stop, saved its state and stopped."""

    def __init__(self, step: int, signum: int):
        super().__init__(f"stopped at step {step}; the same command goes on from there")
        self.exit_code = 128 + (signum or signal.SIGTERM)
