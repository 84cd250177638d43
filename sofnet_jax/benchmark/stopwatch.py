"""Measure functions beside each other, and describe the host."""

import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax

from sofnet_jax.host.git import read_commit
from sofnet_jax.host.workers import count_cores

Key = TypeVar("Key")


STEADY = 1.3  # of what was measured: a median this much above the best was disturbed
BUSY = 0.5  # of the processes that want to run beside this one


class Times(NamedTuple):
    """The least and the median time of several calls."""

    best: float
    median: float

    @property
    def is_steady(self) -> bool:
        """Whether median and best are close, as on an idle machine."""
        return self.median <= STEADY * self.best

    def scale(self, factor: float) -> "Times":
        """The same in another unit."""
        return Times(self.best * factor, self.median * factor)


def interleave(functions: Mapping[Key, Callable[[], Any]], repeats: int) -> dict[Key, float]:
    """Median seconds of functions called in turn, after one call each to compile and warm up."""
    return {name: each.median for name, each in time_in_turn(functions, repeats).items()}


def time_in_turn(functions: Mapping[Key, Callable[[], Any]], repeats: int) -> dict[Key, Times]:
    """Seconds of functions called in turn, after one call each to compile and warm up."""
    times: dict[Key, list[float]] = {name: [] for name in functions}
    for i in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: Times(min(own), statistics.median(own)) for name, own in times.items()}


def describe_load() -> str:
    """The mean load of the last minute, and whether that disturbs a measurement."""
    load = os.getloadavg()[0]
    return f"load {load:.1f}" + (", the machine was busy" if load > BUSY else "")


def describe_tenths(rows: Mapping[str, Sequence[float]], digits: int) -> list[str]:
    """A table with a line for each quantity and a column for each tenth of a measurement."""
    width = max(map(len, rows))
    return [
        f"  {name:<{width}}" + "".join(f" {value:8.{digits}f}" for value in values)
        for name, values in rows.items()
    ]


def describe_host() -> str:
    """The processor, its cores, and the commit."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: *(.+)", info.read_text() if info.exists() else "", re.M)
    processor = name[1].strip() if name else platform.machine()
    return f"{count_cores()} cores of {processor}, commit {read_commit()}"
