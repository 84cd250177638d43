"""The processes of a run hold a line to each other, so that none waits for one that died."""

import os
import selectors
import socket
import struct
import threading
import time
from typing import NoReturn, cast

from sofnet_jax.host.errors import LOST

_BEAT = 5.0  # seconds from one sign of life to the next
SILENCE = 40.0  # seconds without one after which a process is taken to be dead
_GRACE = 5.0  # seconds to end by itself, for a process of a run in which another one failed
_MESSAGE = struct.Struct("!cIB")  # what there is to say, of which process, and its exit code
_ALIVE, _DONE, _FAILED, _LOST = b"a", b"d", b"f", b"l"


class Lifeline:
    """A thread that ends this process, with a word to standard error, when another one died.

    All processes are connected to process 0, which passes on what happens. A process that dies is
    noticed at once, since the system closes its connections; one whose machine or network is gone
    after `SILENCE` seconds. One that stops with an error says so itself, and the others follow
    after a moment in which they may report an error of their own.
    """

    def __init__(self, process_id: int, names: dict[int, str], lines: dict[int, socket.socket]):
        """Of connections by process: to all others in process 0, to process 0 in the others.

        `names` are the machines of the processes.
        """
        self._id, self._names, self._lines = process_id, names, lines
        self._heard = dict.fromkeys(lines, time.monotonic())
        self._over = threading.Event()
        self._failed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def conclude(self, failed: int = 0) -> None:
        """Tells the others that this process ends, and stops watching them.

        `failed` is the exit code that they are to end with as well, if it is none of success.
        """
        self._over.set()
        self._tell(_FAILED if failed else _DONE, self._id, failed)
        self._thread.join(2 * _BEAT)
        for line in self._lines.values():
            line.close()

    def await_news(self) -> None:
        """Waits a moment in which it may turn out that an error is only that another one died."""
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
        """Takes a message; False if there will be no more."""
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
        """Passes on that a process died or failed, and ends this one."""
        if self._over.is_set():
            return
        name = f"process {process} of {len(self._names)} ({self._names.get(process, '?')})"
        self._tell(kind, process, code)
        if kind == _LOST:
            end(f"error: {name} {what}; the same command goes on from the last checkpoint", code)
        if not self._over.wait(_GRACE):
            end(f"error: {name} stopped with an error, see its output; so does this one", code)

    def _tell(self, kind: bytes, process: int, code: int = 0) -> None:
        for line in self._lines.values():
            try:
                line.sendall(_MESSAGE.pack(kind, process, code))
            except OSError:  # of one that is gone, which reading from it tells
                continue


def end(text: str, code: int) -> NoReturn:
    """Ends the process though its main thread may wait for ever, in one that is dead."""
    os.write(2, f"\n{text}\n".encode(errors="backslashreplace"))
    os._exit(code)


class Hub:
    """Where process 0 waits for the others."""

    def __init__(self, token: bytes):
        """`token`, of 16 bytes, is what the processes of this run know, and others do not."""
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        self._server = socket.create_server(
            ("", 0), family=family, dualstack_ipv6=family == socket.AF_INET6
        )
        self._token = token
        self.port = self._server.getsockname()[1]

    def accept(self, count: int, timeout: float) -> dict[int, socket.socket]:
        """The lines of so many processes. Raises TimeoutError."""
        lines: dict[int, socket.socket] = {}
        deadline = time.monotonic() + timeout
        with self._server, selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ, b"")
            while len(lines) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{count - len(lines)} of {count} did not come")
                for key, _ in selector.select(left):
                    if key.fileobj is self._server:
                        selector.register(self._server.accept()[0], selectors.EVENT_READ, b"")
                    else:
                        lines |= self._greet(selector, key)
            for key in list(selector.get_map().values()):
                if key.fileobj is not self._server:
                    cast(socket.socket, key.fileobj).close()  # of a stranger who said nothing
        return lines

    def _greet(
        self, selector: selectors.BaseSelector, key: selectors.SelectorKey
    ) -> dict[int, socket.socket]:
        """Reads on in a greeting; the line, by its process, when all of it is there."""
        line = cast(socket.socket, key.fileobj)
        length = len(self._token) + 4
        try:
            data = line.recv(length - len(key.data))
        except OSError:
            data = b""
        greeting = key.data + data
        if data and len(greeting) < length:
            selector.modify(line, selectors.EVENT_READ, greeting)
            return {}
        selector.unregister(line)
        if greeting[:-4] == self._token:
            return {int.from_bytes(greeting[-4:]): line}
        line.close()  # of a stranger
        return {}


def connect(host: str, port: int, token: bytes, process_id: int, timeout: float) -> socket.socket:
    """The line of a process to process 0. Raises OSError."""
    line = socket.create_connection((host, port), timeout=timeout)
    line.settimeout(None)
    line.sendall(token + process_id.to_bytes(4))
    return line
