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
        self._left = seconds
        self._until = math.inf  # the time of their end, while the clock runs

    @property
    def passed(self) -> bool:
        """True once the seconds are used up."""
        return time.monotonic() > self._until or self._left < 0

    def end(self) -> None:
        """Let them all pass at once."""
        self._left = self._until = -math.inf

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let the clock run; not within itself."""
        self._until = time.monotonic() + self._left
        try:
            yield
        finally:
            self._left = self._until - time.monotonic()
            self._until = math.inf

    def over(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """Yield the items of a generator; the clock runs while it makes one."""
        with contextlib.closing(items):
            while True:
                with self.running():
                    found = list(itertools.islice(items, 1))
                if not found:
                    return
                yield found[0]
