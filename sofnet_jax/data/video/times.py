"""The times of frames, which go on where time stamps begin anew."""

import time
from typing import Any

import av

ASSUMED_RATE = 25  # frames per second if neither frames nor stream tell
# libav would take MPEG-TS time stamps that begin anew for an overflow, 26 hours later.
CLOCK_OPTIONS = {"correct_ts_overflow": "0"}


class Times:
    """The times of the frames of a file or of one connection, in seconds.

    Time stamps have begun anew once those of decoding, in whose order packets come, step back: the
    next frame that is not later than the one before then follows it at the stream's rate.
    """

    def __init__(self, stream: Any, stamped: bool = True):
        """Without `stamped`, times are those of arrival."""
        self._interval = float(1 / (stream.guessed_rate or ASSUMED_RATE))
        self._unit = float(stream.time_base or 0)  # frames that were held back do not know theirs
        self._stamped = stamped
        self._shift = 0.0
        self._last = -self._interval
        self._dts: int | None = None
        self._anew = False

    def take(self, packet: av.Packet) -> None:
        """Note the next packet's time of decoding."""
        if packet.dts is not None:
            self._anew |= self._dts is not None and packet.dts < self._dts
            self._dts = packet.dts

    def place(self, frame: av.VideoFrame) -> float:
        """The time of the next frame."""
        following = self._last + self._interval
        at = following if frame.pts is None else frame.pts * self._unit + self._shift
        if not self._stamped:
            at = time.monotonic()
        elif self._anew and at <= self._last:
            self._shift += following - at
            self._anew, at = False, following
        self._last = at
        return at
