"""Files that survive a crash or a power cut, JSON, and arrays from untrusted files."""

import contextlib
import errno
import fcntl
import glob
import json
import math
import os
import stat
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from sofnet_jax.host.errors import UserError

PARTIAL = ".partial-"
_MOST_COMPRESSED = 50  # arrays of predictions compress 3 times, a hostile file 1000 times
_SMALL = 1 << 26  # bytes that are always allowed


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, then put that file in place of `path`.

    Contents and folder are flushed to disk, so a crash or power cut at any moment leaves either the
    old file or the new one. Concurrent writers do not collide; the last to finish wins. If the body
    raises, `path` is unchanged. The temporary file of a killed process is deleted by the next
    `write_whole` of the same path.
    """
    _require_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(name_partial(str(path)))
    stem = partial.name.rpartition(PARTIAL)[0]
    for abandoned in path.parent.glob(glob.escape(stem) + PARTIAL + "*"):
        _remove_unless_locked(abandoned)
    with _create_locked(partial):
        try:
            yield partial
            _flush(partial, os.O_RDWR)
            os.replace(partial, path)
            _flush(path.parent, os.O_RDONLY)
        finally:
            partial.unlink(missing_ok=True)


def name_partial(path: str) -> str:
    """A unique name for a file that is to be renamed to `path`, of 255 bytes at most."""
    folder, name = os.path.split(path)
    stem = os.fsencode(name)[: 255 - len(PARTIAL) - 12].decode(errors="ignore")
    return os.path.join(folder, f"{stem}{PARTIAL}{uuid.uuid4().hex[:12]}")


def _create_locked(path: Path) -> IO[bytes]:
    """An open new file; the lock tells other writers that its owner is alive."""
    while True:
        file = path.open("xb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another writer deleted it just before it was locked


def _remove_unless_locked(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _flush(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise
    finally:
        os.close(descriptor)


def require_place(path: Path) -> None:
    """Raise OSError if `path` cannot be written; to be called before long work."""
    _require_regular(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    with tempfile.TemporaryFile(dir=folder):  # deeper folders are created on writing
        pass


def _require_regular(path: Path) -> None:
    """Raise OSError if something other than a file is at `path`, or no file can have its name."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object. Raises UserError if it is missing or damaged."""
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
    """Whether a value from JSON is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # also for integers, which may have 4300 digits


def write_json(path: Path, content: Any) -> None:
    """Write an indented JSON file with `write_whole` and `format_json`."""
    with write_whole(path) as partial:
        partial.write_text(format_json(content, indent=2) + "\n", encoding="utf-8")


def format_json(content: Any, indent: int | None = None) -> str:
    """JSON text, with null ("no value") for NaN and infinity, which JSON lacks."""
    return json.dumps(_replace_non_finite(content), indent=indent, allow_nan=False)


def _replace_non_finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _replace_non_finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_replace_non_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_arrays(path: Path, names: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Read the named arrays of an .npz, by default all of them, without unpickling anything.

    Raises:
        OSError: the file cannot be opened.
        Exception: any type, since readers of damaged or hostile files raise anything.
    """
    # `np.load` would unpickle a file that is not an archive.
    with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        check_archive(path)
        arrays = {name: archive[name] for name in names or archive.files}
    if odd := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
        raise ValueError(f"{odd[0]} is not an array")
    return arrays


def check_archive(path: Path) -> None:
    """Raise ValueError for a ZIP that unpacks to an implausible size, BadZipFile for non-ZIPs."""
    with zipfile.ZipFile(path) as archive:
        check_size(sum(member.file_size for member in archive.infolist()), path.stat().st_size)


def check_size(unpacked: int, stored: int) -> None:
    """Raise ValueError if `stored` bytes cannot plausibly unpack to `unpacked` bytes of arrays."""
    if unpacked > max(_MOST_COMPRESSED * stored, _SMALL):
        raise ValueError(f"{stored:,} bytes declare {unpacked:,} bytes of content")
