"""What the header of an H.264 stream says of its pictures (ITU-T H.264, 7.3.2.1.1)."""

from collections.abc import Iterator

_SEQUENCE_PARAMETER_SET = 7
_PROFILES_WITH_CHROMA = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}


def codes_frames_only(header: bytes | None) -> bool:
    """Whether no picture is a field, which may have a packet of its own; False if not known.

    `header` is what comes before the packets, in either form: avcC or start codes (Annex B).
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
    """Reads bits and Exp-Golomb codes (9.1)."""

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
    bits = _Bits(parameter_set.replace(b"\0\0\3", b"\0\0")[1:])
    profile = bits.number(24) >> 16  # the flags and the level follow it
    bits.code()  # seq_parameter_set_id
    if profile in _PROFILES_WITH_CHROMA:
        if bits.code() == 3:  # chroma_format_idc
            bits.number(1)
        bits.code(), bits.code(), bits.number(1)  # bit depths, lossless
        if bits.number(1):
            return False  # scaling matrices, which are hardly ever there, are not read over
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
