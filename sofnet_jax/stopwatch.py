"""Times of things that run beside each other, and where and on what they were taken."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from sofnet_jax.data.worker import count_cores


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


def read_commit() -> str:
    """The commit of the code, if it is in a repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    where = Path(__file__).parent
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def describe_host() -> str:
    """The processor and its cores, and the commit."""
    return f"{count_cores()} cores of {_read_processor()}, commit {read_commit()}"


def _read_processor() -> str:
    with open("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else open(os.devnull) as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
