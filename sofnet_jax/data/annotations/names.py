"""Ids, labels, paths, extensions and splits as annotation files write them."""

import posixpath
import re
import unicodedata
from pathlib import Path

from sofnet_jax.data.annotations.files import Node, show
from sofnet_jax.host.errors import UserError

YOUTUBE = re.compile(r"[A-Za-z0-9_-]{11}")
EXTENSIONS = tuple(
    ".mp4 .avi .mkv .webm .mov .m4v .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .vob".split()
)
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_DRIVE = re.compile(r"[A-Za-z]:")
_MAX_NAME = 1000  # characters
_SPLITS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("val", "valid", "validate", "validation", "test", "testing"), "val"
)


def check_id(node: Node) -> str:
    """Read an id that consists of letters, digits, `-` and `_`; raises UserError."""
    return node.match(_ID, "a video id; use letters, digits, '-' and '_'")[0]


def strip_prefix(id: str) -> str:
    """Remove a leading `v_`, unless the id is a YouTube id that happens to begin with it."""
    return id[2:] if id.startswith("v_") and len(id) > 2 and not YOUTUBE.fullmatch(id) else id


def compose(text: str) -> str:
    """Text in the Unicode form NFC, in which names are compared: macOS decomposes its accents."""
    return unicodedata.normalize("NFC", text)


def check_label(node: Node) -> str:
    """Read a class name, stripped, printable and in the Unicode form NFC; raises UserError."""
    label = compose(node.text().strip())
    if not label or len(label) > _MAX_NAME or not label.isprintable():
        raise UserError(f"{node.place}: {show(label)} is not a class name")
    return label


def check_path(node: Node) -> str:
    """Read a path that stays in the folder that it is relative to; one spelling per path.

    Raises UserError.
    """
    path = node.text()
    if posixpath.normpath(path) == "." or len(path) > _MAX_NAME or not path.isprintable():
        raise UserError(f"{node.place}: {show(path)} is not a video path")
    parts = path.replace("\\", "/").split("/")
    if parts[0] == "" or _DRIVE.match(path) or ".." in parts:
        raise UserError(
            f"{node.place}: the path {show(path)} leaves the video folder; write it relative to "
            "that folder, without '..'"
        )
    return posixpath.normpath(path)


def is_video(name: str) -> bool:
    """Whether a file name has the extension of a video."""
    return name.lower().endswith(EXTENSIONS)


def strip_extension(name: str) -> str:
    """Remove the extension of a video."""
    return name.rpartition(".")[0] if is_video(name) else name


def find_split(*words: str) -> str:
    """The split, "train" or "val" (which includes test), in words; "" if there are none or both."""
    found = {_SPLITS[word.lower()] for word in words if word.lower() in _SPLITS}
    return found.pop() if len(found) == 1 else ""


def find_file_split(path: Path) -> str:
    """The split that a file's name, or else its folder, names; "" if there is none."""
    return find_split(*re.findall("[a-z]+", path.stem.lower())) or find_split(path.parent.name)


def need_split(path: Path) -> str:
    """The split that a file's name, or else its folder, names; raises UserError."""
    split = find_file_split(path)
    if not split:
        raise UserError(f"{path}: split unknown; put train or val into the file's name")
    return split


def check_split(node: Node) -> str:
    """Read a word that names a split; raises UserError."""
    split = find_split(node.text())
    if not split:
        raise UserError(f"{node.place}: {show(node.value)} is not a split; write train or val")
    return split
