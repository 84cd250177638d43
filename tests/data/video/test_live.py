"""Streams that break off are found again; what was lost is said."""

import errno
import functools
import http.server
import io
import itertools
import os
import threading
import types
from unittest import mock

import av
import numpy as np
import pytest
from numbered_frame import draw_number, read_number

from sofnet_jax.data.video import live
from sofnet_jax.data.video.container import VideoError
from sofnet_jax.data.video.live import connect, find_videos, is_live
from sofnet_jax.data.video.reader import VideoReader
from sofnet_jax.host.errors import UserError


def _write_stream(numbers, *, codec="mpeg2video", form="mpegts", begin=0, rate=25) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = 96, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(draw_number(number, 96, 96), format="rgb24")
            frame.pts = begin + i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.fixture
def serve():
    """Starts a server that answers each request with the next of some contents, None with 404."""
    servers = []

    def start(*contents):
        left = list(contents)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = left.pop(0) if left else None
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/live"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """The seconds that were waited, without waiting them."""
    waited = []
    monkeypatch.setattr(live.time, "sleep", waited.append)
    return waited


def test_a_stream_that_drops_is_found_again(serve, pauses):
    first, second = _write_stream(range(30)), _write_stream(range(100, 130))
    address = serve(first, None, None, second)
    said, numbers, last = [], [], -1.0
    with pytest.raises(VideoError, match="connection lost; 10 attempts to reconnect failed"):
        for frames in connect(address, say=said.append):
            part = []
            for time, read in frames:
                assert time >= last
                last = time
                part.append(read_number(read()))
            numbers.append(part)
    assert numbers == [list(range(30)), list(range(100, 130))]
    # 1 s, then 2 and 4 s for the requests that failed; after the second connection anew.
    assert pauses == [1, 2, 4, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert said[1] == f"{address}: the stream dropped; reconnecting in 2 s"


def test_frames_that_are_not_read_are_not_converted(serve, monkeypatch):
    painted = []
    paint = live.Canvas.paint
    monkeypatch.setattr(live.Canvas, "paint", lambda *a: painted.append(1) or paint(*a))
    connections = connect(serve(_write_stream(range(30))), short_side=48, say=print)
    frames = enumerate(next(connections))
    images = [read() for i, (_, read) in frames if i % 10 == 0]
    assert len(painted) == 3 and images[0].shape == (48, 48, 3) and images[0].dtype == np.uint8


@pytest.mark.parametrize("content", [None, b"", b"no video" * 1000], ids=["404", "empty", "text"])
def test_what_was_never_a_stream_is_an_error_at_once(content, serve, pauses):
    address = serve(content)
    with pytest.raises(VideoError, match=address):
        next(connect(address, say=print))
    assert not pauses


def test_a_named_pipe_is_a_stream(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = _write_stream(range(30))
    assert find_videos(str(pipe)) == [str(pipe)]
    threading.Thread(target=pipe.write_bytes, args=(content,), daemon=True).start()
    connections = list(map(_stamp, connect(str(pipe), say=pytest.fail)))
    assert [numbers for _, numbers in connections] == [list(range(30))]


def test_what_is_neither_a_file_nor_a_pipe(tmp_path):
    for path in ("/dev/null", tmp_path):
        with pytest.raises(VideoError, match=f"{path}: not a plain file; pipe it into"):
            VideoReader(path)


@pytest.mark.parametrize("scheme", ["http", "rtsps", "rtmps", "rtmpt", "ftp", "mmsh", "tls"])
def test_protocols_that_are_allowed(scheme):
    with pytest.raises(VideoError, match=r"not a video stream \(Connection refused\)"):
        next(connect(f"{scheme}://127.0.0.1:9/a/b", say=print))


@pytest.mark.parametrize(
    "source", ["file:///a.mp4", "gopher://h/1", "crypto+file://a", "concat+http://h", "HTTP://h/"]
)
def test_protocols_that_are_refused(source):
    scheme = source.partition(":")[0]
    with pytest.raises(VideoError) as caught:
        next(connect(source, say=print))
    reason = f"{source}: {scheme}:// is refused; give a file's path, or one of http, https, rtsp"
    assert str(caught.value).startswith(reason)


def test_a_source_that_cannot_answer(monkeypatch):
    for error, reason in [
        (av.error.ProtocolNotFoundError(0, ""), "this FFmpeg was built without srt://"),
        (av.error.ExitError(0, ""), "no answer within 10 s"),
    ]:
        monkeypatch.setattr(live.av, "open", mock.Mock(side_effect=error))
        with pytest.raises(VideoError) as caught:
            next(connect("srt://h", say=print))
        assert str(caught.value) == f"srt://h: not a video stream ({reason})"


def test_no_such_camera(tmp_path):
    (tmp_path / "by-id").symlink_to("/dev/video99")
    with pytest.raises(VideoError, match="by-id: not a video stream"):
        next(connect(str(tmp_path / "by-id"), say=print))
    assert find_videos(str(tmp_path / "by-id")) == [str(tmp_path / "by-id")]
    with pytest.raises(VideoError, match="/dev/video99"):
        next(connect("/dev/video99", say=print))


@pytest.mark.parametrize("name", ["", "run", "run/1.mp4", "*/*.mp4", "run/*", "**", "**/*"])
def test_a_folder_that_cannot_be_read_is_named(name, tmp_path, close_folder):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/1.mp4").touch()
    close_folder(tmp_path / "run")
    with pytest.raises(UserError, match=f"^{tmp_path}/run: cannot be read .Permission denied"):
        find_videos(str(tmp_path / name))


def test_what_cannot_be_looked_at_is_not_live(tmp_path, close_folder):
    (tmp_path / "run").mkdir()
    close_folder(tmp_path / "run")
    for name in (f"{tmp_path}/run/1.mp4", "a" * 300, "a\0b"):
        assert not is_live(name)


def test_what_matches_a_pattern_is_not_left_out_silently(tmp_path):
    (tmp_path / "b.mp4").touch()
    (tmp_path / "a.mp4").symlink_to("nowhere")
    (tmp_path / "c.mp4").mkdir()
    expected = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    assert find_videos(str(tmp_path / "*.mp4")) == expected
    with pytest.raises(UserError, match="no file matches"):
        find_videos(str(tmp_path / "c.*"))


def test_an_empty_name_is_not_the_current_folder():
    with pytest.raises(UserError, match="^an empty name: no such file or folder; give a video"):
        find_videos("")


def test_a_current_folder_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UserError, match="^the current folder: cannot be read .No such file"):
        find_videos(".")


def test_a_file_that_does_not_arrive_whole_is_noted(monkeypatch):
    """As a server that closes the connection before all that it announced."""
    content = _write_stream(range(30))
    read = mock.Mock(side_effect=[content, OSError(errno.EIO, os.strerror(errno.EIO))])
    monkeypatch.setattr("sys.stdin", mock.Mock(fileno=lambda: 0))
    file = mock.MagicMock(read=read)
    file.__enter__.return_value = file
    monkeypatch.setattr("builtins.open", lambda *_, **__: file)
    notes = []
    assert sum(len(list(frames)) for frames in connect("-", say=notes.append)) > 20
    assert notes == ["note: - is cut off (Input/output error)"]


def test_a_file_is_found_in_the_other_unicode_form(tmp_path):
    """As macOS decomposes accents and others do not."""
    (tmp_path / "cafe\u0301.mp4").touch()
    found = find_videos(str(tmp_path / "caf\u00e9.mp4"))
    assert found == [str(tmp_path / "cafe\u0301.mp4")]


def _stamp(frames):
    """Their times and numbers."""
    times, numbers = [], []
    for at, read in frames:
        times.append(at)
        numbers.append(read_number(read()))
    return np.array(times), numbers


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])  # frames in order, and reordered
@pytest.mark.parametrize(
    "begins",
    [(0, 0), (40, 30, 35), (25_000, 0), (2_000_000, 0)],
    ids=["looped", "overlapping", "restarted", "half a day lower"],
)
def test_no_frame_is_lost_where_time_stamps_begin_anew(begins, codec, serve):
    parts = [
        _write_stream(range(30 * i, 30 * i + 30), codec=codec, begin=begin)
        for i, begin in enumerate(begins)
    ]
    connections = connect(serve(b"".join(parts)), say=print)
    times, numbers = _stamp(next(connections))
    assert numbers == list(range(30 * len(parts)))
    assert np.allclose(np.diff(times), 0.04, atol=1e-3)


_MOTION_JPEG = {"codec": "mjpeg", "form": "mjpeg", "rate": 5}


def test_frames_without_time_stamps_have_those_of_arrival(serve, monkeypatch):
    ticks = itertools.count(1000)
    clock = types.SimpleNamespace(monotonic=lambda: 0.2 * next(ticks))
    monkeypatch.setattr("sofnet_jax.data.video.live.time", clock)
    monkeypatch.setattr("sofnet_jax.data.video.times.time", clock)
    images = [_write_stream([number], **_MOTION_JPEG) for number in range(30)]
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    parts = [head % len(image) + image + b"\r\n" for image in images]
    connections = connect(serve(b"".join(parts)), say=pytest.fail)
    times, numbers = _stamp(next(connections))
    assert numbers == list(range(30)) and times[0] == 0
    assert np.all(np.diff(times) > 0.19)  # others ask for the time, too


def test_an_assumed_rate_is_said(monkeypatch, tmp_path):
    for options, said in [
        (_MOTION_JPEG, ["note: - tells no frame rate; 25 per second is assumed"]),
        ({"codec": "libx264", "form": "h264", "rate": 10}, []),  # its parameters tell the rate
        ({"codec": "mpeg2video", "form": "mpegts"}, []),
    ]:
        path = tmp_path / "piped"
        path.write_bytes(_write_stream(range(30), **options))
        notes = []
        with path.open() as file:
            monkeypatch.setattr("sys.stdin", file)
            connections = connect("-", say=notes.append)
            times, numbers = _stamp(next(connections))
        assert numbers == list(range(30)) and notes == said
        expected = 1 / (25 if said else options.get("rate", 25))
        assert np.allclose(np.diff(times), expected, atol=1e-3)


def test_one_ctrl_c_ends_a_silent_pipe(monkeypatch):
    # libav asks again after an end; a second read would wait for a second Ctrl-C.
    read = mock.Mock(side_effect=[_write_stream(range(30)), KeyboardInterrupt])
    monkeypatch.setattr("sys.stdin", mock.Mock(fileno=lambda: 0))
    file = mock.MagicMock(read=read)
    file.__enter__.return_value = file
    monkeypatch.setattr("builtins.open", lambda *_, **__: file)
    with pytest.raises(KeyboardInterrupt):
        for frames in connect("-", say=print):
            assert len(list(frames)) == 30
    assert read.call_count == 2


def _draw(number):
    return draw_number(number, 96, 96)


def test_the_oldest_frames_are_dropped_where_they_come_too_fast(monkeypatch):
    monkeypatch.setattr(live, "_WAITING", 4)
    sent, notes = threading.Event(), []

    def send():  # by a clock that is behind
        for i in range(20):
            yield -float(i), functools.partial(_draw, i)
        sent.set()

    with live._Backlog(send(), notes.append) as frames:
        assert sent.wait(10)
        assert _stamp(frames)[1] == [16, 17, 18, 19]
    reason = "they came faster than they were recognised"
    assert notes == [f"note: frames dropped: 16; {reason}"]


def test_a_file_sent_at_once_waits_for_its_reader(monkeypatch):
    monkeypatch.setattr(live, "_WAITING", 4)
    source = ((float(i), functools.partial(_draw, i)) for i in range(100))
    with live._Backlog(source, pytest.fail) as frames:
        assert _stamp(frames)[1] == list(range(100))


def test_an_error_of_the_thread_is_one_of_the_reader_and_no_thread_is_left():
    before = threading.active_count()

    def fail():
        yield 0.0, functools.partial(_draw, 7)
        raise MemoryError

    with live._Backlog(fail(), pytest.fail) as frames, pytest.raises(MemoryError):
        list(frames)
    endless = ((float(i), functools.partial(_draw, 7)) for i in itertools.count())
    with live._Backlog(endless, pytest.fail) as frames:
        next(frames)
    assert threading.active_count() == before
