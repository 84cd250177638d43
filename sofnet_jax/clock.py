"""Where the time of training goes."""

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Measures the time per step, and the share of it spent waiting for the input."""

    def __init__(self):
        self.steps = 0
        self._waited = 0.0
        self._start = time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as waiting for the input."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def read(self) -> dict[str, float]:
        """Seconds per step and share of waiting since the last call; starts anew."""
        now = time.perf_counter()
        elapsed = now - self._start
        scalars = {
            "time/step_seconds": elapsed / max(self.steps, 1),
            "time/input_wait": self._waited / elapsed,
        }
        self.steps, self._waited, self._start = 0, 0.0, now
        return scalars
