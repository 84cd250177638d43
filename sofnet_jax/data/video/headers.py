"""Headers of H.264 streams (ITU-T H.264) and boxes of MP4 files (ISO 14496-12)."""

import math
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

_SEQUENCE_PARAMETER_SET = 7
_PROFILES_WITH_CHROMA = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
# Boxes with a sample count, this many bytes after the name, that need not hold an entry for each
# sample: all of one size (8.7.3), or alike in everything (8.8.8). libav would create the entries,
# 24 bytes or more each. All boxes but the media data are searched, since libav does not mind where
# these are. A compressed header ("cmov") could hide one.
_COUNT_OFFSETS = {b"stsz": 12, b"trun": 8, b"cmov": 4}
_OVERLAP = 20  # bytes; no box searched for needs more
_PIECE = 1 << 20  # bytes read at a time


def codes_frames_only(header: bytes | None) -> bool:
    """Whether no picture is a field, which may have a packet of its own; False if unknown.

    `header` precedes the packets, in either form: avcC or start codes (Annex B).
    """
    try:
        sets = [_frame_mbs_only(s) for s in _find_parameter_sets(header or b"")]
    except (IndexError, ValueError):
        return False  # cut short
    return bool(sets) and all(sets)


def _find_parameter_sets(header: bytes) -> Iterator[bytes]:
    if header[:1] == b"\1":
        at = 6
        for _ in range(header[5] & 31):
            size = int.from_bytes(header[at : at + 2], "big")
            yield header[at + 2 : at + 2 + size]
            at += 2 + size
    else:
        for unit in header.split(b"\0\0\1")[1:]:
            if unit[0] & 31 == _SEQUENCE_PARAMETER_SET:
                yield unit


class _Bits:
    """A reader of bits and Exp-Golomb codes (9.1)."""

    def __init__(self, data: bytes):
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def number(self, length: int) -> int:
        self._at += length
        return int(self._bits[self._at - length : self._at], 2)

    def code(self) -> int:
        zeros = self._bits.index("1", self._at) - self._at
        self._at += zeros
        return self.number(zeros + 1) - 1


def _frame_mbs_only(parameter_set: bytes) -> bool:
    """The flag of a sequence parameter set (7.3.2.1.1)."""
    bits = _Bits(parameter_set.replace(b"\0\0\3", b"\0\0")[1:])
    profile = bits.number(24) >> 16  # flags and level follow
    bits.code()  # seq_parameter_set_id
    if profile in _PROFILES_WITH_CHROMA:
        if bits.code() == 3:  # chroma_format_idc
            bits.number(1)
        bits.code(), bits.code(), bits.number(1)  # bit depths, lossless
        if bits.number(1):
            return False  # scaling matrices, which are rare, are not parsed
    bits.code()  # log2_max_frame_num_minus4
    order = bits.code()  # pic_order_cnt_type
    if order == 0:
        bits.code()
    elif order == 1:
        bits.number(1), bits.code(), bits.code()
        for _ in range(bits.code()):
            bits.code()
    bits.code(), bits.number(1)  # reference frames, gaps
    bits.code(), bits.code()  # width, height
    return bits.number(1) == 1


def counts_more_samples_than_bytes(path: str, check: Callable[[], None] = lambda: None) -> bool:
    """True for an MP4 file that declares more samples than it has bytes; False for other files.

    A compressed header may declare any number, so it counts as too many. `check` is called often,
    and may raise an error to end a long search.
    """
    size = os.path.getsize(path)
    left: float = size
    with open(path, "rb") as file:
        at = 0
        while at < size:
            check()
            length, kind = _read_header(file, at, size)
            if at == 0 and not kind.isalnum():
                break  # not MP4
            if kind != b"mdat":
                end = min(at + max(length, 8), size)
                for piece in _read_pieces(file, at, end):
                    check()
                    left -= sum(_find_counts(piece))
                if left < 0:
                    return True
            if length < 8:
                break  # not MP4, or damaged
            at += length
    return False


def _find_counts(piece: bytes) -> Iterator[float]:
    """Sample counts without entries; infinite for a compressed header."""
    for name, offset in _COUNT_OFFSETS.items():
        at = piece.find(name)
        while at >= 0:
            # A preceding length under 2²⁹ distinguishes a box from text.
            is_box = at >= 4 and piece[at - 4] < 0x20
            listed = name == b"stsz" and not any(piece[at + 8 : at + 12])  # sizes follow
            if is_box and not listed:
                number = int.from_bytes(piece[at + offset : at + offset + 4], "big")
                yield math.inf if name == b"cmov" else number
            at = piece.find(name, at + 1)


def _read_pieces(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """A part of the file in pieces that overlap, so that no box is cut."""
    for at in range(start, end, _PIECE):
        file.seek(at)
        yield file.read(min(_PIECE + _OVERLAP, end - at))


def _read_header(file: BinaryIO, at: int, size: int) -> tuple[int, bytes]:
    """The length of the box (4.2) at byte `at`, including its header, and its kind."""
    file.seek(at)
    header = file.read(8)
    length, kind = int.from_bytes(header[:4], "big"), header[4:]
    if length == 1:
        length = int.from_bytes(file.read(8), "big")
    elif length == 0:
        length = size - at  # up to the end
    return length, kind
