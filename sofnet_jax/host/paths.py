"""Paths as people write them: `~`, and accents in the form of another system."""

import os
import unicodedata

from sofnet_jax.host.errors import UserError


def expand(path: str | os.PathLike) -> str:
    """The path with the home folder in place of `~`. Raises UserError if there is none."""
    expanded = os.path.expanduser(os.fspath(path))
    if expanded == "~" or expanded.startswith("~/"):
        raise UserError(f"{path}: the home folder is unknown; set HOME, or write the whole path")
    return expanded


def find_spelling(path: str) -> str:
    """The path in the Unicode forms that exist, since macOS decomposes accents and others do not.

    Parts that exist in no form stay as they are.
    """
    if path.isascii() or os.path.lexists(path):
        return path
    folder, name = os.path.split(path)
    names = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    found = [os.path.join(find_spelling(folder), name) for name in names]
    return next(filter(os.path.lexists, found), found[0])
