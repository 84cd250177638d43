"""What the processor can do."""

import functools
from pathlib import Path

_INSTRUCTIONS = {"avx512_vnni", "avx_vnni", "asimddp"}  # of x86, and of Arm


@functools.cache
def sums_bytes() -> bool:
    """Whether it adds products of bytes in 32 bits; False where Linux does not tell.

    Without such instructions engines add pairs of products in 16 bits, which overflow.
    """
    info = Path("/proc/cpuinfo")
    return info.exists() and not _INSTRUCTIONS.isdisjoint(info.read_text().split())
