"""Annotation files: found, opened, and told apart by their contents."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

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


class Notes:
    """Counts what is odd by its kind, and keeps the first example of each."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Counts one more of a kind, or several that `example` is the first of."""
        if count:
            before, first = self._kinds.get(kind, (0, example))
            self._kinds[kind] = before + count, first

    def add_all(self, kind: str, examples: Iterable[str]) -> None:
        """Counts each of the examples."""
        for example in examples:
            self.add(kind, example)

    def say(self, line: str) -> None:
        """Keeps a line that counts nothing."""
        self._kinds.setdefault(line, (0, ""))

    def lines(self) -> tuple[str, ...]:
        """A line for each kind, in the order of their first examples."""
        return tuple(
            f"{kind}: {count:,}, first {example}" if count else kind
            for kind, (count, example) in self._kinds.items()
        )


@dataclass(frozen=True)
class Node:
    """A value in a JSON file; `place` is `<file>: <keys that lead to it>`.

    What reads it as something that it is not raises UserError.
    """

    place: str
    value: Any

    def get(self, key: str) -> "Node | None":
        """What an object holds under a key; None if that is missing or null."""
        value = self._object().get(key)
        return None if value is None else Node(self._join(key), value)

    def need(self, key: str) -> "Node":
        """What an object holds under a key."""
        node = self.get(key)
        if node is None:
            raise UserError(f"{self.place.removesuffix(': ')}: no '{key}'")
        return node

    def items(self) -> Iterator[tuple[str, "Node"]]:
        """The keys of an object and what it holds under them."""
        for key, value in self._object().items():
            yield key, Node(self._join(key), value)

    def elements(self) -> list["Node"]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            self._refuse("a list")
        return [Node(f"{self.place}[{i}]", value) for i, value in enumerate(self.value)]

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            self._refuse("text")
        return self.value

    def number(self) -> float:
        """A finite number."""
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            self._refuse("a number")
        try:
            number = float(self.value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self._refuse("a finite number")
        return number

    def count(self) -> int:
        """An integer that is not negative."""
        if type(self.value) is not int or not 0 <= self.value < 10**9:
            self._refuse("a number such as 12")
        return self.value

    def interval(self) -> tuple[float, float]:
        """A list of two numbers."""
        ends = self.elements()
        if len(ends) != 2:
            self._refuse("a list of two numbers")
        return ends[0].number(), ends[1].number()

    def _object(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            self._refuse("an object")
        return self.value

    def _join(self, key: str) -> str:
        return f"{self.place}{'' if self.place.endswith(': ') else '.'}{show(key)[1:-1]}"

    def _refuse(self, expected: str) -> NoReturn:
        raise UserError(
            f"{self.place.removesuffix(': ')}: {_name(self.value)} instead of {expected}"
        )


def _name(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    return "null" if value is None else show(value)


def parse_document(path: Path, text: str) -> Node:
    """The value in a JSON file. Raises UserError, also for keys that contradict each other."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=partial(_create_object, path),
            parse_constant=partial(_refuse_constant, path),
        )
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    except ValueError as error:  # Python reads no integers of more than 4300 digits
        raise UserError(f"{path}: a number in it has thousands of digits") from error
    return Node(f"{path}: ", value)


def _create_object(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        first: dict[str, Any] = {}
        for key, item in pairs:
            if first.setdefault(key, item) != item:
                raise UserError(f"{path}: {show(key)} stands twice in it, with different values")
    return value


def _refuse_constant(path: Path, name: str) -> NoReturn:
    raise UserError(f"{path}: {name} in it is no number; correct or remove it")


# What is looked into where a folder is given; a file that is named is opened whatever it is called.
_SUFFIXES = (".csv", ".json", ".list", ".lst", ".mat", ".tsv", ".txt")
_SAMPLE = 40  # rows that tell what a file is
_LONGEST = 2000  # characters of a row
_MARK = b"\xef\xbb\xbf"  # what some editors begin UTF-8 with


@dataclass(frozen=True)
class Row:
    """A row of a text without space around it; `place` is `<file>:<number>`."""

    place: str
    text: str


@dataclass(frozen=True)
class Material:
    """A file of annotations; `named` by the user itself, else found in a folder.

    Its contents are read when they are asked for, which may raise UserError.
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
        """The contents as text in UTF-8."""
        return decode(self.path, self.data)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows that are not empty."""
        lines = enumerate(self.text.split("\n"), 1)
        return tuple(Row(f"{self.path}:{i}", line.strip()) for i, line in lines if line.strip())

    @cached_property
    def is_empty(self) -> bool:
        """Whether there is nothing in it but space."""
        rest = self.data.removeprefix(_MARK).strip()
        return len(rest) < _LONGEST and not rest.decode(errors="replace").strip()

    @cached_property
    def is_json(self) -> bool:
        """Whether it begins as JSON does."""
        return self.data[:1024].removeprefix(_MARK).lstrip()[:1] in (b"{", b"[")

    def looks_like(self, pattern: re.Pattern[str]) -> bool:
        """Whether it is text, and half of its first rows or more match the pattern wholly."""
        if self.is_json:
            return False
        sample = [row.text for row in self.rows[:_SAMPLE]]
        fitting = [text for text in sample if len(text) <= _LONGEST and pattern.fullmatch(text)]
        return 2 * len(fitting) >= len(sample) > 0

    @cached_property
    def document(self) -> Node:
        """The contents as JSON."""
        return parse_document(self.path, self.text)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The first row as the header of a CSV file."""
        if self.is_json or self.is_empty:
            return ()
        try:
            return tuple(cell.strip().lower() for cell in next(csv.reader([self.rows[0].text])))
        except csv.Error:
            return ()

    def table(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The place and the cells by column of each row of a CSV file with a header."""
        lines = csv.reader(io.StringIO(self.text, newline=""), strict=True)
        header: list[str] | None = None
        try:
            for line in lines:
                cells = [cell.strip() for cell in line]
                place = f"{self.path}:{lines.line_num}"
                if not any(cells):
                    continue
                if header is None:
                    header = _check_header(place, self.columns, [cell.lower() for cell in cells])
                elif len(cells) != len(header):
                    raise UserError(
                        f"{place}: {len(cells)} columns where the header has {len(header)}"
                    )
                else:
                    yield place, dict(zip(header, cells, strict=True))
        except csv.Error as error:
            place = f"{self.path}:{lines.line_num}"
            raise UserError(f"{place}: not CSV ({error}); check the quotes") from error


def _check_header(place: str, columns: Sequence[str], cells: list[str]) -> list[str]:
    """The cells, if quotes do not make them others than the first row seemed to have."""
    if tuple(cells) != tuple(columns):
        raise UserError(f"{place}: the header is broken; check the quotes")
    return cells


def decode(path: Path, data: bytes) -> str:
    """Text in UTF-8; raises UserError."""
    end = data.find(b"\0")
    if end >= 0:
        row = data.count(b"\n", 0, end) + 1
        raise UserError(f"{path}:{row}: not text (a NUL byte); save it as text in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{row}: not UTF-8 text; save it in UTF-8") from error


def find_files(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones and those in hidden folders, sorted.

    Follows links, but not in circles.
    """
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(parent, f) for f in files if f[0] != "."]
    return sorted(found)


def create_materials(paths: Sequence[Path]) -> list[Material]:
    """The files among `paths` and in the folders among them, each once. Raises UserError."""
    if not paths:
        raise UserError("no files of annotations are given")
    found: dict[str, Material] = {}
    for path in paths:
        if path.is_file():
            materials = [Material(path)]
        elif path.is_dir():
            files = [file for file in find_files(path) if file.suffix.lower() in _SUFFIXES]
            materials = [Material(file, named=False) for file in files if file.is_file()]
            if not materials:
                raise UserError(f"{path}: no files of annotations ({' '.join(_SUFFIXES)}) in it")
        else:
            raise UserError(f"{path}: no such file or folder of annotations")
        for material in materials:
            key = os.path.realpath(material.path)
            if material.named or key not in found:
                found[key] = material
    return list(found.values())


def sort_materials(
    benchmark: str,
    materials: Sequence[Material],
    kinds: Mapping[str, Callable[[Material], bool]],
    notes: Notes,
) -> dict[str, list[Material]]:
    """The files of each kind: the first whose test says yes.

    A file of no kind is refused by UserError if the user named it, and noted otherwise.
    """
    found: dict[str, list[Material]] = {kind: [] for kind in kinds}
    for material in materials:
        kind = problem = None
        try:
            kind = _find_kind(material, kinds)
        except UserError as error:
            if material.named or material.is_json:
                raise
            problem = str(error)
        if kind:
            found[kind].append(material)
            continue
        problem = problem or f"{material.path}: {_describe(material, benchmark)}"
        if material.named:
            raise UserError(problem)
        notes.add("files left out, which are not recognised", problem)
    if not any(found.values()):
        raise UserError(f"{materials[0].path}: no file that tells of {benchmark} is given")
    return found


def _find_kind(material: Material, kinds: Mapping[str, Callable[[Material], bool]]) -> str | None:
    if material.is_empty:
        return None
    return next((kind for kind, test in kinds.items() if test(material)), None)


def _describe(material: Material, benchmark: str) -> str:
    if material.is_empty:
        return "there is nothing in it"
    if material.is_json:
        return f"JSON, but none that tells of {benchmark}"
    return f"not a file of {benchmark}; it begins with {show(material.rows[0].text)}"
