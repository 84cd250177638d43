"""What processes take of the memory of the machine and of its devices."""

import ctypes
import functools
import math
import os
from pathlib import Path

import jax


def read_memory(pid: int | None = None) -> float:
    """Bytes of a process, of what it shares its share; NaN where Linux's /proc does not tell.

    By default of this one.
    """
    try:
        fields = Path(f"/proc/{pid or os.getpid()}/smaps_rollup").read_text().split()
    except OSError:
        return math.nan
    return float(fields[fields.index("Pss:") + 1]) * 1024


def read_peaks() -> dict[str, float]:
    """GiB that this process has held at most: `host`, and `device` of the fullest of its devices.

    What is not told is left out: of a CPU as a device, and of the host without Linux's /proc.
    """
    peaks = {"host": _read_host_peak()}
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if told := [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]:
        peaks["device"] = max(told)
    return {name: size / 2**30 for name, size in peaks.items() if math.isfinite(size)}


def describe_peaks() -> str:
    """The same in words."""
    peaks = [f"{peak:.2f} GiB on the {where}" for where, peak in read_peaks().items()]
    return f"memory at its peak: {', '.join(peaks) or 'not known'}"


def _read_host_peak() -> float:
    """Bytes of this process at its largest; NaN where Linux's /proc does not tell."""
    try:
        fields = Path("/proc/self/status").read_text().split()
        return float(fields[fields.index("VmHWM:") + 1]) * 1024
    except (OSError, ValueError):
        return math.nan


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of mallopt, in malloc.h


_LARGE, _LARGEST = 2**30, 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Makes this process keep memory that it frees, for the next array; whether it could.

    XLA takes the temporary arrays of a program anew at each call on a CPU. From 32 MiB on glibc
    gives such back to the kernel, which clears every page before the program has it again: with
    four frames of 168×168 in ResNet-50 a fifth of the time. The process then stays as large as it
    once was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE) and mallopt(_TRIM_THRESHOLD, _LARGEST))
