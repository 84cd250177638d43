"""Ids, labels and paths in foreign files: what may become a name here, and what may not."""

import re

from sofnet_jax.data.annotations.cell import show
from sofnet_jax.host.errors import UserError

YOUTUBE = re.compile(r"[A-Za-z0-9_-]{11}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_DRIVE = re.compile(r"[A-Za-z]:")
_MAX_NAME = 1000


def check_id(place: str, id: str) -> str:
    """The id, if it is letters, digits, `-` and `_`; raises UserError."""
    if not _ID.fullmatch(id):
        raise UserError(
            f"{place}: {show(id)} is no id of a video; it may hold letters, digits, '-' and '_'"
        )
    return id


def strip_prefix(id: str) -> str:
    """An id without the `v_` that many put in front; an id of YouTube may itself begin so."""
    return id[2:] if id.startswith("v_") and len(id) > 2 and not YOUTUBE.fullmatch(id) else id


def check_label(place: str, label: str) -> str:
    """The name of a class without space around it; raises UserError if it is none."""
    label = label.strip()
    if not label or len(label) > _MAX_NAME or not label.isprintable():
        raise UserError(f"{place}: {show(label)} is no name of a class")
    return label


def check_path(place: str, path: str) -> str:
    """The path, if it stays in the folder that it is relative to; raises UserError."""
    if not path or len(path) > _MAX_NAME or not path.isprintable():
        raise UserError(f"{place}: {show(path)} is no path of a video")
    parts = path.replace("\\", "/").split("/")
    if parts[0] == "" or _DRIVE.match(path) or ".." in parts:
        raise UserError(
            f"{place}: the path {show(path)} leads elsewhere; "
            "write it relative to the folder of the videos, without '..'"
        )
    return path.removeprefix("./")
