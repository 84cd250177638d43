"""Errors that users see without a traceback, and exit codes."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from sofnet_jax.host.address import mask_passwords

MISTAKE = 1  # by the user: the same command would fail again
DEFECT = 70  # in the program or the machine; a traceback is shown
LOST = 75  # another process or machine is gone: the same command may succeed
INTERRUPTED = 130
# What helps where nothing more can be written.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space or have the quota raised",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "make the file system writable",
}


class UserError(Exception):
    """A user's mistake, in one line: what is wrong, where, and what to do about it."""

    exit_code = MISTAKE

    def __init__(self, text: str):
        super().__init__(mask_passwords(text))


class DamagedError(UserError):
    """A file is incomplete or differs from what was written."""


class LostError(UserError):
    """Another process or machine is missing."""

    exit_code = LOST


def choose_exit_code(error: BaseException) -> int:
    """The exit code for an exception."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return getattr(error, "exit_code", DEFECT)


@contextlib.contextmanager
def explain_full_disk(workdir: Path) -> Iterator[None]:
    """Turn errors about a disk that takes no more into UserError, whatever their type.

    It names the file, or `workdir` if the error does not say.

    TensorStore, which writes checkpoints, raises ValueError with the system's message.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for code, remedy in _REMEDIES.items():
            if (reason := os.strerror(code)) in str(error):
                place = getattr(error, "filename", None) or workdir
                raise UserError(
                    f"cannot write to {place}: {reason}; {remedy} and run the same command to "
                    "resume from the last checkpoint"
                ) from error
        raise


@contextlib.contextmanager
def explain_unreadable() -> Iterator[None]:
    """Turn the system's errors about files and folders into UserError, which names them."""
    try:
        yield
    except OSError as error:
        denied = isinstance(error, PermissionError)
        remedy = "; change its permissions or leave it out" if denied else ""
        place = error.filename or "the current folder"  # it alone is asked for without a name
        raise UserError(f"{place}: cannot be read ({error.strerror}){remedy}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, printable and short; its type if it has no message."""
    text = str(error).strip() or type(error).__name__
    return shorten("".join(c if c.isprintable() else "?" for c in text.splitlines()[0]))


def shorten(text: str, length: int = 160) -> str:
    """Cut a text to `length` characters, with an ellipsis in place of the rest."""
    return text if len(text) <= length else text[: length - 1] + "…"
