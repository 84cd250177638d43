"""Packages that others import without need."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def pretend_absence(name: str) -> Iterator[None]:
    """Makes imports of a package fail inside, unless it has been imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's sign for: not there
    try:
        yield
    finally:
        del sys.modules[name]
