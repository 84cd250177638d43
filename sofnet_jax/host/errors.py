"""The exceptions that are shown to a user without a traceback, and what a process ends with."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

MISTAKE = 1  # of the user's: the same command would end the same way
DEFECT = 70  # of the program or the machine, with a traceback
LOST = 75  # another process or machine is gone: the same command may go well
INTERRUPTED = 130
# What a system says where nothing more can be written.
_NO_ROOM = [os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)]


class UserError(Exception):
    """A mistake of the user's, in one line: what is wrong, where, and what to do about it."""

    exit_code = MISTAKE


class LostError(UserError):
    """Another process or machine is not there, or no longer."""

    exit_code = LOST


def choose_exit_code(error: BaseException) -> int:
    """What a process ends with after an exception."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return getattr(error, "exit_code", DEFECT)


@contextlib.contextmanager
def explain_full_disk(workdir: Path) -> Iterator[None]:
    """Turns to UserError what is raised for want of room, by the system or with its words.

    TensorStore, which writes the arrays of a checkpoint, raises ValueError.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for reason in _NO_ROOM:
            if reason in str(error):
                raise UserError(
                    f"cannot write to {workdir}: {reason}; make room, and the same command goes on "
                    "from the last checkpoint"
                ) from error
        raise


def first_line(error: BaseException) -> str:
    """The first line of an error's message, printable and short; its type if it has no message."""
    text = str(error).strip() or type(error).__name__
    return shorten("".join(c if c.isprintable() else "?" for c in text.splitlines()[0]))


def shorten(text: str, length: int = 160) -> str:
    """Cut a text to `length` characters, with an ellipsis in place of the rest."""
    return text if len(text) <= length else text[: length - 1] + "…"
