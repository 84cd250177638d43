"""The manifest of an archive: a CSV of videos of any length, which workers read in chunks."""

import csv
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from sofnet_jax.archive.store import is_remote, open_file
from sofnet_jax.data.annotations.files import Node, check_order
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand, find_spelling

COLUMNS = ("path", "start", "end")
_Header = tuple[str, ...]


class Entry(NamedTuple):
    """A video, or its part between two times in seconds; `path` is as written in the manifest."""

    path: str
    start: float | None
    end: float | None


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows of a manifest that are processed together."""

    number: int
    offset: int  # of the first row, in bytes
    num_rows: int  # without blank ones
    digest: int  # detects that the manifest changed after it was scanned
    repeated: frozenset[int] = frozenset()  # indices of the duplicates, which are skipped

    @property
    def num_videos(self) -> int:
        """Number of rows that are not skipped."""
        return self.num_rows - len(self.repeated)


@dataclass(frozen=True)
class Manifest:
    """A scanned manifest, at a path or an address such as gs://…."""

    path: str
    columns: _Header  # (): there is no header, and the only column is the path
    digest: str  # SHA-256 of the file
    chunks: tuple[Chunk, ...]

    def read(self, chunk: Chunk) -> list[Entry]:
        """Read the videos of a chunk. Raises UserError, also if the manifest has changed."""
        with open_file(self.path) as file:
            file.seek(chunk.offset)
            rows = itertools.islice(_read_rows(file, self.path), chunk.num_rows)
            entries = [_parse(row, self.columns, place) for row, place, _ in rows]
        if hash(tuple(map(_hash, entries))) != chunk.digest:
            raise UserError(f"{self.path} changed since the command began; give another --output")
        return [entry for i, entry in enumerate(entries) if i not in chunk.repeated]

    def locate(self, entry: Entry) -> str:
        """The full path or address of a video; paths are relative to the manifest's folder."""
        if is_remote(entry.path):
            return entry.path
        path = expand(entry.path)
        if is_remote(self.path) and not os.path.isabs(path):
            return f"{self.path.rpartition('/')[0]}/{path}"
        return find_spelling(os.path.join(os.path.dirname(os.path.abspath(self.path)), path))


def scan_manifest(path: str, chunk_size: int) -> Manifest:
    """Parse every row of a manifest, find duplicates, and divide the rows into chunks.

    The CSV either has one path per row, or a header with `path` and optionally `start` and `end` in
    seconds; other columns are ignored. Takes some 80 bytes of memory per row (76 measured with
    300,000 rows). Raises UserError.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    chunks: list[Chunk] = []
    with open_file(path) as file:
        rows = _read_rows(file, path, digest)
        first = list(itertools.islice(rows, 1))
        columns = _parse_header(*first[0][:2]) if first else ()
        videos = rows if columns else itertools.chain(first, rows)
        for begin in videos:
            part = itertools.chain([begin], itertools.islice(videos, chunk_size - 1))
            keys = [_hash(_parse(row, columns, place)) for row, place, _ in part]
            repeated = set()
            for i, key in enumerate(keys):
                if key in seen:
                    repeated.add(i)
                seen.add(key)
            content = hash(tuple(keys))  # hashes of integers are equal in all processes
            chunks.append(Chunk(len(chunks), begin[2], len(keys), content, frozenset(repeated)))
    if not chunks:
        raise UserError(f"{path}: it lists no videos; write one path per row")
    return Manifest(path, columns, digest.hexdigest(), tuple(chunks))


def _hash(entry: Entry) -> int:
    """A 128-bit hash that identifies a video."""
    text = repr(entry).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())


def _read_rows(
    file: BinaryIO, path: str, digest: "hashlib._Hash | None" = None
) -> Iterator[tuple[list[str], str, int]]:
    """Yield the rows of an open CSV that are not blank, each with its `path:line` and offset."""
    position = file.tell()

    def decode() -> Iterator[str]:
        nonlocal position
        for line in file:
            position += len(line)
            if digest is not None:
                digest.update(line)
            if position == len(line):
                line = line.removeprefix(b"\xef\xbb\xbf")  # written by Windows
            yield line.decode(errors="surrogateescape")

    reader = csv.reader(decode(), strict=True)
    try:
        while True:
            begin = position
            row = next(reader, None)
            if row is None:
                return
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield cells, f"{path}:{reader.line_num}", begin
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({error}); check the quotes") from error


def _parse_header(row: Sequence[str], place: str) -> _Header:
    """The names of the columns; () if the row is not a header."""
    names = tuple(cell.lower() for cell in row)
    if "path" not in names:
        return ()
    for name in COLUMNS:
        if names.count(name) > 1:
            raise UserError(f"{place}: two columns '{name}'; leave one")
    return names


def _parse(row: Sequence[str], columns: _Header, place: str) -> Entry:
    if columns and len(row) != len(columns):
        raise UserError(f"{place}: {len(row)} columns where the header has {len(columns)}")
    if not columns and (len(row) > 1 or row[0].lower().startswith(("path;", "path\t"))):
        raise UserError(f"{place}: several columns need a header, path,start,end, with commas")
    values = dict(zip(columns or COLUMNS[:1], row, strict=False))
    path = values.get("path", "")
    if not path or "\0" in path:
        raise UserError(f"{place}: no path")
    start, end = (Node(place, values).get_number(name) for name in COLUMNS[1:])
    check_order(place, start, end)
    return Entry(path, start, end)
