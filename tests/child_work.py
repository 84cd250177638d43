"""What children in tests do; without imports that take time."""

import os
import signal
import time
from collections.abc import Iterator


def work(item: tuple[str, int]) -> Iterator[int]:
    """Counts to a number, and then does what the item says."""
    what, count = item
    yield from range(count)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "sleep":
        time.sleep(60)
    elif what == "raise":
        raise ValueError("no such thing")
    elif what == "who":
        yield os.getpid()
