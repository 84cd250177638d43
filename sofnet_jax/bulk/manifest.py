"""The list of an archive's videos: a CSV of any length, read in parts by many."""

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from sofnet_jax.bulk.store import is_remote, open_file
from sofnet_jax.data.annotations.own_row import check_order, parse_time
from sofnet_jax.errors import UserError

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
        repeated: which of these, by number, are the same as earlier ones and left out.
    """

    number: int
    offset: int
    num_rows: int
    repeated: tuple[int, ...] = ()

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
        """The videos of a chunk. Raises UserError."""
        with open_file(self.path) as file:
            file.seek(chunk.offset)
            rows = _Rows(file, self.path)
            entries = [_parse(row, self.columns, place) for row, place in rows.take(chunk.num_rows)]
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
    other columns are not looked at. About 120 bytes of every row are kept in memory.
    Raises UserError.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    chunks: list[Chunk] = []
    offsets: list[int] = []
    repeated: list[int] = []
    columns: _Header = ()
    with open_file(path) as file:
        rows = _Rows(file, path, digest)
        for number, (row, place) in enumerate(rows):
            if number == 0 and _is_header(row):
                columns = _check_header(row, place)
                continue
            entry = _parse(row, columns, place)
            key = hash_entry(entry)
            if key in seen:
                repeated.append(len(offsets))
            seen.add(key)
            offsets.append(rows.begin)
            if len(offsets) == chunk_size:
                chunks.append(Chunk(len(chunks), offsets[0], len(offsets), tuple(repeated)))
                offsets, repeated = [], []
    if offsets:
        chunks.append(Chunk(len(chunks), offsets[0], len(offsets), tuple(repeated)))
    if not chunks:
        raise UserError(f"{path}: no videos in it; write a path in each row")
    return Manifest(path, columns, digest.hexdigest(), tuple(chunks))


def hash_entry(entry: Entry) -> int:
    """128 bits that tell a video from all others."""
    text = repr(entry).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())


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
                    yield cells, f"{self._path}, byte {begin}"
        except csv.Error as error:
            raise UserError(
                f"{self._path}, byte {self._position}: not CSV ({error}); check the quotes"
            ) from error

    def take(self, count: int) -> Iterator[tuple[list[str], str]]:
        """So many rows. Raises UserError if there are fewer."""
        rows = iter(self)
        for _ in range(count):
            row = next(rows, None)
            if row is None:
                raise UserError(f"{self._path} changed while it was read; start anew")
            yield row


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
    values = dict(zip(columns or COLUMNS[:1], row, strict=False))
    path = values.get("path", "")
    if not path or "\0" in path:
        raise UserError(f"{place}: no path")
    start, end = (parse_time(place, name, values.get(name, "")) for name in COLUMNS[1:])
    check_order(place, "end", start, end)
    return Entry(path, start, end)
