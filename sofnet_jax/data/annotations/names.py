"""Ids, labels, paths, file extensions and splits as annotation files write them."""

import re
from collections.abc import Iterable
from pathlib import Path

from sofnet_jax.data.annotations.files import show
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


_SOUND = re.compile(r"\w.*[\w)]|\w")  # begins and ends as a name does


class Spelling:
    """Gives a name as the file that was learnt first has it, or another one if that is damaged."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def learn(self, names: Iterable[str]) -> None:
        """Takes up names that are not known yet, or known with damage alone."""
        for name in names:
            known = self._names.get(_key(name))
            if known is None or (_SOUND.fullmatch(name) and not _SOUND.fullmatch(known)):
                self._names[_key(name)] = name

    def __contains__(self, name: str | None) -> bool:
        return name is not None and _key(name) in self._names

    def __call__(self, name: str) -> str:
        return self._names.get(_key(name), name)


def _key(name: str) -> str:
    return " ".join(re.findall(r"\w+", name.lower().replace("_", " ")))


EXTENSIONS = tuple(
    ".mp4 .avi .mkv .webm .mov .m4v .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .vob".split()
)


def is_video(name: str) -> bool:
    """Whether a file's name says that it is a video."""
    return name.lower().endswith(EXTENSIONS)


def strip_extension(name: str) -> str:
    """The name without a video's extension."""
    return name.rpartition(".")[0] if is_video(name) else name


_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "val",
    "testing": "val",
}


def parse_split(word: str) -> str | None:
    """The split of our two: what is for testing is `val`; None if the word is no split's."""
    return _WORDS.get(word.strip().lower())


def find_split(path: Path) -> str | None:
    """The split that a word in a file's name tells, else its folder's name; None if it is both."""
    found = {_WORDS[word] for word in re.findall("[a-z]+", path.stem.lower()) if word in _WORDS}
    if found:
        return found.pop() if len(found) == 1 else None
    return parse_split(path.parent.name)
