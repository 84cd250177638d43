"""The one exception that is shown to a user without a traceback."""


class UserError(Exception):
    """A mistake of the user's, in one line: what is wrong, where, and what to do about it."""
