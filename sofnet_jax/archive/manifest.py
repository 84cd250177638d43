"""The list of an archive's videos: a CSV of any length, read in parts by many."""

import csv
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from sofnet_jax.archive.store import is_remote, open_file
from sofnet_jax.data.annotations.own import check_order, parse_time
from sofnet_jax.host.errors import UserError

COLUMNS = ("path", "start", "end")
_Header = tuple[str, ...]


class Entry(NamedTuple):
    """A video, or its part between two seconds: its path as the manifest has it."""

    path: str
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Chunk:
    """Rows of a manifest that are worked on together.

    Attributes:
        number: among the chunks.
        offset: byte at which the first row begins.
        num_rows: rows there, blank ones not counted.
        digest: of these rows, for a manifest may change while it is worked on.
        repeated: which of them, by number, are the same as earlier ones and left out.
    """

    number: int
    offset: int
    num_rows: int
    digest: int
    repeated: frozenset[int] = frozenset()

    @property
    def num_videos(self) -> int:
        """Rows that are not left out."""
        return self.num_rows - len(self.repeated)


@dataclass(frozen=True)
class Manifest:
    """A manifest that has been looked through once.

    Attributes:
        path: where it is, also an address such as gs://….
        columns: the names of its columns; () if it has no header, and the first one is the path.
        digest: of its content.
        chunks: all rows.
    """

    path: str
    columns: _Header
    digest: str
    chunks: tuple[Chunk, ...]

    @property
    def num_videos(self) -> int:
        """Different videos."""
        return sum(chunk.num_videos for chunk in self.chunks)

    @property
    def num_repeated(self) -> int:
        """Rows that say again what another one said."""
        return sum(len(chunk.repeated) for chunk in self.chunks)

    def read(self, chunk: Chunk) -> list[Entry]:
        """The videos of a chunk. Raises UserError, also if they are no longer what they were."""
        with open_file(self.path) as file:
            file.seek(chunk.offset)
            rows = itertools.islice(_Rows(file, self.path), chunk.num_rows)
            entries = [_parse(row, self.columns, place) for row, place in rows]
        if _combine(map(hash_entry, entries)) != chunk.digest:
            raise UserError(f"{self.path} changed since this began; give another --output")
        return [entry for i, entry in enumerate(entries) if i not in chunk.repeated]

    def locate(self, entry: Entry) -> str:
        """The file or address of a video; paths are relative to the manifest's folder."""
        if is_remote(entry.path) or os.path.isabs(entry.path):
            return entry.path
        if is_remote(self.path):
            return f"{self.path.rpartition('/')[0]}/{entry.path}"
        return os.path.join(os.path.dirname(os.path.abspath(self.path)), entry.path)


def scan_manifest(path: str, chunk_size: int) -> Manifest:
    """Looks through a manifest: every row is parsed, repeated ones are noted.

    It is a CSV of paths, or with a header of `path` and if wanted `start` and `end`, in seconds;
    other columns are not looked at. It takes some 80 bytes of memory a row (76 with 300,000 rows).
    Raises UserError.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    chunks: list[Chunk] = []
    keys: list[int] = []
    begin = 0
    columns: _Header = ()

    def close_chunk() -> None:
        repeated = []
        for i, key in enumerate(keys):
            if key in seen:
                repeated.append(i)
            seen.add(key)
        chunks.append(Chunk(len(chunks), begin, len(keys), _combine(keys), frozenset(repeated)))
        keys.clear()

    with open_file(path) as file:
        rows = _Rows(file, path, digest)
        for number, (row, place) in enumerate(rows):
            if number == 0 and _is_header(row):
                columns = _check_header(row, place)
                continue
            begin = begin if keys else rows.begin
            keys.append(hash_entry(_parse(row, columns, place)))
            if len(keys) == chunk_size:
                close_chunk()
    if keys:
        close_chunk()
    if not chunks:
        raise UserError(f"{path}: no videos in it; write a path in each row")
    return Manifest(path, columns, digest.hexdigest(), tuple(chunks))


def hash_entry(entry: Entry) -> int:
    """128 bits that tell a video from all others."""
    text = repr(entry).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())


def _combine(keys: Iterable[int]) -> int:
    """One number of the keys in their order."""
    return hash(tuple(keys))  # of numbers, which is the same in every process


class _Rows:
    """Rows of an open CSV that are not blank, and where each begins."""

    def __init__(self, file: BinaryIO, path: str, digest: "hashlib._Hash | None" = None):
        self._file, self._path, self._digest = file, path, digest
        self._position = file.tell()
        self._reader = csv.reader(self._lines(), strict=True)
        self.begin = self._position  # of the last row given

    def _lines(self) -> Iterator[str]:
        for line in self._file:
            self._position += len(line)
            if self._digest is not None:
                self._digest.update(line)
            if self._position == len(line):
                line = line.removeprefix(b"\xef\xbb\xbf")  # of files from Windows
            yield line.decode(errors="surrogateescape")

    def __iter__(self) -> Iterator[tuple[list[str], str]]:
        try:
            while True:
                begin = self._position
                row = next(self._reader, None)
                if row is None:
                    return
                cells = [cell.strip() for cell in row]
                if any(cells):
                    self.begin = begin
                    yield cells, f"{self._path}:{self._reader.line_num}"
        except csv.Error as error:
            raise UserError(
                f"{self._path}:{self._reader.line_num}: not CSV ({error}); check the quotes"
            ) from error


def _is_header(row: Sequence[str]) -> bool:
    return "path" in [cell.lower() for cell in row]


def _check_header(row: Sequence[str], place: str) -> _Header:
    names = tuple(cell.lower() for cell in row)
    for name in COLUMNS:
        if names.count(name) > 1:
            raise UserError(f"{place}: two columns '{name}'; leave one")
    return names


def _parse(row: Sequence[str], columns: _Header, place: str) -> Entry:
    if columns and len(row) != len(columns):
        raise UserError(f"{place}: {len(row)} columns where the header has {len(columns)}")
    if not columns and (len(row) > 1 or row[0].lower().startswith(("path;", "path\t"))):
        raise UserError(f"{place}: several columns need a header, of path,start,end, with commas")
    values = dict(zip(columns or COLUMNS[:1], row, strict=False))
    path = values.get("path", "")
    if not path or "\0" in path:
        raise UserError(f"{place}: no path")
    start, end = (parse_time(place, name, values.get(name, "")) for name in COLUMNS[1:])
    check_order(place, "end", start, end)
    return Entry(path, start, end)
