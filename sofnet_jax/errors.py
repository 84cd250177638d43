"""The exceptions that are shown to a user without a traceback, and what a process ends with."""

MISTAKE = 1  # of the user's: the same command would end the same way
DEFECT = 70  # of the program or the machine, with a traceback
LOST = 75  # another process or machine is gone: the same command may go well
INTERRUPTED = 130


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
