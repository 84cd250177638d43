"""One writer a folder."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sofnet_jax.host.errors import UserError


@contextlib.contextmanager
def claim(folder: Path, who: str) -> Iterator[None]:
    """Creates the folder and holds it; the system frees it however the holder ends.

    `who` is what another holder would be called: "training".

    Raises:
        UserError: another process holds it, it cannot be written to, or it holds links.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_plain(folder)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{folder} is in use by another {who}; wait for it") from error
        yield


def _require_plain(folder: Path) -> None:
    """Refuses what would make a writer of the folder write elsewhere, or wait for ever."""
    for path in (*folder.iterdir(), *folder.glob("checkpoints/*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = f"a link to {os.readlink(path)}" if stat.S_ISLNK(mode) else "no ordinary file"
            raise UserError(
                f"{path} is {kind}, and what is written must stay in {folder}; remove it. A link "
                "to the whole folder is no mistake"
            )
