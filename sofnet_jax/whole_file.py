"""Files that are written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it when that succeeded.

    After an error nothing is left of it, and a file that `path` was before is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
