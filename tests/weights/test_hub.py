"""Weights from the hub: the real client, and a server that answers as the hub does."""

import hashlib
import http.server
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.numpy
import torch_sofnet
from huggingface_hub import constants

from sofnet_jax.host.errors import UserError
from sofnet_jax.weights import hub

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789" * 4
DOWNLOAD = """
import sys
from sofnet_jax.host import errors
from sofnet_jax.weights import hub
for identifier in sys.argv[1:]:
    try:
        print(hub.download(identifier))
    except errors.UserError as error:
        print(f"error: {error}")
"""


def create_content() -> bytes:
    network = torch_sofnet.SoFNet(
        num_classes=3, block="basic", depths=(1, 1, 1, 1), width=4, gates=(2,), hidden=8
    )
    state_dict = network.state_dict()
    return safetensors.numpy.save({name: value.numpy() for name, value in state_dict.items()})


def flip_last_bit(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


class Handler(http.server.BaseHTTPRequestHandler):
    """Repositories owner/net and the like, with the revisions main and v1."""

    server: "Server"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        match = re.fullmatch(r"/owner/(\w+)/resolve/(\w+)/model\.safetensors", self.path)
        if not match:  # the client asks for other things besides
            self._refuse(404, "")
        elif match[1] == "gated":
            self._refuse(403, "GatedRepo")
        elif match[1] == "empty":
            self._refuse(404, "EntryNotFound")
        elif match[1] not in ("net", "text", "damaged", "short", "broken"):
            self._refuse(404, "RepoNotFound")
        elif match[2] not in ("main", "v1"):
            self._refuse(404, "RevisionNotFound")
        else:
            self._send(match[1])

    def _refuse(self, code: int, reason: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, name: str) -> None:
        content, checksum = self.server.content, hashlib.sha256(self.server.content).hexdigest()
        if name == "text":  # not in large file storage: git's checksum, of the book "Pro Git"
            content, checksum = b"test content\n", "d670460b4b4aece5915caf5c68d12f560a9fe3e4"
        if name == "damaged":
            content = flip_last_bit(content)
        if name == "short" and self.command == "GET":
            content = content[:-1]
        self.send_response(200)
        self.send_header("ETag", f'"{checksum}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET" and name == "broken":
            self.wfile.write(content[:100])
            reset = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        elif self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = create_content()
        self.requests: list[str] = []

    def shutdown_request(self, request) -> None:
        self.close_request(request)  # without a good-bye before, which would keep a reset back

    def take_requests(self) -> list[str]:
        """Those for weights since the last call."""
        requests = [request for request in self.requests if "/resolve/" in request]
        self.requests.clear()
        return requests


@pytest.fixture(scope="module")
def running_server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running_server) -> Server:
    running_server.requests.clear()
    return running_server


@pytest.fixture
def run(server, tmp_path):
    """Runs Python with an empty cache: exit code, lines of standard output and of error."""

    def run(*arguments: object, **environment: str) -> tuple[int, list[str], list[str]]:
        kept = {k: v for k, v in os.environ.items() if not re.match(r"HF_|(?i:\w+_proxy$)", k)}
        host, port = server.server_address[:2]
        process = subprocess.run(
            [sys.executable, "-W", "error", *map(str, arguments)],
            cwd=ROOT,
            env=kept
            | {"HF_ENDPOINT": f"http://{host}:{port}", "HF_HOME": str(tmp_path / "hf")}
            | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return process.returncode, process.stdout.splitlines(), process.stderr.splitlines()

    return run


@pytest.fixture
def download(run):
    """Downloads in a process of its own: a path or an error, each one line."""

    def download(*identifiers: str, **environment: str) -> list[str]:
        code, out, err = run("-c", DOWNLOAD, *identifiers, **environment)
        assert code == 0, err
        assert len(out) == len(identifiers), out
        assert all("fetching model.safetensors" in line for line in err), err
        return out

    return download


def file_requests(*requests: str) -> list[str]:
    return [
        f"{method} /owner/net/resolve/{revision}/model.safetensors"
        for method, revision in (request.split() for request in requests)
    ]


def test_fetched_once_then_from_the_cache(server, download):
    (path,) = download("hub:owner/net")
    assert Path(path).read_bytes() == server.content
    assert server.take_requests() == file_requests("HEAD main", "GET main")
    assert download("hub:owner/net") == [path]
    assert server.take_requests() == file_requests("HEAD main")  # is it still the same?
    assert download("hub:owner/net@v1") == [path]
    assert server.take_requests() == file_requests("HEAD v1")
    assert download(f"hub:owner/net@{COMMIT}") == [path]
    assert server.take_requests() == []  # a commit stays what it is


def test_offline(server, download):
    (path,) = download("hub:owner/net")
    server.take_requests()
    cached, other = download("hub:owner/net", "hub:owner/text", HF_HUB_OFFLINE="1")
    assert cached == path
    assert other.startswith("error: hub:owner/text: it is not in the cache, and the hub cannot")
    assert server.requests == []


def test_file_with_the_checksum_of_git(download):
    (path,) = download("hub:owner/text")
    assert Path(path).read_bytes() == b"test content\n"


def test_mistakes_and_faults_are_one_line(download):
    expected = {
        "hub:owner/none": "hub:owner/none: the hub has no such repository",
        "hub:owner/gated": "private or gated",
        "hub:owner/net@v2": "hub:owner/net@v2: the repository has no revision v2",
        "hub:owner/empty": "hub:owner/empty: the repository has no model.safetensors",
        "hub:net": "'hub:net' is no hub id; write hub:owner/name or hub:owner/name@rev",
        "hub:": "'hub:' is no hub id",
        "hub:owner/net@": "is no hub id",
        "hub:owner/net/model.safetensors": "is no hub id",
        "hub:https://huggingface.co/owner/net": "is no hub id",
        "hub:owner/two--dashes": "hub:owner/two--dashes: Cannot have -- or ..",
        "hub:owner/short": "hub:owner/short: Consistency check failed",
        "hub:owner/broken": "hub:owner/broken: ",
    }
    for line, text in zip(download(*expected), expected.values(), strict=True):
        assert line.startswith("error: ") and text in line, line


def share(path: Path, cache: Path) -> None:
    """Moves a file to where the client keeps what came by Xet: one store for all repositories."""
    blob = path.resolve()
    xet_hash = "ab" * 32  # no SHA-256, but of 64 digits as well
    stored = cache / "blobs" / xet_hash[:2] / xet_hash
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(stored)


@pytest.mark.parametrize("shared", [False, True])
def test_damaged_cache_is_refused_and_fetched_anew(shared, server, download, tmp_path):
    (name,) = download("hub:owner/net")
    path = Path(name)
    if shared:
        share(path, tmp_path / "hf" / "hub")
        assert download("hub:owner/net") == [name]
    path.write_bytes(flip_last_bit(server.content))
    (refused,) = download("hub:owner/net", HF_HUB_OFFLINE="1")
    assert refused == f"error: {name} did not have its checksum and was removed; try again"
    server.take_requests()
    assert download("hub:owner/net") == [name]
    assert server.take_requests() == file_requests("HEAD main", "GET main")
    assert path.read_bytes() == server.content


def test_damaged_on_the_way_is_refused_and_not_kept(server, download):
    for line in download("hub:owner/damaged", "hub:owner/damaged"):
        assert line.startswith("error: ") and "did not have its checksum" in line
    assert sum(request.startswith("GET") for request in server.take_requests()) == 2


def test_without_a_home_folder_nothing_is_fetched(monkeypatch):
    """An unknown user has none; the cache would be a folder named `~`."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/hub")
    monkeypatch.setattr(os.path, "expanduser", str)
    with pytest.raises(UserError, match="^~/.cache/hub: the home folder is unknown; set HOME"):
        hub.download("hub:owner/net")


def test_without_the_client(run):
    without = "import sys; sys.modules['huggingface_hub'] = None" + DOWNLOAD
    code, out, err = run("-c", without, "hub:owner/net")
    assert (code, err) == (0, [])
    assert out == [
        "error: hub:owner/net needs huggingface_hub (pip install '.[hub]'), or give a file"
    ]


def test_convert_takes_weights_from_the_hub(server, run, tmp_path):
    target = tmp_path / "out.safetensors"
    code, out, err = run("-m", "sofnet_jax.convert", "hub:owner/net", target)
    assert code == 0, err
    assert out[0].startswith("hub:owner/net (sofnet_jax): ")
    assert err == ["hub:owner/net: fetching model.safetensors, unless it is cached"]
    theirs, ours = safetensors.numpy.load(server.content), safetensors.numpy.load_file(target)
    assert ours.keys() == {name for name in theirs if not name.endswith("num_batches_tracked")}
    assert all((ours[name] == theirs[name]).all() for name in ours)


@pytest.mark.slow
def test_convert_tells_in_one_line_that_there_are_none(run, tmp_path):
    target = tmp_path / "out.safetensors"
    code, out, err = run("-m", "sofnet_jax.convert", "hub:owner/none", target)
    assert (code, out) == (1, [])
    assert not target.exists()
    assert err == [
        "hub:owner/none: fetching model.safetensors, unless it is cached",
        "error: hub:owner/none: the hub has no such repository, or it is private or gated",
    ]
