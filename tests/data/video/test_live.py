"""Streams that break off are found again; what was lost is said."""

import http.server
import io
import threading

import av
import numpy as np
import pytest
from numbered_frame import draw_number, read_number

from sofnet_jax.data.video import live
from sofnet_jax.data.video.container import VideoError
from sofnet_jax.data.video.live import connect, find_videos
from sofnet_jax.host.errors import UserError


def _write_stream(numbers) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for number in numbers:
            frame = av.VideoFrame.from_ndarray(draw_number(number, 96, 96), format="rgb24")
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
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/live.ts"

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


def test_no_such_camera():
    with pytest.raises(VideoError, match="/dev/video99"):
        next(connect("/dev/video99", say=print))


@pytest.mark.parametrize("name", ["", "run", "run/1.mp4"])
def test_a_folder_that_cannot_be_read_is_named(name, tmp_path, close_folder):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/1.mp4").touch()
    close_folder(tmp_path / "run")
    with pytest.raises(UserError, match=f"^{tmp_path}/run: cannot be read .Permission denied"):
        find_videos(str(tmp_path / name))


def test_a_file_is_found_in_the_other_unicode_form(tmp_path):
    """As macOS decomposes accents and others do not."""
    (tmp_path / "cafe\u0301.mp4").touch()
    found = find_videos(str(tmp_path / "caf\u00e9.mp4"))
    assert found == [str(tmp_path / "cafe\u0301.mp4")]
