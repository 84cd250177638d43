"""H.264 whose frames are coded as two fields, which no encoder at hand does (ITU-T H.264, 7.3).

Samples are written as they are (I_PCM), so that every number can be written by hand.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

INTERVAL = 8  # frames from one IDR picture to the next; of the others every second is a reference
_START = b"\0\0\0\1"


def _code(number: int) -> str:
    """The Exp-Golomb code of a number (9.1)."""
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


def _pack(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _write_unit(header: int, payload: bytes) -> bytes:
    """A NAL unit with its start code; no other start code is in it (7.4.1)."""
    unit, zeros = bytearray([header]), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            unit.append(3)
            zeros = 0
        unit.append(byte)
        zeros = 0 if byte else zeros + 1
    return _START + bytes(unit)


def write_parameters(width: int, height: int, *, fields: bool = True) -> bytes:
    """Sequence and picture parameters of pictures of this size, in multiples of 16 or 32 pixels."""
    bits = f"{77:08b}{0:08b}{40:08b}"  # Main profile, level 4
    bits += (
        _code(0) + _code(0) + _code(0) + _code(4) + _code(1) + "0"
    )  # 4 bits number, 8 bits order
    bits += _code(width // 16 - 1) + _code(height // (32 if fields else 16) - 1)
    bits += "00" if fields else "1"  # not frames alone, nor both in the macroblocks of one picture
    sequence = _write_unit(0x67, _pack(bits + "100" + "1"))
    bits = _code(0) + _code(0) + "00" + 3 * _code(0) + "000" + 3 * _code(0) + "100"
    return sequence + _write_unit(0x68, _pack(bits + "1"))


def _write_field(luma: np.ndarray, n: int, bottom: bool) -> bytes:
    """One field of frame `n`: a picture without prediction, of one slice."""
    place = n % INTERVAL
    idr, reference = place == 0 and not bottom, place % 2 == 0
    bits = _code(0) + _code(7) + _code(0) + f"{(place + 1) // 2:04b}" + f"1{bottom:b}"
    if idr:
        bits += _code(n // INTERVAL % 2)
    bits += f"{2 * place + bottom:08b}"
    if reference:
        bits += "00" if idr else "0"
    bits += _code(0) + _code(1)
    data = b""
    for y in range(0, luma.shape[0], 16):
        for x in range(0, luma.shape[1], 16):
            samples = luma[y : y + 16, x : x + 16].tobytes() + bytes([128]) * 128
            data += _pack(bits + _code(25)) + samples
            bits = ""
    return _write_unit(0x60 * reference | (5 if idr else 1), data + b"\x80")


def write_field_video(path: Path, lumas: Iterable[np.ndarray], *, packets_per_frame: int) -> Path:
    """Writes frames, 25 a second, with the fields of each in one packet or in two."""
    lumas = list(lumas)
    height, width = lumas[0].shape
    parameters = write_parameters(width, height)
    frames = [[_write_field(y[k::2], n, bool(k)) for k in (0, 1)] for n, y in enumerate(lumas)]
    bare = path.with_suffix(".h264")
    bare.write_bytes(parameters + b"".join(b"".join(fields) for fields in frames))
    if path == bare:
        return path
    with av.open(str(bare)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for n, fields in enumerate(frames):
            parts = [b"".join(fields)] if packets_per_frame == 1 else fields
            for k, part in enumerate(parts):
                key = n % INTERVAL == 0 and k == 0
                packet = av.Packet(parameters + part if key else part)
                packet.pts = packet.dts = 2 * n + k
                packet.duration = 2 // packets_per_frame
                packet.time_base = Fraction(1, 50)
                packet.stream = stream
                packet.is_keyframe = key
                container.mux(packet)
    return path
