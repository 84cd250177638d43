"""Parses MATLAB files with SciPy in a worker process, which starts fast: it imports little else."""

import io
import resource
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

_MEMORY_LIMIT = 2**30  # bytes beyond what the worker has mapped; THUMOS'14 takes a hundredth

Arrays = dict[str, list[dict[str, list]]]  # by variable, its structures with flattened fields


def parse(data: bytes) -> Arrays | str:
    """Load the arrays of a file in limited memory; returns an error text if it is damaged."""
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
