"""Where the time of a prediction goes."""

import contextlib
import time
from collections.abc import Iterator


class Meter:
    """Stopwatches for decoding and for the network, of which the first may run in the second."""

    def __init__(self):
        self._decode = self._network = 0.0

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Counts the time inside as decoding."""
        start = time.perf_counter()
        yield
        self._decode += time.perf_counter() - start

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Counts the time inside as the network's, but for that of decoding."""
        start, before = time.perf_counter(), self._decode
        yield
        self._network += time.perf_counter() - start - (self._decode - before)

    def read(self) -> tuple[float, float]:
        """Milliseconds of decoding and of the network since the last call."""
        read = 1000 * self._decode, 1000 * self._network
        self._decode = self._network = 0.0
        return read
