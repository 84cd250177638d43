"""MP4 files whose tables promise more than the file can hold (ISO 14496-12)."""

import math
import os
from collections.abc import Iterator
from typing import BinaryIO

# Boxes with a number of samples, so many bytes after the name, that stands with no entry for each
# of them: all of one size (8.7.3), or like each other in everything (8.8.8). libav would make the
# entries, 24 bytes or more for each. They are sought in all boxes but the data's, since libav does
# not mind where they are. What is compressed ("cmov") could hide one.
_NAMES = {b"stsz": 12, b"trun": 8, b"cmov": 4}
_LONGEST = 20  # bytes of what is sought
_PIECE = 1 << 20  # bytes read at a time


def counts_more_samples_than_bytes(path: str) -> bool:
    """Whether the tables of an MP4 file do, or could, being compressed; False for other files."""
    size = os.path.getsize(path)
    left: float = size
    with open(path, "rb") as file:
        at = 0
        while at < size:
            length, kind = _read_header(file, at, size)
            if at == 0 and not kind.isalnum():
                break  # no MP4
            if kind != b"mdat":
                end = min(at + max(length, 8), size)
                left -= sum(n for piece in _read_pieces(file, at, end) for n in _find_counts(piece))
                if left < 0:
                    return True
            if length < 8:
                break  # no MP4, or a damaged one
            at += length
    return False


def _find_counts(piece: bytes) -> Iterator[float]:
    """Numbers of samples without entries; infinite of what is compressed."""
    for name, offset in _NAMES.items():
        at = piece.find(name)
        while at >= 0:
            # A length under 2²⁹ in front tells a box from a text with the same letters.
            is_box = at >= 4 and piece[at - 4] < 0x20
            listed = name == b"stsz" and not any(piece[at + 8 : at + 12])  # the sizes follow
            if is_box and not listed:
                number = int.from_bytes(piece[at + offset : at + offset + 4], "big")
                yield math.inf if name == b"cmov" else number
            at = piece.find(name, at + 1)


def _read_pieces(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """A part of the file in pieces that overlap, so that nothing sought is cut."""
    for at in range(start, end, _PIECE):
        file.seek(at)
        yield file.read(min(_PIECE + _LONGEST, end - at))


def _read_header(file: BinaryIO, at: int, size: int) -> tuple[int, bytes]:
    """The length of the box (4.2) at byte `at`, with its header, and its kind."""
    file.seek(at)
    header = file.read(8)
    length, kind = int.from_bytes(header[:4], "big"), header[4:]
    if length == 1:
        length = int.from_bytes(file.read(8), "big")
    elif length == 0:
        length = size - at  # up to the end
    return length, kind
