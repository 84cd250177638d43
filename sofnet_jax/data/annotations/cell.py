"""Numbers as files hold them, and text of theirs as messages show it."""

import math
import re

from sofnet_jax.host.command_line import make_printable
from sofnet_jax.host.errors import UserError

_COUNT = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_SHOWN = 60  # characters


def show(value: object) -> str:
    """A value in quotes for a message: one short line, whatever is in it."""
    text = str(value)
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return f"'{make_printable(short)}'"


def parse_count(place: str, what: str, cell: str) -> int:
    """An integer of at most nine digits; raises UserError."""
    if not _COUNT.fullmatch(cell):
        raise UserError(f"{place}: {what} is {show(cell)}; expected a number such as 12")
    return int(cell)


def parse_seconds(place: str, what: str, cell: str) -> float:
    """A finite number, which may be negative; raises UserError."""
    seconds = float(cell) if _DECIMAL.fullmatch(cell) else math.nan
    if not math.isfinite(seconds):
        raise UserError(f"{place}: {what} is {show(cell)}; expected seconds such as 12.5")
    return seconds
