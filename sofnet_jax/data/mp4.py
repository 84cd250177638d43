"""MP4 files whose tables promise more than the file can hold (ISO 14496-12)."""

import os
import re
from typing import BinaryIO

# A number of samples that stands without an entry for each of them: if all are of one size (8.7.3),
# or of the same everything (8.8.8). libav would make the entries, 24 bytes or more for each.
_COUNTS = {
    b"moov": re.compile(rb"stsz.{4}(?!\0\0\0\0).{4}(.{4})", re.DOTALL),
    b"moof": re.compile(rb"trun.{4}(.{4})", re.DOTALL),
}


def counts_more_samples_than_bytes(path: str) -> bool:
    """Whether some table of an MP4 file does; False for other files."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        at = 0
        while at < size:
            length, kind = _read_header(file, at, size)
            if kind in _COUNTS:
                counts = _COUNTS[kind].findall(file.read(min(length, size)))
                if any(int.from_bytes(count, "big") > size for count in counts):
                    return True
            if length < 8:
                break  # no MP4, or a damaged one
            at += length
    return False


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
