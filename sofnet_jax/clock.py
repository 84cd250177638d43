"""Where the time of training goes."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import jax

APART = "compilation", "profile"  # what is no part of a step


class Clock:
    """Divides the wall time of steps into waiting for the input, for the device, and the rest.

    While the host waits for either, the device works on what is queued: it lacks input only where
    the host hardly ever waits for the device.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self.steps = 0
        self._now = now
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._start = now()
        self._last = self._count()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside under a name, by which a profile calls it, too.

        The input is "input", the metrics of the step before are "metrics": the device is done with
        that step once they are there.
        """
        start = self._now()
        with jax.profiler.TraceAnnotation(name):
            yield
        self._parts[name] += self._now() - start

    def read(self) -> dict[str, float]:
        """Scalars of the steps since the last call; the shares of a step sum to 1."""
        now = self._count()
        seconds, shares = _divide({name: now[name] - self._last[name] for name in now})
        self._last = now
        names = "time/input_wait", "time/device_wait", "time/host"
        return {"time/step_seconds": seconds, **dict(zip(names, shares, strict=True))}

    def describe(self) -> str:
        """All steps so far, in words."""
        seconds, shares = _divide(self._count())
        waits, device, host = (f"{100 * share:.0f} %" for share in shares)
        return f"{seconds:.3g} s a step: input {waits}, device {device}, host {host}"

    def _count(self) -> dict[str, float]:
        """Steps so far, and their seconds."""
        apart = sum(self._parts[name] for name in APART)
        return {
            "steps": float(self.steps),
            "total": self._now() - self._start - apart,
            "input": self._parts["input"],
            "device": self._parts["metrics"],
        }


def _divide(spent: dict[str, float]) -> tuple[float, tuple[float, float, float]]:
    """Seconds a step; the shares of waiting for the input, for the device, and of the rest."""
    total = max(spent["total"], 1e-9)
    waits, device = spent["input"] / total, spent["device"] / total
    return total / max(spent["steps"], 1), (waits, device, 1 - waits - device)
