"""Connections between the processes of a run, which end together when one dies."""

import contextlib
import os
import selectors
import socket
import struct
import threading
import time
from typing import NoReturn

from sofnet_jax.host.errors import LOST

_BEAT = 5.0  # seconds between heartbeats
SILENCE = 40.0  # seconds without a heartbeat after which a process counts as lost
_GRACE = 5.0  # seconds to report an error of one's own after another process failed
_GREETING = 5.0  # seconds for a new connection to identify itself
_MESSAGE = struct.Struct("!cIB")  # kind, the process concerned, its exit code
_ALIVE, _DONE, _FAILED, _LOST = b"a", b"d", b"f", b"l"


class Lifeline:
    """A thread that prints an error and ends this process when another process of the run is lost.

    All processes are connected to process 0, which forwards news. A death is noticed at once, since
    the system closes the connections; the loss of a machine or its network after `SILENCE` seconds.
    A process that stops with an error announces it, and the others follow after `_GRACE` seconds.
    """

    def __init__(self, process_id: int, names: dict[int, str], lines: dict[int, socket.socket]):
        """Start watching.

        Args:
            process_id: index of this process.
            names: host name of every process.
            lines: connections: in process 0 to all others, in the others to process 0.
        """
        self._id, self._names, self._lines = process_id, names, lines
        self._heard = dict.fromkeys(lines, time.monotonic())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def conclude(self, failed: int = 0) -> None:
        """Announce that this process ends, and stop watching.

        A nonzero `failed` is the exit code with which all processes are to end.
        """
        self._over.set()
        self._tell(_FAILED if failed else _DONE, self._id, failed)
        self._thread.join(2 * _BEAT)
        for line in self._lines.values():
            line.close()

    def await_news(self) -> None:
        """Wait in case the error at hand was caused by the death of another process."""
        time.sleep(_GRACE)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for process, line in self._lines.items():
                selector.register(line, selectors.EVENT_READ, process)
            following = time.monotonic()
            while not self._over.is_set() and selector.get_map():
                for key, _ in selector.select(0.2):
                    if not self._listen(key.data):
                        selector.unregister(key.fileobj)
                        del self._heard[key.data]
                if time.monotonic() >= following:
                    self._tell(_ALIVE, self._id)
                    following = time.monotonic() + _BEAT
                for process, heard in self._heard.items():
                    if time.monotonic() - heard > SILENCE:
                        self._report(_LOST, process, LOST, f"not heard from for {SILENCE:.0f} s")

    def _listen(self, process: int) -> bool:
        """Handle a message; return False if it was the last one of this process."""
        try:
            data = self._lines[process].recv(_MESSAGE.size, socket.MSG_WAITALL)
        except OSError:
            data = b""
        if len(data) < _MESSAGE.size:
            self._report(_LOST, process, LOST, "died")
            return False
        kind, subject, code = _MESSAGE.unpack(data)
        self._heard[process] = time.monotonic()
        if kind in (_LOST, _FAILED):
            self._report(kind, subject, code, "died")
        return kind != _DONE

    def _report(self, kind: bytes, process: int, code: int, what: str) -> None:
        """Forward that a process died or failed, and end this one."""
        if self._over.is_set():
            return
        name = f"process {process} of {len(self._names)} ({self._names.get(process, '?')})"
        self._tell(kind, process, code)
        if kind == _LOST:
            end(
                f"error: {name} {what}; run the same command to resume from the last checkpoint",
                code,
            )
        if not self._over.wait(_GRACE):
            end(f"error: {name} stopped with an error, see its output; so does this one", code)

    def _tell(self, kind: bytes, process: int, code: int = 0) -> None:
        for line in self._lines.values():
            try:
                line.sendall(_MESSAGE.pack(kind, process, code))
            except OSError:  # it is gone; `_listen` notices
                continue


def end(text: str, code: int) -> NoReturn:
    """End this process even though its main thread may be waiting for a dead one forever."""
    with contextlib.suppress(OSError):  # nobody may read it
        os.write(2, f"\n{text}\n".encode(errors="backslashreplace"))
    os._exit(code)


class Hub:
    """Process 0's server, to which the other processes connect."""

    def __init__(self, token: bytes):
        """Listen on a free port. `token` is 16 bytes that only processes of this run know."""
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        self._server = socket.create_server(
            ("", 0), family=family, dualstack_ipv6=family == socket.AF_INET6
        )
        self._token = token
        self.port = self._server.getsockname()[1]

    def accept(self, count: int, timeout: float) -> dict[int, socket.socket]:
        """Wait for `count` processes; return their connections by process. Raises TimeoutError."""
        lines: dict[int, socket.socket] = {}
        deadline = time.monotonic() + timeout
        with self._server:
            while len(lines) < count:
                self._server.settimeout(max(deadline - time.monotonic(), 1e-3))
                try:
                    line, _ = self._server.accept()
                except TimeoutError as error:
                    raise TimeoutError(f"{count - len(lines)} of {count} did not come") from error
                greeting = _receive_greeting(line, len(self._token) + 4)
                if greeting[:-4] == self._token:
                    line.settimeout(None)
                    lines[int.from_bytes(greeting[-4:])] = line
                else:
                    line.close()  # not a process of this run
        return lines


def _receive_greeting(line: socket.socket, length: int) -> bytes:
    line.settimeout(_GREETING)
    data = b""
    try:
        while len(data) < length and (more := line.recv(length - len(data))):
            data += more
    except OSError:
        return b""
    return data


def connect(host: str, port: int, token: bytes, process_id: int, timeout: float) -> socket.socket:
    """Connect a process to process 0. Raises OSError."""
    line = socket.create_connection((host, port), timeout=timeout)
    line.settimeout(None)
    line.sendall(token + process_id.to_bytes(4))
    return line
