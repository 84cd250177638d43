"""Instructions of the processor."""

import functools
from pathlib import Path

_INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "asimddp"}  # of x86, and of Arm


@functools.cache
def sums_bytes() -> bool:
    """Return True if Linux reports instructions that sum products of bytes in 32 bits.

    Without such instructions engines add pairs of products in 16 bits, which overflow.
    """
    info = Path("/proc/cpuinfo")
    return info.exists() and not _INSTRUCTIONS.isdisjoint(info.read_text().split())
