"""Arrays of MATLAB structures, as THUMOS'14 publishes its metadata."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from sofnet_jax.data.annotations.cell import show
from sofnet_jax.data.annotations.mat_file import DamageError, read_variables
from sofnet_jax.data.annotations.material import Material
from sofnet_jax.host.errors import UserError


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
