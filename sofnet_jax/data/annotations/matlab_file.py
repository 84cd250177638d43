"""Arrays of structures in MATLAB files of version 5 to 7."""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from sofnet_jax.data.annotations.files import Material, show
from sofnet_jax.host.errors import UserError

_HEADER = 128  # bytes
_COMPRESSED, _MATRIX = 15, 14
_NUMBERS = dict(
    zip((1, 2, 3, 4, 5, 6, 7, 9, 12, 13), "i1 u1 i2 u2 i4 u4 f4 f8 i8 u8".split(), strict=True)
)
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCTURE, _CHARACTERS = 1, 2, 4
_NUMERIC = range(6, 16)
_LARGEST = 2**26  # bytes, when decompressed; THUMOS'14 has 1.4 million
_DEEPEST = 8  # cells in structures in cells …

Value = str | tuple  # text, or numbers, cells, or structures as dicts of their fields


class DamageError(Exception):
    """The file is not what it says that it is."""


def read_variables(data: bytes) -> dict[str, Value]:
    """The variables by name; those of kinds that are not known are left out. Raises DamageError."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:_HEADER])
    if order is None:
        raise DamageError("no byte order")
    try:
        return dict(_read_all(memoryview(data)[_HEADER:], order))
    except (struct.error, ValueError, OverflowError, zlib.error) as error:
        raise DamageError(str(error)) from error


class _Element(NamedTuple):
    kind: int
    data: memoryview


def _split(data: memoryview, order: str) -> Iterator[_Element]:
    """The elements that stand one after another in `data`."""
    while data:
        kind, size = struct.unpack_from(order + "II", data)
        start, end = 8, 8 + size
        if kind >> 16:  # both in the first four bytes, and the data in the other four
            kind, size = kind & 0xFFFF, kind >> 16
            start, end = 4, 4 + size
            if size > 4:
                raise DamageError("an element is too long for its place")
        if end > len(data):
            raise DamageError("the file ends early")
        yield _Element(kind, data[start:end])
        padded = 8 if start == 4 else end if kind == _COMPRESSED else end + -size % 8
        data = data[padded:]


def _read_all(data: memoryview, order: str) -> Iterator[tuple[str, Value]]:
    for element in _split(data, order):
        if element.kind == _COMPRESSED:
            yield from _read_all(_decompress(element.data, order), order)
        elif element.kind == _MATRIX:
            name, value = _read_matrix(element.data, order, 0)
            if value is not None:
                yield name, value


def _decompress(data: memoryview, order: str) -> memoryview:
    stream = zlib.decompressobj()
    whole = stream.decompress(data, _LARGEST)
    if not stream.eof:
        raise DamageError("compressed data without an end, or too much of it")
    if struct.unpack_from(order + "I", whole)[0] == _COMPRESSED:
        raise DamageError("compressed twice")
    return memoryview(whole)


def _read_matrix(data: memoryview, order: str, depth: int) -> tuple[str, Value | None]:
    """The name and the value of a matrix; None if it is of a kind that is not known."""
    if depth > _DEEPEST:
        raise DamageError("nested too deeply")
    if not data:
        return "", ()
    elements = _split(data, order)
    flags, shape, name = (_next(elements) for _ in range(3))
    (flag,) = struct.unpack_from(order + "I", flags.data)
    kind, is_complex = flag & 0xFF, flag & 0x0800
    count = math.prod(_read_numbers(shape, order))
    if not 0 <= count <= len(data):
        raise DamageError("a matrix of more elements than there are bytes")
    if is_complex:
        raise DamageError("complex numbers")
    return bytes(name.data).decode("latin-1"), _read_value(kind, count, elements, order, depth)


def _read_value(
    kind: int, count: int, elements: Iterator[_Element], order: str, depth: int
) -> Value | None:
    if kind == _CHARACTERS:
        return _read_text(_next(elements), order) if count else ""
    if kind in _NUMERIC:
        numbers = _read_numbers(_next(elements), order)
        if len(numbers) != count:
            raise DamageError("a matrix of another size than it says")
        return numbers
    if kind == _CELL:
        return tuple(_read_item(elements, order, depth) for _ in range(count))
    if kind == _STRUCTURE:
        (length,) = _read_numbers(_next(elements), order)
        names = _split_names(bytes(_next(elements).data), length)
        return tuple(
            {name: _read_item(elements, order, depth) for name in names} for _ in range(count)
        )
    return None


def _next(elements: Iterator[_Element]) -> _Element:
    element = next(elements, None)
    if element is None:
        raise DamageError("a matrix ends early")
    return element


def _read_item(elements: Iterator[_Element], order: str, depth: int) -> Value | None:
    element = _next(elements)
    if element.kind != _MATRIX:
        raise DamageError("what should be a matrix is none")
    return _read_matrix(element.data, order, depth + 1)[1]


def _read_numbers(element: _Element, order: str) -> tuple:
    if element.kind not in _NUMBERS:
        raise DamageError("what should be numbers is none")
    return tuple(np.frombuffer(element.data, order + _NUMBERS[element.kind]).tolist())


def _read_text(element: _Element, order: str) -> str:
    encoding = _TEXTS.get(element.kind)
    if encoding is None:
        raise DamageError("what should be text is none")
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return bytes(element.data).decode(encoding, "replace")


def _split_names(data: bytes, length: int) -> list[str]:
    if length <= 0 or len(data) % length:
        raise DamageError("names of fields of another length than they say")
    cells = [data[i : i + length] for i in range(0, len(data), length)]
    return [cell.split(b"\0")[0].decode("latin-1") for cell in cells]


@dataclass(frozen=True)
class Structure:
    """One of an array of structures; `place` is `<file>: <variable>(<number from 1>)`.

    What reads a field as something that it is not raises UserError.
    """

    place: str
    fields: dict[str, Any]

    def texts(self, field: str) -> tuple[str, ...]:
        """The strings in a field, one or a cell array; none where it is empty or absent."""
        values = tuple(_flatten(self.fields.get(field)))
        for value in values:
            if not isinstance(value, str):
                self._refuse(field, value, "text")
        return values

    def numbers(self, field: str) -> tuple[float, ...]:
        """The finite numbers in a field, none where it is empty or absent."""
        values = tuple(_flatten(self.fields.get(field)))
        for value in values:
            if not isinstance(value, int | float) or not math.isfinite(value):
                self._refuse(field, value, "a number")
        return tuple(map(float, values))

    def _refuse(self, field: str, value: Any, expected: str) -> NoReturn:
        raise UserError(f"{self.place}.{field} is {show(value)} instead of {expected}")


def is_matlab(material: Material) -> bool:
    """Whether a file begins as MATLAB's do, from version 5 on."""
    return material.data.startswith(b"MATLAB ")


def read_structures(material: Material, field: str) -> list[Structure]:
    """The structures of the one array in a file whose structures have `field`. Raises UserError."""
    path = material.path
    if material.data.startswith(b"MATLAB 7.3"):
        raise UserError(f"{path}: of version 7.3; save it with '-v7', as it was published")
    try:
        variables = read_variables(material.data)
    except DamageError as error:
        raise UserError(f"{path}: damaged ({error}); download it again") from error
    found = [
        (name, value)
        for name, value in variables.items()
        if isinstance(value, tuple) and value and isinstance(value[0], dict) and field in value[0]
    ]
    if len(found) != 1:
        raise UserError(f"{path}: {len(found)} arrays of structures with '{field}' instead of 1")
    name, array = found[0]
    return [Structure(f"{path}: {show(name)[1:-1]}({i})", item) for i, item in enumerate(array, 1)]


def _flatten(value: Any) -> Iterator[Any]:
    """The strings and numbers in a field: cells and matrices of one are no more than what is in."""
    if isinstance(value, tuple):
        for item in value:
            yield from _flatten(item)
    elif value not in (None, ""):
        yield value
