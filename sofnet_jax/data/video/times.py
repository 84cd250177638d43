"""The times of frames, which go on where time stamps begin anew."""

import time
from typing import Any

import av

ASSUMED_RATE = 25  # frames per second if neither frames nor stream tell
# libav would take MPEG-TS time stamps that begin anew for an overflow, 26 hours later.
CLOCK_OPTIONS = {"correct_ts_overflow": "0"}
_LAST_STAMP = 1 << 33  # where those of MPEG begin anew by their standard, after 26.5 hours
_GAP = 60.0  # seconds between frames beyond which that is not the reason


class Times:
    """The times of the frames of a file or of one connection, in seconds.

    Time stamps have begun anew once those of decoding, in whose order packets come, step back: the
    next frame that is not later than the one before then follows it at the stream's rate. Those of
    MPEG that reach their last number are not such a case: the same clock goes on.
    """

    def __init__(self, stream: Any, stamped: bool = True):
        """Without `stamped`, times are those of arrival."""
        self._interval = float(1 / (stream.guessed_rate or ASSUMED_RATE))
        self._unit = float(stream.time_base or 0)  # frames that were held back do not know theirs
        self._stamped = stamped
        self._turn = _LAST_STAMP * self._unit
        self._shift = 0.0
        self._last: float | None = None
        self._dts: int | None = None
        self._anew = False

    def take(self, packet: av.Packet) -> None:
        """Note the next packet's time of decoding."""
        if packet.dts is not None:
            self._anew |= self._dts is not None and packet.dts < self._dts
            self._dts = packet.dts

    def place(self, frame: av.VideoFrame) -> float:
        """The time of the next frame."""
        at = self._last = self._choose(frame, self._last)
        return at

    def _choose(self, frame: av.VideoFrame, last: float | None) -> float:
        if not self._stamped:
            return time.monotonic()
        following = 0.0 if last is None else last + self._interval
        if frame.pts is None:
            return following
        at = frame.pts * self._unit + self._shift
        if last is None:
            return at
        turns = round((last - at) / self._turn) if self._turn else 0
        if turns and abs(at + turns * self._turn - last) < _GAP:
            self._shift += turns * self._turn
            at += turns * self._turn
        if self._anew and at <= last:
            self._shift += following - at
            self._anew, at = False, following
        return at
