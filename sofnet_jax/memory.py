"""What processes take of the machine's memory."""

import math
import os
from pathlib import Path


def read_memory(pid: int | None = None) -> float:
    """Bytes of a process, of what it shares its share; NaN where Linux's /proc does not tell.

    By default of this one.
    """
    try:
        fields = Path(f"/proc/{pid or os.getpid()}/smaps_rollup").read_text().split()
    except OSError:
        return math.nan
    return float(fields[fields.index("Pss:") + 1]) * 1024
