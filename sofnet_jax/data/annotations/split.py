"""Which split a word, or the name of a file, stands for."""

import re
from pathlib import Path

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
