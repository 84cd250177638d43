"""Reads TensorBoard's files without TensorFlow."""

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog


def read_events(workdir: Path) -> list[tuple[int, str, object]]:
    """Step, name and content, scalars as floats and images as PNG, of what TensorBoard shows.

    A writer that begins anew at a step takes back what had been written from that step on.
    """
    found: list[tuple[int, str, object]] = []
    for path in sorted((workdir / "tensorboard").glob("events.out.tfevents.*")):
        for record in _read_records(path):
            event = Event.FromString(record)
            if event.session_log.status == SessionLog.START:
                found = [row for row in found if row[0] < event.step]
            for value in event.summary.value:
                is_image = value.HasField("image")
                content = value.image.encoded_image_string if is_image else value.simple_value
                found.append((event.step, value.tag, content))
    return found


def _read_records(path: Path):
    """A record is its length, a checksum of that, the bytes and their checksum."""
    content = path.read_bytes()
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        yield content[at + 12 : at + 12 + length]
        at += 12 + length + 4
