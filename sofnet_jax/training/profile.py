"""A profile of a few steps of training, for Perfetto and XProf."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import jax
from tqdm import tqdm

SKIPPED = 5  # steps before: compilation, and an input pipeline that fills up
STEPS = 5


def choose_steps(done: int, breaks: Iterable[int]) -> range:
    """The steps to profile of a training that has `done` some.

    Args:
        done: steps before this run.
        breaks: after which steps come an evaluation, another program or the end.

    Returns:
        The first `STEPS` that follow `SKIPPED` others without a break; if there are none, the end
        of the longest stretch without one, of equals the last.
    """
    stretches = list(pairwise([done, *sorted({step for step in breaks if step > done})]))
    for start, end in stretches:
        if end - start >= SKIPPED + STEPS:
            return range(start + SKIPPED + 1, start + SKIPPED + STEPS + 1)
    start, end = max(stretches, key=lambda s: (s[1] - s[0], s[0]), default=(done, done))
    return range(max(start, end - STEPS) + 1, end + 1)


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


class Trace:
    """Profiles the given steps into a folder, beside what is there, and says where.

    If the training ends earlier, it writes what there is. What is asked for beside a training is no
    reason to end it: if the profile cannot be made or written, it says so.
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
        """Names a step in the profile, if it is to be seen there; begins and ends it."""
        if number not in self._steps:
            yield
            return
        if not self._recorded:
            with clock.part("profile"):
                begun = self._begin()
            if not begun:
                yield
                return
        self._recorded.append(number)
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == self._steps[-1]:
            with clock.part("profile"):
                jax.block_until_ready(jax.live_arrays())  # the device is a step behind
                self._write()

    def _begin(self) -> bool:
        """Whether it could."""
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # it slows down the host, and hides the regions named here
        try:
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
        except (OSError, RuntimeError, ValueError) as error:
            self._steps = range(0)
            tqdm.write(f"no profile: {error}")
            return False
        return True

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
