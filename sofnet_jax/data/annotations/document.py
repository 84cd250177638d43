"""JSON that others wrote: values that know where they stand, so that errors can say it."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from sofnet_jax.data.annotations.cell import show
from sofnet_jax.host.errors import UserError


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
