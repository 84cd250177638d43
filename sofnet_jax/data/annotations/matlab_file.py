"""Arrays of structures in MATLAB files of version 5 to 7, as THUMOS'14 publishes its metadata.

SciPy parses them, but a damaged file can crash or exhaust its process: it parses in a worker.
"""

from collections.abc import Sequence
from pathlib import Path

from sofnet_jax.data.annotations.files import Material, Node, show
from sofnet_jax.data.annotations.matlab_worker import Arrays, parse
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.workers import Failure, map_in_order

_TIME_LIMIT = 60.0  # seconds for a file; THUMOS'14's take less than one


def is_matlab(material: Material) -> bool:
    """Whether a file starts as MATLAB files of version 5 or later do."""
    return material.data.startswith(b"MATLAB ")


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
