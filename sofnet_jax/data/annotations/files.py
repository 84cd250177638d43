"""Annotation files: found, opened, and told apart by their contents."""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from sofnet_jax.host.command_line import make_printable
from sofnet_jax.host.errors import UserError, explain_unreadable

# Suffixes searched for in a folder; a file given by name may have any.
_SUFFIXES = (".csv", ".json", ".list", ".lst", ".mat", ".tsv", ".txt")
_SAMPLE = 40  # rows that decide what a file is
_LONGEST = 2000  # characters of a row in the sample
_MARK = b"\xef\xbb\xbf"  # the byte order mark that some editors put before UTF-8
# Folders that macOS, Windows, file servers and file systems leave among others, in lower case.
_LITTER = (
    *("__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin"),
    *("system volume information", "lost+found"),
)
_SHOWN = 60  # characters of a value in a message
_COUNT = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def show(value: object) -> str:
    """Quote a value for a message: one short, printable line."""
    text = str(value)
    short = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return f"'{make_printable(short)}'"


def check_order(place: str, start: float | None, end: float | None) -> None:
    """Raise UserError unless 0 <= `start` < `end`, where given."""
    if start is not None and start < 0:
        raise UserError(f"{place}: start {start:g} is before the video; give seconds from 0")
    if end is not None and end <= (start or 0.0):
        raise UserError(f"{place}: end {end:g} is not after start {start or 0.0:g}")


class Notes:
    """Harmless oddities of the files, counted by kind, with the first example of each kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, *examples: str) -> None:
        """Count the examples of a kind."""
        if examples:
            count, first = self._kinds.get(kind, (0, examples[0]))
            self._kinds[kind] = count + len(examples), first

    def say(self, line: str) -> None:
        """Add a line that counts nothing."""
        self._kinds.setdefault(line, (0, ""))

    def lines(self) -> tuple[str, ...]:
        """One line per kind, in the order of the first examples."""
        return tuple(
            f"{kind}: {count:,}, first {example}" if count else kind
            for kind, (count, example) in self._kinds.items()
        )


@dataclass(frozen=True)
class Node:
    """A value of a file that knows its `place`: `<file>` or `<file>:<row>`, then `: <keys>`.

    The file may be JSON, a table, whose rows are objects of text, or MATLAB's. Reading a value as a
    type that it does not have raises UserError; a number may be written as text.
    """

    place: str
    value: Any

    def get(self, key: str) -> "Node | None":
        """The value under a key of an object; None if it is missing, null or empty text."""
        value = self._expect(dict, "an object").get(key)
        return None if value is None or value == "" else Node(self._join(key), value)

    def need(self, key: str) -> "Node":
        """The value under a key of an object; raises UserError if there is none."""
        node = self.get(key)
        if node is None:
            raise UserError(f"{self.place}: no '{key}'")
        return node

    def get_text(self, key: str) -> str:
        """The string under a key of an object; "" if there is none."""
        node = self.get(key)
        return node.text() if node else ""

    def get_number(self, key: str) -> float | None:
        """The number under a key of an object; None if there is none."""
        node = self.get(key)
        return node.number() if node else None

    def get_list(self, *keys: str) -> "list[Node]":
        """The elements of the lists under keys of an object; none where there is no list."""
        lists = filter(None, map(self.get, keys))
        return [element for node in lists for element in node.elements()]

    def items(self) -> Iterator[tuple[str, "Node"]]:
        """The keys and values of an object."""
        for key, value in self._expect(dict, "an object").items():
            yield key, Node(self._join(key), value)

    def elements(self) -> list["Node"]:
        """The elements of a list."""
        place = self.place if ": " in self.place else f"{self.place}: "
        values = self._expect(list, "a list")
        return [Node(f"{place}[{i}]", value) for i, value in enumerate(values)]

    def text(self) -> str:
        """A string."""
        return self._expect(str, "text")

    def match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        """The match of a whole string, which must be what is expected."""
        match = pattern.fullmatch(self.text())
        if not match:
            raise UserError(f"{self.place}: {show(self.value)} is not {what}")
        return match

    def number(self) -> float:
        """A finite number."""
        is_text = isinstance(self.value, str) and _DECIMAL.fullmatch(self.value)
        value = float(self.value) if is_text else self.value
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            self._refuse("a number such as 12.5")
        return float(value)

    def count(self) -> int:
        """A non-negative integer of at most nine digits."""
        is_text = isinstance(self.value, str) and _COUNT.fullmatch(self.value)
        value = int(self.value) if is_text else self.value
        if type(value) is not int or not 0 <= value < 10**9:
            self._refuse("a number such as 12")
        return value

    def interval(self) -> tuple[float, float]:
        """A list of two numbers."""
        ends = self.elements()
        if len(ends) != 2:
            self._refuse("a list of two numbers")
        return ends[0].number(), ends[1].number()

    def _expect(self, kind: type, name: str) -> Any:
        if not isinstance(self.value, kind):
            self._refuse(name)
        return self.value

    def _join(self, key: str) -> str:
        return f"{self.place}{'.' if ': ' in self.place else ': '}{show(key)[1:-1]}"

    def _refuse(self, expected: str) -> NoReturn:
        found = show(self.value)
        if isinstance(self.value, dict | list):
            kind = "an object" if isinstance(self.value, dict) else "a list"
            found = f"{kind} of {len(self.value)}"
        raise UserError(f"{self.place}: {found} instead of {expected}")


def parse_json(place: str, text: str) -> Node:
    """Parse JSON. Raises UserError, also for a key repeated with different values."""

    def create_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        first: dict[str, Any] = {}
        for key, item in pairs:
            if first.setdefault(key, item) != item:
                raise UserError(f"{place}: duplicate key {show(key)} with different values")
        return first

    def refuse(name: str) -> NoReturn:
        raise UserError(f"{place}: {name} is not a JSON number; correct or remove it")

    try:
        return Node(place, json.loads(text, object_pairs_hook=create_object, parse_constant=refuse))
    except RecursionError as error:
        raise UserError(f"{place}: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{place}:{error.lineno}: not JSON ({error.msg})") from error
    except ValueError as error:  # Python parses no integers of more than 4300 digits
        raise UserError(f"{place}: contains a number with thousands of digits") from error


@dataclass(frozen=True)
class Material:
    """An annotation file, given by name (`named`) or found in a folder.

    Its contents are read on demand, which may raise UserError.
    """

    path: Path
    named: bool = True

    @cached_property
    def data(self) -> bytes:
        """All bytes."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from error

    @cached_property
    def text(self) -> str:
        """The contents as UTF-8 text without NUL bytes."""
        try:
            text = self.data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._create_error(error.start, "not UTF-8 text") from error
        if "\0" in text:
            raise self._create_error(self.data.index(b"\0"), "not text (a NUL byte)")
        return text

    def _create_error(self, byte: int, problem: str) -> UserError:
        row = self.data.count(b"\n", 0, byte) + 1
        return UserError(f"{self.path}:{row}: {problem}; save it as text in UTF-8")

    @cached_property
    def rows(self) -> tuple[Node, ...]:
        """The stripped lines that are not blank; the place is `<file>:<line number>`."""
        lines = enumerate(self.text.split("\n"), 1)
        return tuple(Node(f"{self.path}:{i}", line.strip()) for i, line in lines if line.strip())

    @cached_property
    def is_json(self) -> bool:
        """Whether the file starts as JSON does."""
        return self.data[:1024].removeprefix(_MARK).lstrip()[:1] in (b"{", b"[")

    @cached_property
    def document(self) -> Node:
        """The contents as JSON."""
        return parse_json(str(self.path), self.text)

    def looks_like(self, pattern: re.Pattern[str]) -> bool:
        """Whether the file is text and the pattern matches at least half of its first rows."""
        if self.is_json:
            return False
        sample = [row.value for row in self.rows[:_SAMPLE]]
        fitting = [text for text in sample if len(text) <= _LONGEST and pattern.fullmatch(text)]
        return 2 * len(fitting) >= len(sample) > 0

    def cells(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the place and the stripped cells of each CSV row that is not blank."""
        lines = csv.reader(io.StringIO(self.text, newline=""), strict=True)
        try:
            for line in lines:
                cells = [cell.strip() for cell in line]
                if any(cells):
                    yield f"{self.path}:{lines.line_num}", cells
        except csv.Error as error:
            place = f"{self.path}:{lines.line_num}"
            raise UserError(f"{place}: not CSV ({error}); check the quotes") from error

    @cached_property
    def fields(self) -> frozenset[str]:
        """The columns of CSV, in lower case, or the keys of JSON and of its first element."""
        if self.is_json:
            value = self.document.value
            objects = value[:1] if isinstance(value, list) else [value, *value.values()][:2]
            return frozenset(key for item in objects if isinstance(item, dict) for key in item)
        try:
            _, header = next(self.cells(), ("", []))
        except UserError:
            return frozenset()
        return frozenset(cell.lower() for cell in header)

    def table(self) -> Iterator[Node]:
        """Yield each row below a CSV header, as an object with the columns as keys."""
        rows = self.cells()
        first, cells = next(rows, ("", []))
        header = [cell.lower() for cell in cells]
        if repeated := [name for name in header if name and header.count(name) > 1]:
            raise UserError(f"{first}: column {show(repeated[0])} is there twice; rename one")
        for place, cells in rows:
            check_width(place, cells, header)
            yield Node(place, dict(zip(header, cells, strict=True)))


def check_width(place: str, cells: Sequence[str], header: Sequence[str]) -> None:
    """Raise UserError unless a row has as many cells as the header."""
    if len(cells) != len(header):
        raise UserError(f"{place}: {len(cells)} columns where the header has {len(header)}")


def select_folders(parent: str | os.PathLike, names: Iterable[str], notes: Notes) -> list[str]:
    """Sort folders, leave out hidden ones, and note those that a system left among the user's."""
    shown = sorted(name for name in names if not name.startswith("."))
    litter = [name for name in shown if name.lower() in _LITTER]
    notes.add("folders of the system left out", *(os.path.join(parent, name) for name in litter))
    return [name for name in shown if name not in litter]


@explain_unreadable()
def find_files(folder: Path, notes: Notes | None = None) -> list[Path]:
    """List all files below a folder, sorted, except hidden files and folders.

    Links are followed, but never in a cycle. Folders that a system left are noted. Raises UserError
    if a folder cannot be read.
    """

    def refuse(error: OSError) -> NoReturn:
        raise error

    found, seen = [], set()
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = select_folders(parent, folders, notes or Notes())
        found += [Path(parent, f) for f in files if f[0] != "."]
    return sorted(found)


def create_materials(paths: Sequence[Path]) -> list[Material]:
    """List the given files and those in the given folders, each once. Raises UserError."""
    if not paths:
        raise UserError("no files of annotations are given")
    found: dict[str, Material] = {}
    for path in paths:
        if path.is_dir():
            files = [file for file in find_files(path) if file.suffix.lower() in _SUFFIXES]
            materials = [Material(file, named=False) for file in files if file.is_file()]
        else:
            materials = [Material(path)] if path.is_file() else []
        if not materials:
            raise UserError(
                f"{path}: no such file or folder of annotations, or none in it "
                f"({' '.join(_SUFFIXES)})"
            )
        for material in materials:
            key = os.path.realpath(material.path)
            if material.named or key not in found:
                found[key] = material
    return list(found.values())


Kinds = Mapping[str, Callable[[Material], bool]]


def sort_materials(
    benchmark: str, materials: Sequence[Material], kinds: Kinds, notes: Notes
) -> dict[str, list[Material]]:
    """Group files by the first kind whose test accepts them.

    A file of no kind raises UserError if it was given by name, and is noted otherwise.
    """
    found: dict[str, list[Material]] = {kind: [] for kind in kinds}
    for material in materials:
        try:
            kind = next((kind for kind, test in kinds.items() if test(material)), None)
            start = "" if kind else show(material.text[:_LONGEST].strip())
            problem = f"{material.path}: not a file of {benchmark}; it begins with {start}"
        except UserError as error:
            if material.is_json:
                raise
            kind, problem = None, str(error)
        if kind:
            found[kind].append(material)
        elif material.named:
            raise UserError(problem)
        else:
            notes.add("unrecognised files left out", problem)
    if not any(found.values()):
        raise UserError(f"{materials[0].path}: no file of {benchmark} is given")
    return found
