"""Files that are written whole or not at all."""

import contextlib
import errno
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sofnet_jax.host.errors import UserError


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it when that succeeded.

    After an error nothing is left of it, and a file that `path` was before is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)  # a link of this name would lead elsewhere
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def require_place(path: Path) -> None:
    """Raises OSError if `path` could not be written, for whoever will only after long work."""
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    with tempfile.TemporaryFile(dir=folder):  # the folders below are made when it is written
        pass


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file that is an object.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged")
    return content


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number, and a finite one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # of an integer, too, which may have 4300 digits


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file whole or not at all."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


_MOST_COMPRESSED = 50  # arrays of predictions come to 3, and a file made for it to 1000


_SMALL = 1 << 26  # bytes that nobody minds


def read_arrays(path: Path, names: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz of these names, or all; no pickle is read.

    Raises:
        OSError: it cannot be opened.
        Exception: of any kind, for the readers raise anything at a damaged or hostile file.
    """
    # Not `np.load`, which takes a file for a pickle if it is no archive.
    with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        check_archive(path)
        arrays = {name: archive[name] for name in names or archive.files}
    if odd := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
        raise ValueError(f"{odd[0]} is no array")
    return arrays


def check_archive(path: Path) -> None:
    """Raises ValueError for a ZIP that unpacks to more than any of ours; BadZipFile for another."""
    with zipfile.ZipFile(path) as archive:
        check_claim(sum(member.file_size for member in archive.infolist()), path.stat().st_size)


def check_claim(claimed: int, size: int) -> None:
    """Raises ValueError if files of `size` bytes claim to hold arrays that they hardly can."""
    if claimed > max(_MOST_COMPRESSED * size, _SMALL):
        raise ValueError(f"{size:,} bytes claim to be {claimed:,}")
