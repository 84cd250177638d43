"""Imports that do without a package."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def pretend_absence(name: str) -> Iterator[None]:
    """Hides a package from imports inside, unless it is imported already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # makes its import fail
    try:
        yield
    finally:
        del sys.modules[name]
