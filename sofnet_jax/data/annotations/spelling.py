"""One spelling of each class: files write its name with other blanks, case, quotes, or damage."""

import re
from collections.abc import Iterable

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
