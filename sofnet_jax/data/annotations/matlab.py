"""Arrays of structures in MATLAB files of version 5 to 7, as THUMOS'14 publishes its metadata.

SciPy parses them, but a damaged file can crash or exhaust its process: it parses in a worker.
"""

import io
import resource
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from sofnet_jax.data.annotations.files import Material, Node, show
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.workers import Failure, map_in_order

_TIME_LIMIT = 60.0  # seconds for a file; THUMOS'14's take less than one
_MEMORY_LIMIT = 2**30  # bytes beyond what the worker has mapped; THUMOS'14 takes a hundredth

Arrays = dict[str, list[dict[str, list]]]  # by variable, its structures with flattened fields


def read_structures(materials: Sequence[Material], field: str) -> list[list[Node]]:
    """Read from each file its one array whose structures have `field`.

    A structure is an object with a list for each of its fields. Raises UserError.
    """
    for material in materials:
        if material.data.startswith(b"MATLAB 7.3"):
            raise UserError(f"{material.path}: of version 7.3; save it with '-v7', as published")
    if not materials:
        return []
    data = [material.data for material in materials]
    parsed = list(map_in_order(parse, data, num_workers=1, time_limit=_TIME_LIMIT))
    return [_find_array(m.path, found, field) for m, found in zip(materials, parsed, strict=True)]


def _find_array(path: Path, found: Arrays | str | Failure, field: str) -> list[Node]:
    if not isinstance(found, dict):
        problem = show(found.detail if isinstance(found, Failure) else found)[1:-1]
        raise UserError(f"{path}: damaged ({problem}); download it again")
    arrays = {name: array for name, array in found.items() if array and field in array[0]}
    if len(arrays) != 1:
        raise UserError(f"{path}: {len(arrays)} arrays of structures with '{field}' instead of 1")
    ((name, array),) = arrays.items()
    return [Node(f"{path}: {show(name)[1:-1]}({i})", item) for i, item in enumerate(array, 1)]


def parse(data: bytes) -> Arrays | str:
    """Load a file's arrays in a worker of limited memory; returns an error text if damaged."""
    _limit_memory()
    try:
        return load(data)
    except Exception as error:  # whatever a damaged file makes SciPy raise
        return str(error) or type(error).__name__


def load(data: bytes) -> Arrays:
    """Load the arrays of structures in a file."""
    with warnings.catch_warnings(action="ignore"):
        variables = scipy.io.loadmat(io.BytesIO(data))
        return {
            name: [
                {field: list(_flatten(item[field])) for field in array.dtype.names}
                for item in array.ravel(order="F")
            ]
            for name, array in variables.items()
            if isinstance(array, np.ndarray) and array.dtype.names
        }


def _limit_memory() -> None:
    """Limit the memory that this process may map from here on, where Linux says what it has."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + _MEMORY_LIMIT
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _flatten(value: Any) -> Iterator[str | float | None]:
    """The strings and numbers in nested cells and matrices, column by column; None for others."""
    if isinstance(value, np.ndarray):
        for item in value.ravel(order="F").tolist():
            yield from _flatten(item)
    elif isinstance(value, str | int | float):
        if value != "":
            yield value
    else:
        yield None
