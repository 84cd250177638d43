"""Files on a disk, or in an object store that Apache Beam knows (gs://, s3://, hdfs://)."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import PARTIAL, name_partial, write_whole


def is_remote(path: str) -> bool:
    """Whether it is an address such as gs://bucket/video.mp4."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*://", path))


def join(folder: str, name: str) -> str:
    """The path of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_remote(folder) else os.path.join(folder, name)


@contextlib.contextmanager
def open_file(path: str) -> Iterator[BinaryIO]:
    """Opens a file for reading, at any place. Raises UserError."""
    try:
        file = (
            _filesystems().open(path, compression_type="uncompressed")
            if is_remote(path)
            else (open(path, "rb"))
        )
    except Exception as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
    with file:
        yield cast(BinaryIO, file)


@contextlib.contextmanager
def fetch(path: str) -> Iterator[str]:
    """The path of a file on this machine; of one elsewhere a copy that is there for a while."""
    if not is_remote(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=Path(path).suffix) as copy:
        with open_file(path) as file:
            try:
                shutil.copyfileobj(cast(IO[bytes], file), copy)
                copy.flush()
            except Exception as error:  # a library of its own for each kind of store
                raise UserError(f"cannot copy {path}: {_reason(error)}") from error
        yield copy.name


def write_file(path: str, content: bytes) -> None:
    """Write a file atomically, replacing an earlier one. Raises UserError."""
    try:
        if is_remote(path):
            filesystems = _filesystems()
            partial = name_partial(path)
            with filesystems.create(partial, compression_type="uncompressed") as file:
                file.write(content)
            filesystems.rename([partial], [path])
        else:
            with write_whole(Path(path)) as local:
                local.write_bytes(content)
    except Exception as error:
        raise UserError(f"cannot write {path}: {_reason(error)}") from error


def list_files(folder: str, prefix: str) -> list[str]:
    """The names of the files of a folder that begin so, sorted. Raises UserError."""
    try:
        if not is_remote(folder):
            names = [entry.name for entry in Path(folder).glob(f"{prefix}*") if entry.is_file()]
        else:
            found = _filesystems().match([join(folder, f"{prefix}*")])[0].metadata_list
            names = [data.path.rpartition("/")[2] for data in found]
        return sorted(name for name in names if PARTIAL not in name)
    except Exception as error:
        raise UserError(f"cannot read {folder}: {_reason(error)}") from error


def read_file(path: str) -> bytes:
    """The content of a file. Raises UserError."""
    with open_file(path) as file:
        return file.read()


def _filesystems() -> Any:
    try:
        from apache_beam.io.filesystems import FileSystems
    except ImportError as error:
        raise UserError("an object store needs Apache Beam: pip install -e '.[beam]'") from error
    return FileSystems


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return " ".join(str(text or error or type(error).__name__).split())[:300]
