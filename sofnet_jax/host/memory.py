"""Memory of processes and devices: its use, and how glibc manages it."""

import ctypes
import functools
import math
import os
from pathlib import Path

import jax


def read_memory(pid: int | None = None) -> float:
    """Proportional set size of a process in bytes, by default of this one; NaN without /proc."""
    try:
        fields = Path(f"/proc/{pid or os.getpid()}/smaps_rollup").read_text().split()
    except OSError:
        return math.nan
    return float(fields[fields.index("Pss:") + 1]) * 1024


def read_peaks() -> dict[str, float]:
    """Peak memory of this process in GiB: `host`, and `device` for its fullest device.

    Values that the system does not report are left out: `device` on a CPU, `host` without /proc.
    """
    peaks = {"host": _read_host_peak()}
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if known := [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]:
        peaks["device"] = max(known)
    return {name: size / 2**30 for name, size in peaks.items() if math.isfinite(size)}


def describe_peaks() -> str:
    """`read_peaks` in words."""
    peaks = [f"{peak:.2f} GiB on the {where}" for where, peak in read_peaks().items()]
    return f"peak memory: {', '.join(peaks) or 'unknown'}"


def _read_host_peak() -> float:
    """Peak resident size of this process in bytes; NaN without /proc."""
    try:
        fields = Path("/proc/self/status").read_text().split()
        return float(fields[fields.index("VmHWM:") + 1]) * 1024
    except (OSError, ValueError):
        return math.nan


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # parameters of mallopt, in malloc.h
_LARGE, _LARGEST = 2**30, 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Make this process keep freed memory for its next arrays; return whether it does.

    On a CPU, XLA allocates a program's temporary arrays anew at each call. glibc returns arrays of
    32 MiB or more to the kernel, which clears every page before handing it out again; this takes a
    fifth of the time of ResNet-50 on four frames of 168×168. In return, the process never shrinks.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE) and mallopt(_TRIM_THRESHOLD, _LARGEST))
