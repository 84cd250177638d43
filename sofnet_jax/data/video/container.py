"""An open video file: its packets, its frames and its clock; libav by PyAV."""

import contextlib
import itertools
import math
import os
from array import array
from collections.abc import Generator, Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from jaxtyping import Bool, Float, Int

from sofnet_jax.data.video.headers import codes_frames_only, counts_more_samples_than_bytes
from sofnet_jax.data.video.times import CLOCK_OPTIONS, Times
from sofnet_jax.host.address import mask_passwords
from sofnet_jax.host.time_limit import TimeLimit

PacketRange = tuple[int, int]  # the first and the last packet

_PROMISES = "its index promises more than the file holds"
_REFUSED = "a picture, a playlist or an unusual format; convert it to MP4"
_REPEATS = 8  # how often, on average, an index may refer to a byte of the file
MAX_PIXELS = 8192 * 4608  # a frame; a damaged header may promise any number
MAX_FRAMES = 10_000_000  # a file: four days at 25 a second; the index of all is held in memory
FILE = "file:"  # so that libav takes a name with a colon for a name
# A file must not open other files or the network, as playlists and image patterns would.
_OPTIONS = {
    **CLOCK_OPTIONS,
    "max_pixels": str(MAX_PIXELS),
    "protocol_whitelist": "file",
    "format_whitelist": "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,h264,hevc,m4v,ivf,obu,"
    "gif,mxf,dv,rm,nut,wtv,yuv4mpegpipe",
}
_SEEKABLE = ("mov", "matroska")  # have an index of their own
_NOT_CODED = 8  # bytes; so short an MPEG-4 packet says that there is no picture
_GAP = 1 << 20  # bytes; a seek pays off only beyond it
# By their standards, no picture depends on one that these decoders skip as "NONREF".
_THINNED = ("h264", "mpeg1video", "mpeg2video", "mpeg4")

# Damage is reported by VideoError; libav's own messages name neither the file nor a remedy.
av.logging.set_level(None)
av.logging.set_libav_level(av.logging.PANIC)


class VideoError(Exception):
    """A video that cannot be read, in one line: `<path>: <reason>`."""

    def __init__(self, text: str):
        super().__init__(mask_passwords(text))


@contextlib.contextmanager
def report_errors(path: str, problem: str = "not a readable video") -> Iterator[None]:
    """Turn errors of libav into VideoError."""
    try:
        yield
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: {problem} ({reason})") from error


@dataclass(frozen=True)
class Index:
    """The packets in decode order, as far as they are known without decoding."""

    pts: Int[np.ndarray, "p"]
    size: Int[np.ndarray, "p"]  # bytes
    keyframe: Bool[np.ndarray, "p"]
    shown: Bool[np.ndarray, "p"]  # False: decoded for others, but cut off by an edit list


def find_stream(container: Any, name: str) -> Any:
    """The first video stream that is not a cover picture. Raises VideoError."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise VideoError(f"{name}: no video stream")
    if streams[0].codec_context is None:
        raise VideoError(f"{name}: no decoder for its video stream")
    return streams[0]


def explain_no_frame(stream: Any) -> str:
    """Why no frame comes out of a stream, which has no size if that is not allowed."""
    if 0 < stream.width * stream.height <= MAX_PIXELS:
        return "no frame can be decoded"
    return f"no frame can be decoded; each may have at most {MAX_PIXELS:,} pixels"


def has_time_stamps(container: Any) -> bool:
    """True if the format stores time stamps; bare codecs and pictures have none."""
    untimed = container.format.flags & av.format.Flags.no_timestamps.value
    return not (untimed or container.format.name.endswith("_pipe"))


def decode_packet(stream: Any, packet: av.Packet | None) -> list[av.VideoFrame]:
    """Decode a packet, or with None what the decoder still holds; [] for a damaged one."""
    try:
        return stream.decode(packet)
    except av.FFmpegError:
        return []


class Video:
    """An open video file. Not for more than one thread at a time."""

    def __init__(self, path: str, limit: TimeLimit | None = None):
        """Open a file, whose packets can be read until `limit` has passed. Raises VideoError."""
        self.path = path
        self._limit = limit or TimeLimit()
        with report_errors(path):
            self._num_bytes = os.path.getsize(path)
            if counts_more_samples_than_bytes(path, self.check_time):
                raise VideoError(f"{path}: {_PROMISES}")
        self._open()

    def _open(self) -> None:
        seconds = self._limit.seconds  # libav keeps to them within a call
        timeout = seconds if math.isfinite(seconds) else None
        with report_errors(self.path):
            try:
                self._container = av.open(
                    FILE + self.path,
                    metadata_errors="ignore",
                    options=_OPTIONS,
                    timeout=timeout,
                )
            except av.ArgumentError as error:  # what libav says of a format that is not allowed
                raise ValueError(_REFUSED) from error
            except av.ExitError:
                self.check_time()
                raise
        self._stream = find_stream(self._container, self.path)
        for stream in self._container.streams:
            if stream.index != self._stream.index:
                stream.discard = av.stream.Discard.all
        self.no_frame = explain_no_frame(self._stream)
        self._codec = self._stream.codec_context
        self._codec.options = {"max_pixels": str(MAX_PIXELS)}
        self._codec.thread_count = 1  # frames in parallel are slower than ranges in parallel
        self._thinned = self._codec.name in _THINNED or _has_one_layer(self._codec)
        self._packets = self._demux()
        self._position = 0  # the number of the next packet

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _demux(self) -> Iterator[av.Packet]:
        """The packets in decode order, up to the end or the first that cannot be read."""
        left, number, own = _REPEATS * self._num_bytes, 0, self._stream.index
        # PyAV raises IndexError for streams that only a damaged packet mentions.
        with contextlib.suppress(av.FFmpegError, IndexError):
            for packet in self._container.demux():  # some formats discard nothing
                self.check_time()
                if packet.stream_index != own:
                    continue
                number += 1
                left -= packet.size + 1
                if left < 0:
                    raise VideoError(f"{self.path}: {_PROMISES}")
                if number > MAX_FRAMES + 1:  # the last packet is empty
                    raise VideoError(f"{self.path}: more than {MAX_FRAMES:,} frames; cut it")
                if packet.size:  # the decoder takes one without data for the end
                    yield packet
        self.check_time()  # libav may have ended for it

    def check_time(self) -> None:
        """Raise VideoError if the time limit has passed."""
        if self._limit.passed:
            raise VideoError(
                f"{self.path}: not done after {self._limit.seconds:g} s; raise --time_limit to "
                "wait longer"
            )

    def read_index(self) -> Index | None:
        """Read all packets. None if they do not tell how many frames there are, and when."""
        if not self._stamps_frames:
            return None
        pts, size, flags = array("q"), array("q"), bytearray()  # compact, for long videos
        decoded: int | None = None  # time stamp; decreases where one file was put behind another
        for packet in self._packets:
            self._position += 1
            if packet.pts is None or (self._codec.name == "mpeg4" and packet.size <= _NOT_CODED):
                return None
            if decoded is not None and packet.dts is not None and packet.dts < decoded:
                return None
            decoded = packet.dts
            pts.append(packet.pts)
            size.append(packet.size)
            flags.append(packet.is_keyframe + 2 * self._shows(packet))
        return Index(
            pts=np.frombuffer(pts, np.int64),
            size=np.frombuffer(size, np.int64),
            keyframe=np.frombuffer(flags, np.uint8) & 1 > 0,
            shown=np.frombuffer(flags, np.uint8) & 2 > 0,
        )

    @property
    def _stamps_frames(self) -> bool:
        """Whether every packet is a frame with the time stamp of its presentation.

        AVI numbers packets in decode order; MPEG-4 made for AVI holds two frames in one packet and
        none in the next. Interlaced H.264 may have a packet for each field.
        """
        name, container = self._codec.name, self._container.format.name
        if name == "h264" and not codes_frames_only(self._codec.extradata):
            return False
        made_for_avi = container == "avi" or (name == "mpeg4" and not container.startswith("mov"))
        return not (made_for_avi and self._codec.has_b_frames)

    def _shows(self, packet: av.Packet) -> bool:
        """False if the frame is only a reference for others, or lies before a cut."""
        hidden = self._codec.name == "vp8" and not memoryview(packet)[0] & 0x10  # RFC 6386, 9.1
        return not (packet.is_discard or hidden)

    def decode(self) -> Iterator[av.VideoFrame]:
        """Decode everything, from the beginning."""
        for packet in self._packets:
            yield from self._decode_packet(packet)
        yield from self._decode_packet(None)  # what the decoder still holds

    def decode_ranges(
        self, ranges: Iterable[PacketRange], wanted: Set[int], index: Index
    ) -> Generator[av.VideoFrame, None, None]:
        """Decode each range of packets from a clean decoder.

        Frames of packets that are not `wanted` may or may not come out. Ends early if the packets
        differ from the index, or if a range does not begin with a keyframe, whatever the container
        says: some decoders begin anywhere, with grey for what they lack.
        """
        for first, last in ranges:
            self._go_to(first, index)
            sound = first == 0
            for frame in self._decode_range(first, last, wanted, index):
                if frame.pts == index.pts[first]:
                    sound = sound or frame.key_frame or frame.pict_type == PictureType.I
                if sound:  # frames before the keyframe are not of this range
                    yield frame
            if not sound or self._position != last + 1:
                return

    def _decode_range(
        self, first: int, last: int, wanted: Set[int], index: Index
    ) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._packets:
                n = self._position
                if n >= len(index.pts) or packet.pts != index.pts[n]:
                    return
                self._position += 1
                if n >= first:
                    self._thin_out(n not in wanted)
                    yield from self._decode_packet(packet)
                if n == last:
                    break
            yield from self._decode_packet(None)
        finally:  # also if the caller stops early
            self._codec.flush_buffers()

    def _go_to(self, first: int, index: Index) -> None:
        """Move to packet `first`, or to one before it."""
        seekable = self._container.format.name.startswith(_SEEKABLE)
        if self._position <= first:
            gap = index.size[self._position : first].sum()
            if gap < _GAP or not seekable:
                return
        if not (seekable and self._seek(first, index)):
            self._container.close()
            self._open()

    def _seek(self, first: int, index: Index) -> bool:
        """Seek to packet `first`, or to one before it; False if that failed."""
        try:
            self._container.seek(int(index.pts[first]), stream=self._stream)
        except av.FFmpegError:
            return False
        packets = self._demux()
        packet = next(packets, None)
        if packet is None or packet.pts is None:
            return False
        found = np.flatnonzero(index.pts == packet.pts)
        if len(found) != 1 or found[0] > first:
            return False
        self._position = int(found[0])
        self._packets = itertools.chain([packet], packets)
        return True

    def _thin_out(self, yes: bool) -> None:
        """Let the decoder skip pictures on which no other depends, where that is safe."""
        if self._thinned:
            self._codec.skip_frame = "NONREF" if yes else "DEFAULT"

    def _decode_packet(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        return decode_packet(self._stream, packet)

    @property
    def claimed_duration(self) -> float:
        """Seconds, according to the header; 0 if it does not say."""
        return (self._container.duration or 0) / av.time_base

    @property
    def promised(self) -> tuple[int, float]:
        """Frames and seconds of video according to the header; 0 if it does not say."""
        flags: Any = av.format.Flags  # without a header, the duration is an estimate
        if self._container.format.flags & (flags.no_timestamps.value | flags.ts_discont.value):
            return 0, 0.0
        unit = float(self._stream.time_base or 0)
        own = (self._stream.duration or 0) * unit or self.claimed_duration
        return self._stream.frames, min(own, self.claimed_duration)

    def read_times(self) -> Float[np.ndarray, "f"]:
        """Decode everything; return the times of the frames that come out, in seconds."""
        clock, times = Times(self._stream), array("d")
        for packet in itertools.chain(self._packets, [None]):  # None: what is held back
            if packet is not None:
                clock.take(packet)
            times.extend(map(clock.place, self._decode_packet(packet)))
        return self._count_from_start(np.sort(np.frombuffer(times)))

    def seconds(self, pts: Int[np.ndarray, "p"]) -> Float[np.ndarray, "p"]:
        """Convert time stamps to seconds from the beginning of the file, sound or picture."""
        return self._count_from_start(pts * float(self._stream.time_base or 0))

    def _count_from_start(self, times: Float[np.ndarray, "f"]) -> Float[np.ndarray, "f"]:
        origin = self._container.start_time
        if origin is None:
            return times - times.min(initial=np.inf)
        return times - origin / av.time_base


def _has_one_layer(codec: av.VideoCodecContext) -> bool:
    """Whether this is HEVC without temporal layers; a higher layer may depend on any frame.

    Only hvcC tells, the header in MP4 and Matroska (ISO 14496-15, 8.3.3.1).
    """
    header = codec.extradata or b""
    return (
        codec.name == "hevc"
        and header[:1] == b"\1"
        and header[21:22] != b""
        and header[21] >> 3 & 7 == 1
    )
