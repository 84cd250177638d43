"""Files on a disk, or in an object store that Apache Beam can access (gs://, s3://, hdfs://)."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from sofnet_jax.host.beam import require_beam
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import PARTIAL, name_partial, write_whole


def is_remote(path: str) -> bool:
    """True if a path is an address such as gs://bucket/video.mp4."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*://", path))


def join(folder: str, name: str) -> str:
    """The path of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


@contextlib.contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Open a local or remote file for reading. Raises UserError."""
    with _explaining(f"cannot read {path}"):
        if is_remote(path):
            file = _filesystems().open(path, compression_type="uncompressed")
        else:
            file = open(path, "rb")
    with file:
        yield cast(BinaryIO, file)


@contextlib.contextmanager
def fetch(path: str) -> Iterator[str]:
    """The path of a local file; for a remote one, of a temporary copy. Raises UserError."""
    if not is_remote(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=Path(path).suffix) as copy:
        with open_file(path) as file, _explaining(f"cannot copy {path}"):
            shutil.copyfileobj(cast(IO[bytes], file), copy)
            copy.flush()
        yield copy.name


def write_file(path: str, content: bytes) -> None:
    """Write a file atomically, replacing an earlier one. Raises UserError."""
    with _explaining(f"cannot write {path}"):
        if not is_remote(path):
            with write_whole(Path(path)) as local:
                local.write_bytes(content)
            return
        filesystems = _filesystems()
        partial = name_partial(path)
        with filesystems.create(partial, compression_type="uncompressed") as file:
            file.write(content)
        filesystems.rename([partial], [path])


def list_files(folder: str, prefix: str) -> list[str]:
    """Sorted names of the files in a folder that start with `prefix`. Raises UserError."""
    with _explaining(f"cannot read {folder}"):
        if not is_remote(folder):
            names = [entry.name for entry in Path(folder).glob(f"{prefix}*") if entry.is_file()]
        else:
            found = _filesystems().match([join(folder, f"{prefix}*")])[0].metadata_list
            names = [data.path.rpartition("/")[2] for data in found]
    return sorted(name for name in names if PARTIAL not in name)


def read_file(path: str) -> bytes:
    """The content of a file. Raises UserError."""
    with open_file(path) as file:
        return file.read()


def _filesystems() -> Any:
    require_beam()
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


@contextlib.contextmanager
def _explaining(what: str) -> Iterator[None]:
    """Turn any exception into a UserError: each kind of store has a library with its own."""
    try:
        yield
    except Exception as error:
        text = error.strerror if isinstance(error, OSError) else None
        reason = " ".join(str(text or error or type(error).__name__).split())[:300]
        raise UserError(f"{what}: {reason}") from error
