"""One writer a folder."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from sofnet_jax.errors import UserError


@contextlib.contextmanager
def claim(folder: Path, who: str) -> Iterator[None]:
    """Creates the folder and holds it; the system frees it however the holder ends.

    `who` is what another holder would be called: "training".

    Raises:
        UserError: another process holds it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder} is in use by another {who}; wait for it") from error
        yield
