"""At most one writer per folder."""

import contextlib
import fcntl
import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sofnet_jax.host.command_line import say_note
from sofnet_jax.host.errors import UserError


class InUseError(UserError):
    """Another process holds the lock of a folder."""


@contextlib.contextmanager
def lock_folder(folder: Path, who: str) -> Iterator[None]:
    """Create the folder and lock it; the system releases the lock however the holder ends.

    `who` names another holder in the error message, e.g. "training". On a file system without
    locks, a note says that another holder would not be noticed.

    Raises:
        InUseError: another process holds the lock.
        UserError: the folder is not writable or contains links.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_links(folder)
        file = (folder / ".lock").open("a")
    except FileExistsError as error:
        kind = "a link that leads nowhere" if os.path.islink(error.filename) else "a file"
        raise UserError(f"{error.filename} is {kind}; give a folder") from error
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        if not try_lock(file):
            raise InUseError(f"{folder} is in use by another {who}; wait for it")
        yield


def try_lock(file: IO, *, wait: bool = False) -> bool:
    """Lock an open file until it is closed; return False if another process holds the lock.

    With `wait`, wait for that process. A file that cannot be locked counts as locked, with a note.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # NFS, Lustre and FUSE may be without locks
        _note_missing_lock(str(file.name), error.strerror or str(error))
    return True


def excludes_others(file: IO) -> bool:
    """True if the lock of this locked file works; False on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@functools.cache  # a sweep asks again and again
def _note_missing_lock(path: str, reason: str) -> None:
    say_note(
        f"{path} cannot be locked ({reason}); let no second command write to this folder, since "
        "neither would notice the other"
    )


def _refuse_links(folder: Path) -> None:
    """Raise UserError for links, which redirect a writer, and pipes, which block it."""
    for path in (*folder.iterdir(), *folder.glob("checkpoints/*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = f"a link to {os.readlink(path)}" if stat.S_ISLNK(mode) else "not a regular file"
            raise UserError(
                f"{path} is {kind}; files written to {folder} must stay there, so remove it "
                "(a link to the whole folder is fine)"
            )
