"""The time that something may take."""

import contextlib
import itertools
import math
import time
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")


class TimeLimit:
    """Seconds that pass only inside `running` and while `over` draws an item.

    So neither the consumer of a generator nor the items in company with it use them up. Who works
    asks whether they have `passed`.
    """

    def __init__(self, seconds: float = math.inf):
        self.seconds = seconds
        self._spent = 0.0
        self._since = math.inf  # when the clock was started, if it runs

    @property
    def passed(self) -> bool:
        """Whether the seconds are used up."""
        return self._spent + max(time.monotonic() - self._since, 0.0) > self.seconds

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let the clock run; not within itself."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._spent += time.monotonic() - self._since
            self._since = math.inf

    def over(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """Yield the items of a generator; the clock runs while it makes one."""
        with contextlib.closing(items):
            while True:
                with self.running():
                    found = list(itertools.islice(items, 1))
                if not found:
                    return
                yield found[0]
