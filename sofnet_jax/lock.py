"""One training a folder."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sofnet_jax.errors import UserError


@contextlib.contextmanager
def claim(workdir: Path) -> Iterator[None]:
    """Creates the folder and holds it; the system frees it however the holder ends.

    Raises:
        UserError: another process holds it, or it cannot be written to.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = (workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {workdir}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{workdir} is in use by another training; wait for it") from error
        yield
