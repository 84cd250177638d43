"""Times of things that run beside each other, and where and on what they were taken."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

from sofnet_jax.host.commit import read_commit
from sofnet_jax.host.workers import count_cores


def interleave(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, called in turn, after one call to compile or to warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def describe_host() -> str:
    """The processor and its cores, and the commit."""
    return f"{count_cores()} cores of {_read_processor()}, commit {read_commit()}"


def _read_processor() -> str:
    with open("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else open(os.devnull) as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
