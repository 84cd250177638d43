"""Ids, labels, paths, extensions and splits as annotation files write them."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from sofnet_jax.data.annotations.files import show
from sofnet_jax.host.errors import UserError

YOUTUBE = re.compile(r"[A-Za-z0-9_-]{11}")
EXTENSIONS = tuple(
    ".mp4 .avi .mkv .webm .mov .m4v .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .vob".split()
)
_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_DRIVE = re.compile(r"[A-Za-z]:")
_MAX_NAME = 1000  # characters
_UNDAMAGED = re.compile(r"\w.*[\w)]|\w")  # begins and ends as a class name does
_SPLITS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(
    ("val", "valid", "validate", "validation", "test", "testing"), "val"
)


def check_id(place: str, id: str) -> str:
    """Return the id if it consists of letters, digits, `-` and `_`; raises UserError."""
    if not _ID.fullmatch(id):
        raise UserError(f"{place}: {show(id)} is not a video id; use letters, digits, '-' and '_'")
    return id


def strip_prefix(id: str) -> str:
    """Remove a leading `v_`, unless the id is a YouTube id that happens to begin with it."""
    return id[2:] if id.startswith("v_") and len(id) > 2 and not YOUTUBE.fullmatch(id) else id


def check_label(place: str, label: str) -> str:
    """Return the stripped class name if it is printable; raises UserError."""
    label = label.strip()
    if not label or len(label) > _MAX_NAME or not label.isprintable():
        raise UserError(f"{place}: {show(label)} is not a class name")
    return label


def check_path(place: str, path: str) -> str:
    """Return the path if it stays in the folder that it is relative to; raises UserError."""
    if not path or len(path) > _MAX_NAME or not path.isprintable():
        raise UserError(f"{place}: {show(path)} is not a video path")
    parts = path.replace("\\", "/").split("/")
    if parts[0] == "" or _DRIVE.match(path) or ".." in parts:
        raise UserError(
            f"{place}: the path {show(path)} leaves the video folder; write it relative to that "
            "folder, without '..'"
        )
    return path.removeprefix("./")


def is_video(name: str) -> bool:
    """Whether a file name has the extension of a video."""
    return name.lower().endswith(EXTENSIONS)


def strip_extension(name: str) -> str:
    """Remove the extension of a video."""
    return name.rpartition(".")[0] if is_video(name) else name


def parse_split(word: str) -> str | None:
    """Map a word to "train" or "val" (which includes test); None if it names no split."""
    return _SPLITS.get(word.strip().lower())


def find_split(path: Path) -> str | None:
    """The split named in a file's name, else by its folder; None if there are none or both."""
    found = {_SPLITS[word] for word in re.findall("[a-z]+", path.stem.lower()) if word in _SPLITS}
    if found:
        return found.pop() if len(found) == 1 else None
    return parse_split(path.parent.name)


def find_folder_split(path: PurePath) -> str:
    """The split that the folders of a path name; "" if there are none or both."""
    found = {split for part in path.parts[:-1] if (split := parse_split(part))}
    return found.pop() if len(found) == 1 else ""


class Spelling:
    """One spelling per class, whatever blanks, case, quotes or damage other files have.

    The first undamaged spelling learnt is used.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def learn(self, names: Iterable[str]) -> None:
        """Add names that are new, or known only in a damaged spelling."""
        for name in names:
            known = self._names.get(_normalise(name))
            if known is None or (_UNDAMAGED.fullmatch(name) and not _UNDAMAGED.fullmatch(known)):
                self._names[_normalise(name)] = name

    def __contains__(self, name: str | None) -> bool:
        return name is not None and _normalise(name) in self._names

    def __call__(self, name: str) -> str:
        return self._names.get(_normalise(name), name)


def _normalise(name: str) -> str:
    return " ".join(re.findall(r"\w+", name.lower().replace("_", " ")))
