"""Where the time of training steps goes: a clock, and a profile for Perfetto and XProf."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

SKIPPED = 5  # steps before a profile: compilation, and an input pipeline that fills up
STEPS = 5
APART = "compilation", "profile"  # not part of a step


class Clock:
    """Divides the wall time of steps into waiting for the input, for the device, and the rest.

    While the host waits for either, the device works on what is queued: it lacks input only if the
    host hardly ever waits for the device.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self.steps = 0
        self._now = now
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._start = now()
        self._last = self._count()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside under a name, which a profile shows, too.

        `input` waits for the next batch; `metrics` waits for the device to finish the previous
        step.
        """
        start = self._now()
        with jax.profiler.TraceAnnotation(name):
            yield
        self._parts[name] += self._now() - start

    def read(self) -> dict[str, float]:
        """Scalars of the steps since the last call; the shares of a step sum to 1."""
        now = self._count()
        values = _divide(now - self._last)
        self._last = now
        names = "step_seconds", "input_wait", "device_wait", "host"
        return {f"time/{name}": value for name, value in zip(names, values, strict=True)}

    def describe(self) -> str:
        """All steps so far, in words."""
        seconds, *shares = _divide(self._count())
        waits, device, host = (f"{100 * share:.0f} %" for share in shares)
        return f"{seconds:.3g} s a step: input {waits}, device {device}, host {host}"

    def _count(self) -> Float[np.ndarray, "4"]:
        """Steps so far, and their seconds: in all, waiting for the input, and for the device."""
        total = self._now() - self._start - sum(self._parts[name] for name in APART)
        return np.array([self.steps, total, self._parts["input"], self._parts["metrics"]])


def _divide(spent: Float[np.ndarray, "4"]) -> tuple[float, float, float, float]:
    """Seconds a step; the shares of waiting for the input, for the device, and of the rest."""
    steps, total, waits, device = spent.tolist()
    total = max(total, 1e-9)
    waits, device = waits / total, device / total
    return total / max(steps, 1), waits, device, 1 - waits - device


def choose_steps(done: int, breaks: Iterable[int]) -> range:
    """The steps to profile, after `done` ones.

    They are the first `STEPS` that follow `SKIPPED` others without a break: an evaluation, another
    program or the end. Otherwise they are the end of the longest stretch without a break, the last
    of equals. `breaks` are the steps followed by one.
    """
    stretches = list(pairwise([done, *sorted({step for step in breaks if step > done})]))
    for start, end in stretches:
        if end - start >= SKIPPED + STEPS:
            return range(start + SKIPPED + 1, start + SKIPPED + STEPS + 1)
    start, end = max(stretches, key=lambda s: (s[1] - s[0], s[0]), default=(done, done))
    return range(max(start, end - STEPS) + 1, end + 1)


class Trace:
    """Profiles the given steps into a folder, next to earlier profiles, and prints where.

    If training ends earlier, the profile holds fewer steps. A profile that cannot be made or
    written is reported; training continues.
    """

    def __init__(self, folder: Path, steps: range):
        self._folder, self._steps = folder, steps
        self._recorded: list[int] = []

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *_) -> None:
        if self._recorded:
            self._write()

    @contextlib.contextmanager
    def step(self, number: int, clock: Clock) -> Iterator[None]:
        """Marks a step, if it is one to profile; starts and stops the profiler."""
        if number in self._steps and not self._recorded:
            with clock.part("profile"):
                self._start()
        if number not in self._steps:
            yield
            return
        self._recorded.append(number)
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == self._steps[-1]:
            with clock.part("profile"):
                jax.block_until_ready(jax.live_arrays())  # the device is a step behind
                self._write()

    def _start(self) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # slows down the host, and hides the regions named here
        try:
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
        except (OSError, RuntimeError, ValueError) as error:
            self._steps = range(0)
            tqdm.write(f"no profile: {error}")

    def _write(self) -> None:
        first, last = self._recorded[0], self._recorded[-1]
        self._recorded = []
        try:
            jax.profiler.stop_trace()
            paths = self._folder.glob("plugins/profile/*/perfetto_trace.json.gz")
            path = max(paths, key=lambda path: path.stat().st_mtime)
        except (OSError, RuntimeError, ValueError) as error:
            tqdm.write(f"no profile: {error}")
            return
        tqdm.write(
            f"profile of steps {first} to {last}: open {path} at https://ui.perfetto.dev, or "
            f"{self._folder} in XProf"
        )
